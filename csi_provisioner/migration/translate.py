"""Migrated objects in the other language: a class for CreateVolume, the volume it made, a volume to be deleted.

What is given stays untouched; whether something is to be translated is the caller's decision (provision.md 8 row 3,
9.3; delete.md 7 row 2). What one plugin does is in its own module. `driver` is always one of the registry.
"""

import copy

from csi_provisioner.migration.registry import SOURCES, known
from csi_provisioner.model.kubernetes import PersistentVolume, StorageClass


def storage_class(sc: StorageClass, driver: str) -> StorageClass:
    """The class as the CSI driver understands it; `provisioner` keeps the in-tree name, but for Portworx (14.2)."""
    translated = copy.deepcopy(sc)
    known()[driver].storage_class(translated)
    return translated


def dropped_parameters(sc: StorageClass, driver: str) -> list[str]:
    """Those of the class that the driver does not get in any form."""
    kept = known()[driver].parameters
    return [] if kept is None else [key for key in sc.parameters or {} if key.lower() not in kept]


def volume_to_in_tree(pv: PersistentVolume, driver: str) -> PersistentVolume:
    """The volume with an in-tree source, in-tree topology and zone labels; everything else as it was (14.3)."""
    translated = copy.deepcopy(pv)
    source, translated.spec.csi = translated.spec.csi, None
    assert source is not None
    known()[driver].to_in_tree(translated, source)
    return translated


def volume_to_csi(pv: PersistentVolume) -> PersistentVolume | None:
    """The volume with the CSI source of whichever known plugin made it (delete.md 11); None if none of them did."""
    # The source decides, not an annotation: a volume that people wrote has none.
    field = None if pv.spec.csi else next((field for field in SOURCES if getattr(pv.spec, field) is not None), None)
    if field is None:
        return None
    translated = copy.deepcopy(pv)
    source = known()[SOURCES[field]].to_csi(translated)
    setattr(translated.spec, field, None)
    translated.spec.csi = source
    return translated
