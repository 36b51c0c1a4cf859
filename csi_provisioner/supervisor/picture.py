"""What people look at beyond what probes are told: put together only when a page is asked for (`model/state.Details`).

Lists are cut to what one can read; what is counted is counted whole.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from heapq import nsmallest
from typing import Any

import trio

from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.store import Store
from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import CSIStorageCapacity
from csi_provisioner.model.outcome import TryError
from csi_provisioner.model.state import Details, JournalState, Published, Rate, Task, WaitingClaim
from csi_provisioner.planning import quantity
from csi_provisioner.work.runner import Loop

from .controllers import Controllers
from .parts import Parts

SHOWN, SEGMENTS = 20, 40
MINUTES, MINUTE = 60, 60.0


class Rates:
    """How much of each thing there was in each of the last minutes, from totals that only grow."""

    def __init__(self, totals: Callable[[], Mapping[str, int]]) -> None:
        self._totals = totals
        self._before = dict(totals())
        self._ring: deque[dict[str, int]] = deque(maxlen=MINUTES - 1)

    async def run(self) -> None:
        while True:
            await trio.sleep(MINUTE)
            self._ring.append(self._since())
            self._before = dict(self._totals())

    def states(self) -> tuple[Rate, ...]:
        minutes = [*self._ring, self._since()]
        return tuple(Rate(what, tuple(minute[what] for minute in minutes)) for what in self._before)

    def _since(self) -> dict[str, int]:
        return {what: total - self._before[what] for what, total in self._totals().items()}


def details(parts: Parts, controllers: Controllers, caches: Caches, *, driver_ready: bool) -> Details:
    loops = {*controllers.loops, *controllers.of_driver, controllers.saves}
    publisher, journal = controllers.publisher, parts.journal
    capacity = list(publisher.published()) if publisher is not None else []
    stores: dict[str, Store[Any]] = {"PersistentVolumeClaim": caches.claims, "PersistentVolume": caches.volumes,
              "StorageClass": caches.storage_classes, "VolumeAttachment": caches.attachments,
              "ReferenceGrant": caches.grants, "Node": caches.nodes, "CSINode": caches.csinodes}  # fmt: skip
    return Details(
        tasks=tuple(nsmallest(SHOWN, _tasks(parts, loops), key=lambda task: -task.age)),
        waiting=tuple(_waiting(controllers, caches, driver_ready=driver_ready)),
        capacity=tuple(_published(each) for each in nsmallest(SEGMENTS, capacity, key=_segment)),
        published=len(capacity),
        objects=tuple((kind, len(store)) for kind, store in stores.items() if len(store)),
        journal=JournalState(journal.is_kept, journal.off, journal.size, len(journal.inherited)) if journal else None,
        suspects=len(parts.orphans.suspects),
    )


def _tasks(parts: Parts, loops: set[Loop]) -> Iterator[Task]:
    now = trio.current_time()
    for loop in loops:
        for key, started in loop.running.items():
            thing = next(iter(loop.about(key).values()), key)
            known = parts.memory.of(key)
            calling = now - known.asked_at if known.asked is not None and known.asked_at >= started else None
            yield Task(loop.name, thing if isinstance(thing, str) else kubernetes.key(thing), now - started, calling)


def _waiting(controllers: Controllers, caches: Caches, *, driver_ready: bool) -> Iterator[WaitingClaim]:
    for uid, class_, reason, age in controllers.pending.oldest(SHOWN, driver_away=not driver_ready):
        claim = caches.claims.by_uid(uid)
        if claim is not None:
            yield WaitingClaim(kubernetes.key(claim), class_, reason, age, controllers.claims.look(uid))


def _segment(found: CSIStorageCapacity) -> tuple[str, str]:
    labels = found.nodeTopology.matchLabels if found.nodeTopology is not None else None
    return ", ".join(f"{key}={value}" for key, value in sorted((labels or {}).items())), found.storageClassName


def _published(found: CSIStorageCapacity) -> Published:
    try:
        count = quantity.parse(found.capacity or "0")
    except TryError:
        count = 0  # somebody else's text
    return Published(*_segment(found), count)
