"""Portworx (provision.md 14.2 and 14.3, delete.md 11). Its one token secret serves every call of the driver."""

from csi_provisioner.migration.plugin import Plugin
from csi_provisioner.model.in_tree import PortworxVolume
from csi_provisioner.model.kubernetes import CSIVolumeSource, PersistentVolume, SecretReference, StorageClass

DRIVER = "pxd.portworx.com"
SECRET_NAME = "openstorage.io/auth-secret-name"
SECRET_NAMESPACE = "openstorage.io/auth-secret-namespace"

# All but controller-modify, as in the reference.
_ROLES = ("provisioner", "controller-publish", "node-publish", "node-stage", "controller-expand", "node-expand")


def storage_class(sc: StorageClass) -> None:
    translated: dict[str, str] = {}
    for key, value in (sc.parameters or {}).items():
        if key.lower() == SECRET_NAME:
            translated |= {f"csi.storage.k8s.io/{role}-secret-name": value for role in _ROLES}
        elif key.lower() == SECRET_NAMESPACE:
            translated |= {f"csi.storage.k8s.io/{role}-secret-namespace": value for role in _ROLES}
        else:
            translated[key] = value
    sc.parameters = translated
    # The only plugin for which the translated class has the name of the driver.
    sc.provisioner = DRIVER


def to_in_tree(pv: PersistentVolume, csi: CSIVolumeSource) -> None:
    pv.spec.portworxVolume = PortworxVolume(volumeID=csi.volumeHandle, fsType=csi.fsType, readOnly=csi.readOnly)


def to_csi(pv: PersistentVolume) -> CSIVolumeSource:
    source = pv.spec.portworxVolume or PortworxVolume()
    csi = CSIVolumeSource(driver=DRIVER, volumeHandle=source.volumeID, fsType=source.fsType)
    annotations = pv.metadata.annotations or {}
    if SECRET_NAME in annotations and SECRET_NAMESPACE in annotations:
        token = SecretReference(name=annotations[SECRET_NAME], namespace=annotations[SECRET_NAMESPACE])
        csi.controllerPublishSecretRef = csi.nodeStageSecretRef = csi.nodePublishSecretRef = token
        csi.controllerExpandSecretRef = csi.nodeExpandSecretRef = token
    return csi


PLUGIN = Plugin(storage_class, to_in_tree, to_csi)
