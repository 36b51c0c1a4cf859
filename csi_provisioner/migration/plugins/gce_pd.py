"""GCE Persistent Disk (provision.md 14.2 and 14.3, delete.md 11)."""

from csi_provisioner.migration import zones
from csi_provisioner.migration.plugin import FSTYPE, Plugin, TranslationError, partition, renamed
from csi_provisioner.model.in_tree import GCEPersistentDisk
from csi_provisioner.model.kubernetes import CSIVolumeSource, PersistentVolume, StorageClass

DRIVER = "pd.csi.storage.gke.io"
ZONE = "topology.gke.io/zone"


def storage_class(sc: StorageClass) -> None:
    sc.parameters = renamed(sc.parameters, {"fstype": FSTYPE})
    zones.class_topology(sc, ZONE)


def to_in_tree(pv: PersistentVolume, csi: CSIVolumeSource) -> None:
    # projects/<project>/zones/<zone>/disks/<name>
    parts = csi.volumeHandle.split("/")
    if len(parts) < 6:
        raise TranslationError(f"the volume handle {csi.volumeHandle!r} has fewer than six parts, so it names no disk")
    text = (csi.volumeAttributes or {}).get("partition", "")
    pv.spec.gcePersistentDisk = GCEPersistentDisk(
        pdName=parts[5],
        fsType=csi.fsType,
        readOnly=csi.readOnly,
        partition=partition(text) if text else 0,
    )
    zones.to_in_tree(pv, ZONE, zones.gce_region)


def to_csi(pv: PersistentVolume) -> CSIVolumeSource:
    source = pv.spec.gcePersistentDisk or GCEPersistentDisk()
    handle = _handle(pv, source.pdName)
    zones.to_csi(pv, ZONE)
    pv.spec.accessModes = _access_modes(pv.spec.accessModes)
    return CSIVolumeSource(
        driver=DRIVER,
        volumeHandle=handle,
        fsType=source.fsType,
        readOnly=source.readOnly,
        volumeAttributes={"partition": str(source.partition) if source.partition else ""},
    )


def _handle(pv: PersistentVolume, disk: str) -> str:
    """The driver finds project and, where we do not know it, the zone by itself: `UNSPECIFIED` asks it to."""
    labels = pv.metadata.labels or {}
    # The beta label first, other than everywhere else; the reference reads them so.
    in_zones = zones.split(labels.get(zones.BETA_ZONE) or labels.get(zones.GA_ZONE) or "")
    if len(in_zones) > 1:
        return f"projects/UNSPECIFIED/regions/{zones.gce_region(in_zones)}/disks/{disk}"
    return f"projects/UNSPECIFIED/zones/{in_zones[0] if in_zones else 'UNSPECIFIED'}/disks/{disk}"


def _access_modes(modes: list[str] | None) -> list[str] | None:
    """The in-tree plugin let modes through that a disk cannot do; the driver refuses them."""
    if modes is None:
        return None
    if "ReadWriteOnce" in modes or "ReadWriteMany" in modes:
        return ["ReadWriteOnce"]
    return ["ReadOnlyMany"] if "ReadOnlyMany" in modes else ["ReadWriteOnce"]


PLUGIN = Plugin(storage_class, to_in_tree, to_csi)
