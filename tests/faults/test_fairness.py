"""Calls that hang beside those of another lane, which are answered at once, on the real control plane (design.md 7).

`LANES=all` in the environment makes each kind with both timeouts.
"""

import os

import pytest
import trio

from tests.journeys import objects
from tests.journeys.objects import CLAIM, GIB, VOLUME, VOLUME_FINALIZER
from tests.journeys.real import Real
from tests.journeys.world import Rule
from tests.sandbox.api.client import MERGE

pytestmark = pytest.mark.cluster

COUNT, TOGETHER = 300, 8
CASES = [("classes", "60s"), ("clones", "10s"), ("deletions", "60s")]
if os.environ.get("LANES") == "all":
    CASES += [("classes", "10s"), ("clones", "60s"), ("deletions", "10s")]


class Lanes:
    """What hangs and what is quick, as `kind` says: claims of two classes, clones and plain volumes, or deletions."""

    def __init__(self, world: Real, kind: str) -> None:
        self.world, self.kind = world, kind
        self.rpc = "DeleteVolume" if kind == "deletions" else "CreateVolume"
        self.made: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        self._classes: dict[str, str] = {}

    async def start(self, limit: str) -> None:
        world = self.world
        self._classes = {name: await world.storage_class(name) for name in ("hanging", "quick")}
        world.rules(Rule(self.rpc, match="hanging", delay=3600.0))
        await world.start(
            f"--timeout={limit}", "--volume-journal=on", f"--leader-election-namespace={world.lease_namespace}"
        )
        if self.kind == "clones":
            await world.claim("source", self._classes["quick"])
            await world.bound("source")

    async def all_of(self, prefix: str) -> None:
        async def some(first: int) -> None:
            for number in range(first, COUNT, TOGETHER):
                name = f"{prefix}-{number}"
                await (self._release if self.kind == "deletions" else self._claim)(name, prefix)
                self.made[name] = trio.current_time()

        async with trio.open_nursery() as nursery:
            for first in range(TOGETHER):
                nursery.start_soon(some, first)

    async def _claim(self, name: str, prefix: str) -> None:
        source = objects.from_claim("source") if (self.kind, prefix) == ("clones", "hanging") else {}
        claim = objects.claim(name, self._classes["quick" if self.kind == "clones" else prefix], **source)
        # As the volume controller does it, which makes 20 requests a second: that would be all that is measured.
        claim["metadata"]["annotations"] = {"volume.kubernetes.io/storage-provisioner": self.world.driver}
        await self.world.create(CLAIM, claim)

    async def _release(self, name: str, prefix: str) -> None:
        world, full = self.world, self.world.api.unique(name)
        volume = objects.static_volume(full, self._classes[prefix], world.driver, name)
        volume["metadata"]["finalizers"] = [VOLUME_FINALIZER]
        claim = {"namespace": world.api.ns, "name": name, "uid": f"uid-of-{name}"}
        volume["spec"] |= {"claimRef": claim, "capacity": {"storage": str(GIB)}}
        await world.create(VOLUME, volume)
        # The volume controller says the same, and may have been first: then it may be gone by now.
        path, released = f"{world.path(VOLUME, full)}/status", {"status": {"phase": "Released"}}
        code, answer = await world.api.request("PATCH", path, released, media=MERGE)
        assert code in (200, 404), answer

    async def watch(self) -> None:
        while True:
            now, made = trio.current_time(), set(self.made)
            volumes = await self.world.own_volumes()
            # The protection of volumes, which the volume controllers take away, holds what was deleted for a while.
            there = {name for name, volume in volumes.items() if "deletionTimestamp" not in volume["metadata"]}
            for name in made - there if self.kind == "deletions" else there:
                self.seen.setdefault(name, now)
            await trio.sleep(0.1)


@pytest.mark.parametrize(("kind", "limit"), CASES)
async def test_what_hangs_keeps_nobody_waiting(real_world: Real, kind: str, limit: str) -> None:
    """Each of the quick ones has its PersistentVolume, or none any more, within 2 s."""
    lanes = Lanes(real_world, kind)
    await lanes.start(limit)
    await lanes.all_of("hanging")
    await real_world.asked(lanes.rpc, lambda calls: len(calls) >= 88)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lanes.watch)
        await lanes.all_of("quick")
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    quick = [f"quick-{number}" for number in range(COUNT)]
    waits = sorted(lanes.seen.get(name, 1e9) - lanes.made[name] for name in quick)
    assert waits[-1] <= 2.0, waits[-20:]
    assert len(real_world.calls(lanes.rpc)) >= COUNT + 88
