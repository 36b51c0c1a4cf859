"""Azure Disk (provision.md 14.2 and 14.3, delete.md 11). Its volumes never carried topology; only its classes do."""

import re

from csi_provisioner.migration import zones
from csi_provisioner.migration.plugin import Plugin, TranslationError, ignoring_case
from csi_provisioner.model.in_tree import AzureDisk
from csi_provisioner.model.kubernetes import CSIVolumeSource, PersistentVolume, StorageClass

DRIVER = "disk.csi.azure.com"
ZONE = "topology.disk.csi.azure.com/zone"

_MANAGED = "Managed"
_MANAGED_URI = re.compile(r".*/subscriptions/.*/resourceGroups/.*/providers/Microsoft\.Compute/disks/(.+)", re.DOTALL)
_BLOB_URI = re.compile(r"http.*/vhds/(.+)", re.DOTALL | re.IGNORECASE)
_FAULT_DOMAIN = re.compile(r"[0-9]+")


def storage_class(sc: StorageClass) -> None:
    zones.class_topology(sc, ZONE)
    for term in sc.allowedTopologies or []:
        for expression in term.matchLabelExpressions or []:
            if expression.key == ZONE:
                # a bare number is a fault domain of a region without zones: the driver calls that the empty zone
                expression.values = ["" if _FAULT_DOMAIN.fullmatch(value) else value for value in expression.values]


def to_in_tree(pv: PersistentVolume, csi: CSIVolumeSource) -> None:
    pv.spec.azureDisk = AzureDisk(
        diskName=_disk_name(csi.volumeHandle),
        diskURI=csi.volumeHandle,
        cachingMode=ignoring_case(csi.volumeAttributes, "cachingmode") or None,
        fsType=ignoring_case(csi.volumeAttributes, "fstype") or csi.fsType,
        readOnly=csi.readOnly,
        kind=_MANAGED,
    )


def to_csi(pv: PersistentVolume) -> CSIVolumeSource:
    source = pv.spec.azureDisk or AzureDisk()
    # None is taken for managed, as in the reference.
    if source.kind is not None and source.kind.lower() != _MANAGED.lower():
        raise TranslationError(
            f"PersistentVolume {pv.metadata.name} is an Azure disk of kind {source.kind!r}; "
            f"{DRIVER} serves only the kind {_MANAGED}"
        )
    attributes = {"kind": _MANAGED}
    if source.cachingMode is not None:
        attributes["cachingmode"] = source.cachingMode
    if source.fsType is not None:
        attributes["fstype"] = source.fsType
    return CSIVolumeSource(
        driver=DRIVER,
        volumeHandle=source.diskURI,
        fsType=source.fsType or "",
        readOnly=bool(source.readOnly),
        volumeAttributes=attributes,
    )


def _disk_name(uri: str) -> str:
    # Disks that Azure does not manage are blobs of a storage account, with a URL.
    pattern = _BLOB_URI if uri.lower().startswith("http") else _MANAGED_URI
    match = pattern.fullmatch(uri)
    if not match:
        raise TranslationError(f"no disk name can be read from the volume handle {uri!r}")
    return match[1]


PLUGIN = Plugin(storage_class, to_in_tree, to_csi)
