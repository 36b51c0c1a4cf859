"""Takes our finalizer off a snapshot once its volume is made (provision.md 9.6).

A failure here only costs time, the sweep catches what is left.
"""

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import PersistentVolumeClaim, VolumeSnapshot
from csi_provisioner.planning import finalizers, sources
from csi_provisioner.planning.sources import Readers
from csi_provisioner.planning.wellknown import SNAPSHOT_FINALIZER


async def snapshot(kube: KubeClient, claim: PersistentVolumeClaim, readers: Readers | None = None) -> bool:
    """Whether it is to be done again, with `readers`, when the volume is written.

    A living snapshot is released at once, whoever reads it beside this claim (quirk Q12, kept). One that is being
    deleted goes with our finalizer: the volume must be known to the cluster by then, and all other copies too.
    """
    name, namespace = sources.snapshot_to_release(claim), claim.metadata.namespace
    if name is None:
        return False
    try:
        found = await kube.get(VolumeSnapshot, name, namespace)
        if found.metadata.deletionTimestamp:
            # Not yet: the snapshot would go at once, and another try for the volume would find no source.
            if readers is None:
                return True
            if not sources.is_orphaned(found, sources.snapshot_users(readers), readers.under_way):
                return False
        if finalizers.present(found, SNAPSHOT_FINALIZER):
            await kube.update(found, lambda raw: finalizers.remove(raw, SNAPSHOT_FINALIZER))
    except KubeError as error:
        if not error.not_found:
            log.v(3, "Left the finalizer on a snapshot to the sweep", snapshot=name, err=error)
    return False
