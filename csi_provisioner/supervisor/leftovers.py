"""What a process that leads no longer has only in its memory: said, since no later one will know of it."""

from contextlib import suppress

from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log
from csi_provisioner.migration.translate import TranslationError, volume_to_csi
from csi_provisioner.model.kubernetes import ObjectReference, PersistentVolumeClaim
from csi_provisioner.provision.claims import ClaimReconciler
from csi_provisioner.provision.memory import ClaimMemory
from csi_provisioner.provision.orphans import Orphans

NEXT = "who works on the claim next is given the same volume, unless the claim is deleted before"


def report(
    memory: ClaimMemory,
    claims: Store[PersistentVolumeClaim] | None,
    orphans: Orphans,
    provisioner: ClaimReconciler,
) -> None:
    """`claims` is None where it is not known which ones are gone."""
    for entry in memory.all_unsaved():
        volume = entry.volume
        claim = volume.spec.claimRef or ObjectReference()
        source = volume.spec.csi
        with suppress(TranslationError):  # a driver's id that cannot be read back; the volume's name is told
            source = source or volume_to_csi(volume).spec.csi
        volume_id = source.volumeHandle if source else ""
        if claims is not None and claims.by_uid(claim.uid) is None:
            orphans.suspect(
                volume_id=volume_id,
                name=volume.metadata.name,
                claim=claim,
                reason="the claim is gone, and the process ends before the PersistentVolume could be saved",
            )
            continue
        log.warning(
            f"A volume is made and its PersistentVolume is not written; {NEXT}",
            volumeID=volume_id or "unknown",
            PV=volume,
            claim=claim,
        )
    for uid, asked in memory.in_progress().items():
        if claims is not None and claims.by_uid(uid) is None:
            provisioner.suspect(asked, "the claim is gone, and the process ends before the driver was certain")
        else:
            log.warning(
                f"The driver may be making a volume; {NEXT}", volume=provisioner.volume_name(asked), claim=asked
            )
