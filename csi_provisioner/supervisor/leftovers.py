"""Logs what only the memory of a process knows when it stops leading. No later process can find it out."""

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
    """`claims` is None if it is not known which claims are gone."""
    for entry in memory.all_unsaved():
        volume = entry.volume
        claim = volume.spec.claimRef or ObjectReference()
        source = volume.spec.csi
        with suppress(TranslationError):  # an in-tree id that cannot be translated; the name must do
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
        # Whoever leads next asks the driver again, and the same name gives the same volume.
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
