"""Migrated objects in the other language: a class for CreateVolume, the volume it made, a volume to be deleted.

What is given stays untouched; whether something is to be translated is the caller's decision (provision.md 8 row 3,
9.3; delete.md 7 row 2). What one plugin does is in its own module.
"""

import copy

from csi_provisioner.migration.plugin import Plugin, TranslationError
from csi_provisioner.migration.registry import KNOWN
from csi_provisioner.model.kubernetes import PersistentVolume, StorageClass

__all__ = [
    "TranslationError",
    "dropped_parameters",
    "has_in_tree_source",
    "storage_class",
    "volume_to_csi",
    "volume_to_in_tree",
]


def storage_class(sc: StorageClass, driver: str) -> StorageClass:
    """The class as the CSI driver understands it; `provisioner` keeps the in-tree name, but for Portworx (14.2)."""
    translated = copy.deepcopy(sc)
    _plugin(driver).storage_class(translated)
    return translated


def dropped_parameters(sc: StorageClass, driver: str) -> list[str]:
    """Those of the class that the driver does not get in any form."""
    known = _plugin(driver).parameters
    return [] if known is None else [key for key in sc.parameters or {} if key.lower() not in known]


def volume_to_in_tree(pv: PersistentVolume, driver: str) -> PersistentVolume:
    """The volume with an in-tree source, in-tree topology and zone labels; everything else as it was (14.3)."""
    plugin = _plugin(driver)
    translated = copy.deepcopy(pv)
    source = translated.spec.csi
    if source is None:
        raise TranslationError(f"PersistentVolume {pv.metadata.name} has no CSI source to translate")
    translated.spec.csi = None
    plugin.to_in_tree(translated, source)
    return translated


def volume_to_csi(pv: PersistentVolume) -> PersistentVolume:
    """The volume with the CSI source of whichever known plugin made it (delete.md 11)."""
    plugin = _source_plugin(pv)
    if plugin is None:
        raise TranslationError(f"PersistentVolume {pv.metadata.name} has no source of a known in-tree plugin")
    translated = copy.deepcopy(pv)
    source = plugin.to_csi(translated)
    setattr(translated.spec, plugin.source, None)
    translated.spec.csi = source
    return translated


def has_in_tree_source(pv: PersistentVolume) -> bool:
    return _source_plugin(pv) is not None


def _source_plugin(pv: PersistentVolume) -> Plugin | None:
    return next((plugin for plugin in KNOWN if getattr(pv.spec, plugin.source) is not None), None)


def _plugin(driver: str) -> Plugin:
    for plugin in KNOWN:
        if plugin.driver == driver:
            return plugin
    raise TranslationError(f"the CSI driver {driver} replaces no in-tree plugin")
