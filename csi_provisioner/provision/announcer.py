"""What people are told of a made volume: its PersistentVolume is written, or cannot be (provision.md 13)."""

import msgspec

from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.events import About, EventRecorder
from csi_provisioner.logs import log
from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import PersistentVolume
from csi_provisioner.planning import deletion
from csi_provisioner.planning.facts import DriverFacts

from .memory import ClaimMemory, Unsaved
from .orphans import Orphans
from .right import RULE, RightToSave
from .waiting import Waiting


class Announcer(msgspec.Struct, eq=False, dict=True):
    caches: Caches
    facts: DriverFacts
    kube: KubeClient
    memory: ClaimMemory
    orphans: Orphans
    events: EventRecorder
    waiting: Waiting
    right: RightToSave

    def __post_init__(self) -> None:
        self._secret_of = deletion.secret_of(self.caches.storage_classes.get, self.facts)

    def refused(self, entry: Unsaved, error: KubeError) -> None:
        """The API server will not take the volume, and no further try will change that: a person has to."""
        # Said to people all the same: a driver that gives the same answer each time needs one.
        what = "only another answer of the driver (volume id, context, topology) will do"
        if error.forbidden:
            self.right.doubt()
            what = RULE
        elif "metadata.name:" in error.message:
            what = "choose another --volume-name-prefix"
        self.events.record(
            self._claim(entry.volume) or entry.volume,
            "Warning",
            "ProvisioningFailed",
            f"the driver has made the volume, and its PersistentVolume cannot be written: {error}; {what}",
            failure_class=f"save {error.code}",
        )

    def taken(self, entry: Unsaved, found: str) -> None:
        """There is a PersistentVolume of that name already, with another volume."""
        name, claim = entry.volume.metadata.name, entry.claim
        reason = f"PersistentVolume {name} names volume {found} instead"
        self.orphans.suspect(volume_id=entry.volume_id, name=name, claim=claim, reason=reason)

    async def written(self, pv: PersistentVolume) -> None:
        """The volume is in the API server: said on the claim if it still exists."""
        reference = pv.spec.claimRef
        claim = self.caches.claims.by_uid(reference.uid) if reference is not None else None
        if claim is not None:
            self.waiting.written(claim)
        if reference is not None and (claim is None or claim.spec.volumeName):
            self.memory.forget_written(reference.uid)  # no cache will show it bound, or it has done so
        about = self._claim(pv)
        handle = deletion.handle(pv)
        log.v(2, "PersistentVolume written", PV=pv, PVC=reference, volumeID=handle)
        if about is not None:
            done = f"Successfully provisioned volume {pv.metadata.name}"
            self.events.record(about, "Normal", "ProvisioningSucceeded", done, ends="Provisioning")
        # At the end, because it may have to ask: nothing else is lost with it.
        if (shared := await self.named(handle or "", beside=pv)) is not None:
            log.warning("The driver gave one volume to two claims", PV=pv, PVC=reference, volumeID=handle, other=shared)
            text = f"the driver gave it volume {handle}, which {shared} has already: both have the same data"
            self.events.record(about or pv, "Warning", "VolumeShared", f"{text}; ask the driver's makers")

    def _claim(self, pv: PersistentVolume) -> About | None:
        """The volume's claim, if it is still there; of one that is kept as a record what refers to it."""
        reference, claims = pv.spec.claimRef, self.caches.claims
        if reference is None:
            return None
        there = claims.knows(kubernetes.key(reference), reference.uid)
        return claims.by_uid(reference.uid) or (reference if there else None)

    async def named(self, volume_id: str, beside: PersistentVolume | None = None) -> str | None:
        """The PersistentVolume that names the driver's volume, for people; only one whose volume would go with that of
        `beside`."""
        for other in self.caches.volumes.sharing(volume_id):
            try:
                whole = await self.caches.whole(self.kube, other)
            except KubeError:
                return deletion.described(other)  # it is there, as far as anybody knows
            if whole is None or deletion.handle(whole) != volume_id:
                continue
            if beside is None or deletion.named_besides(beside, (whole,), self._secret_of):
                return deletion.described(whole)
        return None
