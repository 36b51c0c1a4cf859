"""vSphere (provision.md 14.2 and 14.3, delete.md 11). Zone and region are two keys of the driver here."""

from csi_provisioner.migration import zones
from csi_provisioner.migration.plugin import FSTYPE, Plugin
from csi_provisioner.model.in_tree import VsphereVolume
from csi_provisioner.model.kubernetes import CSIVolumeSource, PersistentVolume, StorageClass

DRIVER = "csi.vsphere.vmware.com"
ZONE = "topology.csi.vmware.com/zone"
REGION = "topology.csi.vmware.com/region"

_POLICY = "storagepolicyname"
# The driver takes these from migrated classes alone, and under a name of its own.
_IN_TREE_ONLY = (
    "datastore",
    "diskformat",
    "hostfailurestotolerate",
    "forceprovisioning",
    "cachereservation",
    "diskstripes",
    "objectspacereservation",
    "iopslimit",
)
_PARAMETERS = {"fstype": FSTYPE, _POLICY: _POLICY} | {name: f"{name}-migrationparam" for name in _IN_TREE_ONLY}


def storage_class(sc: StorageClass) -> None:
    """Only what the driver knows survives: it refuses a class with a parameter it does not expect."""
    given = {key.lower(): value for key, value in (sc.parameters or {}).items()}
    sc.parameters = {_PARAMETERS[key]: value for key, value in given.items() if key in _PARAMETERS}
    # Tells the driver that the parameters are those of an in-tree class.
    sc.parameters["csimigration"] = "true"
    zones.rename_class_keys(sc, ZONE)


def to_in_tree(pv: PersistentVolume, csi: CSIVolumeSource) -> None:
    path = (csi.volumeAttributes or {}).get("initialvolumefilepath", "")
    pv.spec.vsphereVolume = VsphereVolume(volumePath=path, fsType=csi.fsType)
    terms = zones.terms_of(pv)
    for csi_key, label_key in zip((ZONE, REGION), zones.family(pv), strict=True):
        zones.rename(terms, csi_key, label_key)
        if values := zones.values_of(terms, label_key):
            # The first one alone, while other plugins join all of them.
            zones.label_if_absent(pv, label_key, values[0])


def to_csi(pv: PersistentVolume) -> CSIVolumeSource:
    source = pv.spec.vsphereVolume or VsphereVolume()
    labels = pv.metadata.labels or {}
    for csi_key, label_key in zip((ZONE, REGION), zones.family(pv), strict=True):
        if zones.values_of(zones.terms_of(pv), label_key):
            zones.rename(zones.terms_of(pv), label_key, csi_key)
        elif value := labels.get(label_key):
            zones.append_to_all(pv, csi_key, [value])
    return CSIVolumeSource(
        driver=DRIVER,
        volumeHandle=source.volumePath,
        fsType=source.fsType,
        volumeAttributes={_POLICY: source.storagePolicyName} if source.storagePolicyName else {},
    )


PLUGIN = Plugin(storage_class, to_in_tree, to_csi, _PARAMETERS)
