"""For which claims and volumes nothing is to be done, and what a store keeps of such a one (`kube/cold`).

Every event decides anew, so a record need not say why. Of a volume it has what its going takes to be told from a list
alone: whether people are told then (design.md 6), its class, and its id, which another volume may share.
"""

from csi_provisioner.model.kubernetes import (
    ClaimSpec,
    CSIVolumeSource,
    ObjectMeta,
    PersistentVolume,
    PersistentVolumeClaim,
    Phase,
    VolumeSpec,
)
from csi_provisioner.planning import deletion, finalizers, leftover
from csi_provisioner.planning.wellknown import CLONE_FINALIZER, PROVISIONED_BY

OURS, RETAINED = 1, 2


def claim_note(claim: PersistentVolumeClaim) -> bytes | None:
    """It is bound, and nobody waits for us to let it go."""
    # Without a phase it is as new as one that is Pending: it may have a source that has to stay.
    waits = not claim.spec.volumeName or claim.status.phase in (None, "", "Pending")
    leaves = claim.metadata.deletionTimestamp and finalizers.present(claim, CLONE_FINALIZER)
    return None if waits or leaves else b""


def claim(meta: ObjectMeta, _note: bytes) -> PersistentVolumeClaim:
    """Bound to some volume: a record does not say to which."""
    return PersistentVolumeClaim(metadata=meta, spec=ClaimSpec(), status=Phase("Bound"))


def volume_note(volume: PersistentVolume, *, ours: bool) -> bytes | None:
    """Neither its finalizer nor its deletion is for us. `ours`: its going without us is told of."""
    if deletion.finalizer_change(volume) is not None or deletion.should_delete(volume):
        return None
    handle = deletion.handle(volume)
    # One that a provisioner before us was deleting is known for that when it is first seen, also in a list.
    if handle is None or leftover.was_being_deleted(volume):
        return None
    flags = OURS * ours | RETAINED * (volume.spec.persistentVolumeReclaimPolicy == "Retain")
    return b"%c%b\0%b" % (flags, (volume.spec.storageClassName or "").encode(), handle.encode())


def class_of(note: bytes) -> str:
    return note[1:].partition(b"\0")[0].decode()


def volume(meta: ObjectMeta, note: bytes, driver: str) -> PersistentVolume:
    """In CSI form, whatever the cluster has; without capacity, which no volume is."""
    handle = note[1:].partition(b"\0")[2].decode()
    if note[0] & OURS:
        meta.annotations = {PROVISIONED_BY: driver}
    spec = VolumeSpec(
        persistentVolumeReclaimPolicy="Retain" if note[0] & RETAINED else None,
        storageClassName=class_of(note),
        csi=CSIVolumeSource(driver, handle) if handle else None,
    )
    return PersistentVolume(metadata=meta, spec=spec)
