"""AWS EBS (provision.md 14.2 and 14.3, delete.md 11)."""

import re
from urllib.parse import urlsplit

from csi_provisioner.migration import zones
from csi_provisioner.migration.plugin import FSTYPE, Plugin, TranslationError, partition, renamed
from csi_provisioner.model.in_tree import AWSElasticBlockStore
from csi_provisioner.model.kubernetes import CSIVolumeSource, PersistentVolume, StorageClass

DRIVER = "ebs.csi.aws.com"
ZONE = "topology.ebs.csi.aws.com/zone"

_VOLUME_ID = re.compile(r"vol-[^/]*")


def storage_class(sc: StorageClass) -> None:
    sc.parameters = renamed(sc.parameters, {"fstype": FSTYPE})
    if any(key.lower() == "iopspergb" for key in sc.parameters):
        # the in-tree plugin raised too small a product to the minimum by itself; the driver wants to be told
        sc.parameters["allowautoiopspergbincrease"] = "true"
    zones.class_topology(sc, ZONE)


def to_in_tree(pv: PersistentVolume, csi: CSIVolumeSource) -> None:
    attributes = csi.volumeAttributes or {}
    pv.spec.awsElasticBlockStore = AWSElasticBlockStore(
        volumeID=csi.volumeHandle,
        fsType=csi.fsType,
        readOnly=csi.readOnly,
        partition=partition(attributes["partition"]) if "partition" in attributes else 0,
    )
    zones.to_in_tree(pv, ZONE, zones.aws_region)


def to_csi(pv: PersistentVolume) -> CSIVolumeSource:
    source = pv.spec.awsElasticBlockStore or AWSElasticBlockStore()
    zones.to_csi(pv, ZONE)
    return CSIVolumeSource(
        driver=DRIVER,
        volumeHandle=_handle(source.volumeID),
        fsType=source.fsType,
        readOnly=source.readOnly,
        # The driver is always told: "0" is the whole disk.
        volumeAttributes={"partition": str(source.partition)},
    )


def _handle(volume_id: str) -> str:
    """`aws://<zone>/vol-1` was one way to write `vol-1`."""
    if not volume_id.startswith("aws://"):
        return volume_id
    try:
        handle = urlsplit(volume_id).path.strip("/")
    except ValueError:
        handle = ""
    if not _VOLUME_ID.fullmatch(handle):
        raise TranslationError(f"the AWS volume id {volume_id!r} does not name a volume (aws://<zone>/vol-<id>)")
    return handle


PLUGIN = Plugin(storage_class, to_in_tree, to_csi)
