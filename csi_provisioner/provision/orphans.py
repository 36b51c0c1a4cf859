"""Volumes that may exist and that no PersistentVolume will ever name: said once, counted, kept for the status page."""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import ObjectReference, PersistentVolumeClaim

# Enough for a person to work through; older ones stay in the log and in the counter.
KEPT = 200


@dataclass(frozen=True, slots=True)
class Orphan:
    driver: str
    volume_id: str
    """Empty where the driver never told it; the volume is then known by `name` only."""
    name: str
    claim: PersistentVolumeClaim | ObjectReference
    reason: str


class OrphanCount(Protocol):
    def suspected_orphan(self) -> None: ...


class Orphans:
    """The list of suspects, newest last."""

    def __init__(self, driver: str, count: OrphanCount) -> None:
        self._driver = driver
        self._count = count
        self.suspects: deque[Orphan] = deque(maxlen=KEPT)

    def suspect(
        self, *, volume_id: str, name: str, claim: PersistentVolumeClaim | ObjectReference, reason: str
    ) -> None:
        """Say it once, as a warning that names everything an administrator needs to look the volume up."""
        orphan = Orphan(self._driver, volume_id, name, claim, reason)
        if any(known.name == name and volume_id in ("", known.volume_id) for known in self.suspects):
            return
        self.suspects.append(orphan)
        self._count.suspected_orphan()
        log.warning(
            "A volume may be left over in the storage backend: delete it there by hand if no PersistentVolume names it",
            driver=orphan.driver,
            volumeID=volume_id or "unknown",
            volume=name,
            claim=claim,
            reason=reason,
        )

    def has_owner(self, name: str) -> None:
        """A later try has made a PersistentVolume of it after all."""
        if self.suspects:
            left = [orphan for orphan in self.suspects if orphan.name != name]
            self.suspects.clear()
            self.suspects.extend(left)
