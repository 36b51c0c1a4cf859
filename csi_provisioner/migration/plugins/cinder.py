"""OpenStack Cinder (provision.md 14.2 and 14.3, delete.md 11)."""

from csi_provisioner.migration import zones
from csi_provisioner.migration.plugin import FSTYPE, Plugin, renamed
from csi_provisioner.model.in_tree import Cinder
from csi_provisioner.model.kubernetes import CSIVolumeSource, PersistentVolume, StorageClass

DRIVER = "cinder.csi.openstack.org"
ZONE = "topology.cinder.csi.openstack.org/zone"


def storage_class(sc: StorageClass) -> None:
    sc.parameters = renamed(sc.parameters, {"fstype": FSTYPE})
    # `availability` stays a parameter, unlike the zones of other plugins: the driver reads it itself.
    zones.rename_class_keys(sc, ZONE)


def to_in_tree(pv: PersistentVolume, csi: CSIVolumeSource) -> None:
    pv.spec.cinder = Cinder(volumeID=csi.volumeHandle, fsType=csi.fsType, readOnly=csi.readOnly)
    zones.to_in_tree(pv, ZONE)


def to_csi(pv: PersistentVolume) -> CSIVolumeSource:
    source = pv.spec.cinder or Cinder()
    zones.to_csi(pv, ZONE)
    return CSIVolumeSource(
        driver=DRIVER,
        volumeHandle=source.volumeID,
        fsType=source.fsType,
        readOnly=source.readOnly,
        volumeAttributes={},
    )


PLUGIN = Plugin(storage_class, to_in_tree, to_csi)
