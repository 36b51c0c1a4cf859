"""Volumes to be deleted that are still attached: whom they wait for, and when the wait is over (delete.md 7.2).

A wait is no failure: a node has to let go first, which may take as long as its pod. It is told once, counted once, and
ends when the last VolumeAttachment goes, by whatever way the cache learns of that.
"""

from collections.abc import Callable, Iterable

import msgspec
import trio

from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.kube.index import Index
from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import PersistentVolume, VolumeAttachment
from csi_provisioner.model.outcome import Outcome, RetryAt
from csi_provisioner.planning.deletion import Attached, nodes

# Seconds until a volume is looked at again that nobody has woken, as with any resync
LOOK_AGAIN = 15 * 60.0


class Detaching(msgspec.Struct, eq=False, dict=True):
    """`wake`: have the volume of that name looked at now."""

    events: EventRecorder
    metrics: Metrics
    wake: Callable[[str], None]

    def __post_init__(self) -> None:
        self._attachments = Index[VolumeAttachment](lambda attachment: attachment.spec.source.persistentVolumeName)
        # name of the volume -> the nodes that people were told, and since when it waits
        self._waits: dict[str, tuple[tuple[str, ...], float]] = {}

    def follow(self, attachments: Store[VolumeAttachment]) -> None:
        attachments.subscribe(self._attachments.saw)
        attachments.subscribe(self._saw_attachment)

    def of(self, volume: str) -> Iterable[VolumeAttachment]:
        return self._attachments.of(volume)

    def wait(self, volume: PersistentVolume, attached: Attached) -> Outcome:
        name = volume.metadata.name
        told, since = self._waits.get(name, (None, trio.current_time()))
        if told is None:
            self.metrics.deletion(volume.spec.storageClassName or "", None)
        if told != attached.nodes:
            self._waits[name] = attached.nodes, since
            log.v(2, "A deletion waits", PV=volume, nodes=" ".join(attached.nodes))
            self.events.record(volume, "Normal", "VolumeDelete", str(attached))
        return RetryAt(trio.current_time() + LOOK_AGAIN, str(attached))

    def over(self, name: str) -> None:
        """It is detached, gone, or not to be deleted any more."""
        self._waits.pop(name, None)

    def _saw_attachment(self, _key: str, old: VolumeAttachment | None, new: VolumeAttachment | None) -> None:
        attachment = new or old
        name = attachment.spec.source.persistentVolumeName if attachment is not None else None
        if name not in self._waits:
            return
        told, since = self._waits[name]
        found = nodes(self.of(name))
        if not found:
            self.metrics.detached_after(trio.current_time() - since)
            self.over(name)
        if found != told:
            self.wake(name)
