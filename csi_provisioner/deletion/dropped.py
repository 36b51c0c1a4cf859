"""PersistentVolumes of ours that go without our DeleteVolume: their volumes stay, and nobody else says so.

Design.md 6. Somebody took our finalizer off, or deleted one with the reclaim policy Retain. A little later, when who
does that on purpose has made another PersistentVolume of the volume, it is told once, counted and kept with its id.
"""

from collections.abc import Callable, Mapping

import msgspec
import trio

from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import PersistentVolume
from csi_provisioner.planning import deletion, leftover
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.leftover import Leftover

# Seconds that a tool needs to adopt a volume under another name; all that go meanwhile share one look
GRACE = 10.0


class DroppedVolumes(msgspec.Struct, eq=False, kw_only=True, dict=True):
    """`deleted(volume)`: the driver has deleted it; None: it is being asked. `segments` are the local topology of a
    per-node deployment, where each node looks after its own volumes."""

    volumes: Store[PersistentVolume]
    driver: DriverFacts
    events: EventRecorder
    metrics: Metrics
    deleted: Callable[[PersistentVolume], bool | None]
    keep: Callable[[Leftover], None]
    now: Callable[[], float]
    segments: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        self._gone: list[PersistentVolume] = []
        self._changed = trio.Event()
        self._handled: set[str] = set()  # UIDs of volumes that a provisioner before us was deleting

    def saw_volume(self, _name: str, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        """Handler of the volume store, before the one that forgets what the driver was asked."""
        if old is None and new is not None and leftover.was_being_deleted(new):
            self._handled.add(new.metadata.uid)
        if old is None or new is not None:
            return
        # The driver was asked by somebody else: nobody here can know what it said.
        if old.metadata.uid in self._handled:
            self._handled.discard(old.metadata.uid)
        elif leftover.is_told(old, self.driver, self.segments) and not self.deleted(old):
            self._gone.append(old)
            self._changed.set()

    def was_deleted(self, volume: PersistentVolume) -> None:
        """The driver's answer came after the PersistentVolume had gone."""
        self._gone = [gone for gone in self._gone if gone.metadata.uid != volume.metadata.uid]

    async def run(self) -> None:
        """Tells until cancelled, and then of those that are left."""
        try:
            while True:
                await self._changed.wait()
                await trio.sleep(GRACE)
                self._tell_all([volume for volume in self._gone if self.deleted(volume) is not None])
        finally:
            self._tell_all(self._gone)

    def _tell_all(self, gone: list[PersistentVolume]) -> None:
        told = {volume.metadata.uid for volume in gone}
        self._gone = [volume for volume in self._gone if volume.metadata.uid not in told]
        if not self._gone:
            self._changed = trio.Event()
        for volume in gone:
            # Known under its name and not as ours: it was handed to another driver.
            if not self.volumes.sharing(deletion.handle(volume) or "") and volume.metadata.name not in self.volumes:
                self._tell(volume)

    def _tell(self, volume: PersistentVolume) -> None:
        dropped = leftover.of_volume(volume, self.driver, when=int(self.now()))
        self.metrics.dropped_volume()
        self.keep(dropped)
        # A person copies this into a command line.
        what = dropped.volume_id or "(its id cannot be told)"
        todo = f"csi-provisioner orphans --delete {what} deletes it, orphans --adopt {what} prints a PersistentVolume"
        log.warning(
            "A volume is left in the storage backend, its PersistentVolume is gone",
            PV=volume,
            volumeID=what,
            claim=dropped.claim,
            reason=dropped.reason,
            advice=todo,
        )
        self.events.record(
            volume,
            "Warning",
            "VolumeDropped",
            f"volume {what} is left in the storage backend: {dropped.reason}; {todo}",
        )
