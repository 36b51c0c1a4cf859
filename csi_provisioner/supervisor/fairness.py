"""Which lane a claim or a volume is in, and the workers of a leader term (design.md 7)."""

from collections.abc import Callable

from csi_provisioner.kube.caches import Caches
from csi_provisioner.model.kubernetes import PersistentVolumeClaim, StorageClass
from csi_provisioner.model.state import Lane
from csi_provisioner.planning import deletion, gate
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.wellknown import CLAIM_KIND, SNAPSHOT_KIND
from csi_provisioner.provision import recovery
from csi_provisioner.settings import RetrySettings
from csi_provisioner.work.runner import Loop
from csi_provisioner.work.workers import Workers

NOWHERE = Lane(), ""


class Fairness:
    """`find` gives the claim of a UID. There are workers of claims, and of what earlier leaders began, and as many of
    volumes; they bound calls."""

    def __init__(
        self,
        settings: RetrySettings,
        facts: DriverFacts,
        caches: Caches,
        find: Callable[[str], PersistentVolumeClaim | None],
    ) -> None:
        self._facts = facts
        self._caches = caches
        self._find = find
        self._classes: set[str] = set()
        self._copies = False  # a claim with a source was seen: its lane is beside that of claims without
        self._deleted_of: set[str] = set()  # classes of the volumes that were deleted, of which two tell enough
        self.creates = Workers(
            settings.workers,
            several=lambda: self._copies or len(self._classes) > 1,
            fixed={recovery.LANE: recovery.WORKERS},
        )
        self.deletes = Workers(
            settings.workers, several=lambda: len(self._classes) > 1 or len(self._deleted_of | self._classes) > 1
        )
        caches.storage_classes.subscribe(self._saw_class)

    def serve(self, workers: Workers, loop: Loop) -> None:
        """The loop's tasks make their calls with these workers."""
        workers.changed = loop.ranked

    def of_claim(self, uid: str) -> tuple[Lane, str]:
        """The claim's lane and namespace."""
        claim = self._find(uid)
        if claim is None:
            return NOWHERE
        name = gate.claim_class(claim)
        source = claim.spec.dataSource or claim.spec.dataSourceRef
        kind = source.kind if source is not None and source.kind in (CLAIM_KIND, SNAPSHOT_KIND) else ""
        self._copies = self._copies or bool(kind)
        return Lane(name if name in self._caches.storage_classes else "", kind), claim.metadata.namespace or ""

    def of_volume(self, name: str) -> tuple[Lane, str]:
        volume = self._caches.volumes.get(name)
        # A change of our finalizer is no call, and must not wait for those of the class.
        if volume is None or not deletion.should_delete(volume):
            return NOWHERE
        class_ = volume.spec.storageClassName or ""
        if len(self._deleted_of) < 2:
            self._deleted_of.add(class_)
        claim = volume.spec.claimRef
        return Lane(class_), (claim.namespace or "") if claim is not None else ""

    def _saw_class(self, name: str, _old: StorageClass | None, new: StorageClass | None) -> None:
        if new is not None and self._facts.answers_to(new.provisioner):
            self._classes.add(name)
        else:
            self._classes.discard(name)
