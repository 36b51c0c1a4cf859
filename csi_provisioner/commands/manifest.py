"""The PersistentVolume with which somebody takes a leftover volume back, from all that is known of it (design.md 8)."""

import re
from typing import Any

import msgspec
import yaml

from csi_provisioner.csi import wire
from csi_provisioner.model import csi
from csi_provisioner.model.csi import VolumeCapabilityAccessModeMode as Mode
from csi_provisioner.model.kubernetes import CSIVolumeSource, VolumeSpec
from csi_provisioner.planning import affinity, quantity, wellknown
from csi_provisioner.planning.evidence import Finding

# What is not here is ReadWriteOnce: one node, however many writers.
_MODES = {
    Mode.MULTI_NODE_READER_ONLY: "ReadOnlyMany",
    Mode.MULTI_NODE_MULTI_WRITER: "ReadWriteMany",
    Mode.SINGLE_NODE_SINGLE_WRITER: "ReadWriteOncePod",
}


def manifest(finding: Finding, driver: str) -> tuple[str, list[str]]:
    """YAML, and what in it is only assumed. Its reclaim policy is Retain: who adopts it decides later."""
    assumed: list[str] = []
    spec = finding.leftover.spec if finding.leftover is not None and finding.leftover.spec is not None else None
    spec = spec or _composed(finding, driver, assumed)
    # The caches keep no attributes of a volume that is in use, so only the driver's list may still know them.
    if spec.csi is not None and spec.csi.volumeAttributes is None:
        spec.csi.volumeAttributes = dict(finding.volume.volume_context) if finding.volume is not None else None
        if not spec.csi.volumeAttributes:
            assumed.append("csi.volumeAttributes are not known; some drivers cannot mount the volume without them")
    # Whoever adopts a volume looks at its data first.
    spec.persistentVolumeReclaimPolicy = "Retain"
    secret = finding.secret
    # Ours from now on, so that a later deletion takes the same way as that of any volume.
    annotations = {
        wellknown.PROVISIONED_BY: driver,
        wellknown.DELETION_SECRET_NAME: secret.name if secret else "",
        wellknown.DELETION_SECRET_NAMESPACE: secret.namespace if secret else "",
    }
    name = finding.name or "adopted-" + re.sub("[^a-z0-9]+", "-", finding.volume_id.lower()).strip("-")[-63:].strip("-")
    made: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": annotations},
        "spec": msgspec.to_builtins(spec),
    }
    return yaml.safe_dump(made, sort_keys=False), assumed


def _composed(finding: Finding, driver: str, assumed: list[str]) -> VolumeSpec:
    """From the request with which it was asked for, and from what the driver lists."""
    entry, volume = finding.entry, finding.volume or csi.Volume()
    request = wire.decode(entry.request, csi.CreateVolumeRequest) if entry is not None else csi.CreateVolumeRequest()
    capacity = volume.capacity_bytes or (request.capacity_range.required_bytes if request.capacity_range else 0)
    if not capacity:
        assumed.append("capacity is not known: 1Gi is assumed")
    if not request.volume_capabilities:
        assumed.append("accessModes, volumeMode and csi.fsType are not known: a file system of one node is assumed")
    mounts = [capability.mount for capability in request.volume_capabilities if capability.mount is not None]
    modes = [capability.access_mode.mode for capability in request.volume_capabilities if capability.access_mode]
    return VolumeSpec(
        accessModes=[_MODES.get(mode, "ReadWriteOnce") for mode in modes] or ["ReadWriteOnce"],
        capacity={"storage": quantity.format(capacity or 1 << 30)},
        mountOptions=list(mounts[0].mount_flags) or None if mounts else None,
        storageClassName=entry.storage_class if entry is not None else None,
        volumeMode="Block" if request.volume_capabilities and not mounts else "Filesystem",
        nodeAffinity=affinity.of_answer(volume.accessible_topology),
        csi=CSIVolumeSource(driver=driver, volumeHandle=finding.volume_id, fsType=mounts[0].fs_type if mounts else ""),
    )
