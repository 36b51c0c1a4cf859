"""Volumes that may exist and that no PersistentVolume will ever name: said once, counted, kept for later."""

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import ObjectReference, PersistentVolumeClaim, SecretReference
from csi_provisioner.planning.leftover import KEPT, Leftover


class OrphanCount(Protocol):
    def suspected_orphan(self) -> None: ...


class Orphans:
    """The list of suspects, newest last; `keep` notes them for longer than this process lives."""

    def __init__(
        self,
        driver: str,
        count: OrphanCount,
        keep: Callable[[Leftover], None] = lambda _suspect: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._driver = driver
        self._count = count
        self._keep = keep
        self._now = now
        self.suspects: deque[Leftover] = deque(maxlen=KEPT)

    def suspect(
        self,
        *,
        volume_id: str,
        name: str,
        claim: PersistentVolumeClaim | ObjectReference,
        reason: str,
        secret: SecretReference | None = None,
    ) -> None:
        """Say it once, as a warning that names everything an administrator needs to look the volume up. `volume_id` is
        empty where the driver never told it, `secret` what deletes it."""
        # Said with its id, it is not said again without: a stop tells what an undo has told.
        if any(known.name == name and volume_id in ("", known.volume_id) for known in self.suspects):
            return
        meta = claim.metadata if isinstance(claim, PersistentVolumeClaim) else claim
        suspect = Leftover(
            kind="suspect",
            driver=self._driver,
            name=name,
            when=int(self._now()),
            volume_id=volume_id,
            claim=f"{meta.namespace}/{meta.name}",
            reason=reason,
            secret=secret,
        )
        self.suspects.append(suspect)
        self._count.suspected_orphan()
        self._keep(suspect)
        log.warning(
            "A volume may be left over in the storage backend: delete it there by hand if no PersistentVolume names it",
            driver=self._driver,
            volumeID=volume_id or "unknown",
            volume=name,
            claim=claim,
            reason=reason,
        )

    def has_owner(self, name: str) -> None:
        """A later try has made a PersistentVolume of it after all."""
        if self.suspects:
            left = [suspect for suspect in self.suspects if suspect.name != name]
            self.suspects.clear()
            self.suspects.extend(left)
