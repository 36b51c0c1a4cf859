"""What pairs of a bound claim and its volume cost, for which nothing is to be done: `python -m bench.steps [pairs]`.

Memory; processor time of a first list; and the longest step without a checkpoint, in which no probe is answered and no
lease renewed: in the first list, the same list once more, one in which a tenth has changed, a resync, and when a class
comes. Then that with claims besides that wait for the class, a tenth as many; and a first list of as many claims that
can have their volumes. Goal: 0.25 s a step at 100,000 pairs. A real leader term on virtual time, with an API server of
pages made before, without HTTP and TLS, and a driver that never answers.
"""

import gc
import json
import math
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from bench.store_memory import claim_bytes, memory, volume_bytes
from csi_provisioner.cli import keeper_from_collector
from csi_provisioner.kube.asking import Ask
from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.end import End
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.kube.kept import Kept
from csi_provisioner.kube.reflector import RESYNC
from csi_provisioner.kube.watching import LIST_GAP
from csi_provisioner.metrics import Metrics
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.provision.memory import ClaimMemory
from csi_provisioner.provision.orphans import Orphans
from csi_provisioner.settings import Settings
from csi_provisioner.supervisor.parts import Parts
from csi_provisioner.supervisor.term import LeaderTerm

CLAIMS, VOLUMES, CLASSES = "persistentvolumeclaims", "persistentvolumes", "storageclasses"
PAGE, VERSION = 500, 10**9
CLASS = b'{"metadata":{"name":"fast","resourceVersion":"%d"},"provisioner":"ours"}'
EVENT = b'{"type":"%b","object":' + CLASS + b"}\n"
EXPIRED = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n'
FACTS = DriverFacts("ours", None, frozenset({"CONTROLLER_SERVICE"}), frozenset({"CREATE_DELETE_VOLUME"}))


def pages(lines: list[bytes]) -> list[bytes]:
    begins, meta = range(0, max(1, len(lines)), PAGE), {"resourceVersion": str(VERSION)}
    metas: list[dict[str, str]] = [*(meta | {"continue": str(page + 1)} for page in range(len(begins) - 1)), meta]
    items = [b",".join(lines[begin : begin + PAGE]) for begin in begins]
    return [b'{"metadata": %b, "items": [%b]}' % (json.dumps(m).encode(), i) for m, i in zip(metas, items, strict=True)]


class Watch:
    """What is told, and bookmarks while that is nothing."""

    def __init__(self) -> None:
        self.tell, self._told = trio.open_memory_channel[bytes](1)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            told = EVENT % (b"BOOKMARK", VERSION)
            with trio.move_on_after(60):
                told = await self._told.receive()
            yield told

    def close(self) -> None: ...


class Api:
    """In the place of the sender, and of the driver."""

    def __init__(self, claims: list[bytes], volumes: list[bytes], *classes: bytes) -> None:
        self.pages = {CLAIMS: pages(claims), VOLUMES: pages(volumes), CLASSES: pages(list(classes))}
        self.watches = {kind: Watch() for kind in self.pages}
        self.cluster, self.server_time = SimpleNamespace(troubles=set()), time.time

    async def send(self, ask: Ask, _begin: object = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if ask.method == "POST":  # whether we may do something
            return b'{"metadata": {}, "status": {"allowed": true}}'
        return self.pages[ask.url.rpartition("/")[2]][int(ask.params.get("continue", 0))]

    async def open_stream(self, ask: Ask) -> Watch:
        return self.watches[ask.url.rpartition("/")[2]]

    async def create_volume(self, *_: object, **__: object) -> None:
        await trio.sleep_forever()


class Steps(trio.abc.Instrument):
    longest, begun = (0.0, ""), math.inf

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.begun = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest = max(self.longest, (time.thread_time() - self.begun, task.name))


@contextmanager
def measured(what: str, pairs: int) -> Iterator[None]:
    steps, begun = Steps(), time.process_time()
    trio.lowlevel.add_instrument(steps)
    yield
    trio.lowlevel.remove_instrument(steps)
    spent, (longest, task) = time.process_time() - begun, steps.longest
    print(f"  {what}: {spent:.2f} s, {spent / pairs * 1e6:.1f} us a pair, the longest step {longest:.3f} s ({task})")


def leader(api: Any) -> LeaderTerm:
    settings, metrics, kube = Settings(), Metrics(), KubeClient(api)
    tools = kube, api, EventRecorder(kube, "ours"), ClaimMemory(), Orphans("ours", metrics), Kept(kube, "", ""), End()
    parts = Parts(settings, settings.provisioning, metrics, *tools, "me", synced=keeper_from_collector())
    return LeaderTerm(parts, FACTS)


def changed(lines: list[bytes]) -> list[bytes]:
    """Every tenth of them."""
    objects = (json.loads(line) for line in lines[::10])
    newer = (obj | {"metadata": obj["metadata"] | {"resourceVersion": str(VERSION + 2)}} for obj in objects)
    return [json.dumps(next(newer)).encode() if number % 10 == 0 else line for number, line in enumerate(lines)]


async def backlog(count: int, claims: list[bytes]) -> None:
    async with trio.open_nursery() as nursery:
        with measured("first list", count):
            nursery.start_soon(leader(Api(claims, [], CLASS % VERSION)).run)
            await trio.sleep(1)
        nursery.cancel_scope.cancel()


async def course(pairs: int, claims: list[bytes], volumes: list[bytes]) -> None:
    api = Api(claims, volumes)
    async with trio.open_nursery() as nursery:
        with measured("first list", pairs):
            nursery.start_soon(leader(api).run)
            await trio.sleep(1)
        with measured("the same list", pairs):
            for kind in (CLAIMS, VOLUMES):
                await api.watches[kind].tell.send(EXPIRED)
            await trio.sleep(2 * LIST_GAP)
        api.pages |= {CLAIMS: pages(changed(claims)), VOLUMES: pages(changed(volumes))}
        with measured("a tenth of it changed", pairs):
            for kind in (CLAIMS, VOLUMES):
                await api.watches[kind].tell.send(EXPIRED)
            await trio.sleep(2 * LIST_GAP)
        with measured("resync", pairs):
            await trio.sleep(RESYNC)
        with measured("a new class", pairs):
            await api.watches[CLASSES].tell.send(EVENT % (b"ADDED", VERSION + 1))
            await trio.sleep(1)
        nursery.cancel_scope.cancel()


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    gc.freeze()  # what was imported, as the program does
    claims, volumes = ([make(n, "ours") for n in range(pairs)] for make in (claim_bytes, volume_bytes))
    each = memory(claims, volumes) / pairs
    print(f"{each * 1e3:.2f} KB a pair, {each * 1e6:.0f} MB a million")
    for waiting in (0, pairs // 10):
        print(f"{pairs} pairs, and {waiting} claims that wait for a class")
        more = [claim_bytes(pairs + n, "ours", bound=False) for n in range(waiting)]
        trio.run(course, pairs, claims + more, volumes, clock=trio.testing.MockClock(autojump_threshold=0))
    print(f"{pairs} claims that can have their volumes")
    more = [claim_bytes(number, "ours", bound=False) for number in range(pairs)]
    trio.run(backlog, pairs, more, clock=trio.testing.MockClock(autojump_threshold=0))


if __name__ == "__main__":
    main()
