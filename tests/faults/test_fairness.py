"""A class whose calls hang beside one that is answered at once, on the real control plane (design.md 7)."""

import pytest
import trio

from tests.journeys import objects
from tests.journeys.objects import CLAIM
from tests.journeys.real import Real
from tests.journeys.world import Rule

pytestmark = pytest.mark.cluster

COUNT, TOGETHER = 300, 8


async def test_a_class_that_hangs_keeps_nobody_waiting(real_world: Real) -> None:
    """Each claim of the other class has its PersistentVolume within 2 s."""
    world = real_world
    hangs, quick = await world.storage_class("hangs"), await world.storage_class("quick")
    # As the volume controller does it, which makes 20 requests a second: that would be all that is measured.
    chosen = {"volume.kubernetes.io/storage-provisioner": world.driver}
    made: dict[str, float] = {}
    seen: dict[str, float] = {}

    async def make(class_name: str, prefix: str, first: int) -> None:
        for number in range(first, COUNT, TOGETHER):
            name = f"{prefix}-{number}"
            claim = objects.claim(name, class_name)
            claim["metadata"]["annotations"] = chosen
            await world.create(CLAIM, claim)
            made[name] = trio.current_time()

    async def watch() -> None:
        while True:
            now = trio.current_time()
            for name in await world.own_volumes():
                seen.setdefault(name, now)
            await trio.sleep(0.1)

    async def all_of(class_name: str, prefix: str) -> None:
        async with trio.open_nursery() as nursery:
            for first in range(TOGETHER):
                nursery.start_soon(make, class_name, prefix, first)

    world.rules(Rule(match="hanging", delay=3600.0))
    await world.start("--timeout=60s", "--volume-journal=on", f"--leader-election-namespace={world.lease_namespace}")
    await all_of(hangs, "hanging")
    await world.asked("CreateVolume", lambda calls: len(calls) >= 88)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await all_of(quick, "quick")
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    waits = sorted(seen.get(f"quick-{number}", 1e9) - made[f"quick-{number}"] for number in range(COUNT))
    assert waits[-1] <= 2.0, waits[-20:]
    assert len(world.calls("CreateVolume")) == COUNT + 88
