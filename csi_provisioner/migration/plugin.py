"""What an in-tree plugin must tell to be migrated, and the one error a translation can end in.

A plugin's functions edit the copy they are given and keep the rest of the object; `translate` makes the copies.
Which plugins there are is in `registry`; topology, the part most of them share, is in `zones`.
"""

import re
from collections.abc import Callable, Collection

import msgspec

from csi_provisioner.model.kubernetes import CSIVolumeSource, PersistentVolume, StorageClass

# The drivers never see the in-tree spelling: under this key it is for the provisioner.
FSTYPE = "csi.storage.k8s.io/fstype"

_INTEGER = re.compile(r"[+-]?[0-9]+")
_INT32 = range(-(2**31), 2**31)  # the type of `partition` in the API


class TranslationError(Exception):
    """The object cannot be expressed on the other side; the message is for people and ends in an event."""


class Plugin(msgspec.Struct, frozen=True):
    storage_class: Callable[[StorageClass], None]
    to_in_tree: Callable[[PersistentVolume, CSIVolumeSource], None]
    """Sets the in-tree source from the CSI source, and topology and labels with it."""
    to_csi: Callable[[PersistentVolume], CSIVolumeSource]
    """Gives the CSI source of the in-tree one, and puts topology into the terms of the driver."""
    parameters: Collection[str] | None = None
    """Those of a class that survive its translation (lower case); None: all of them do, in one form or another."""


def renamed(parameters: dict[str, str] | None, names: dict[str, str]) -> dict[str, str]:
    """The parameters with the given names (lower case; matched ignoring case) replaced, the others as they are."""
    # The in-tree plugins did not care about the case of their parameters.
    return {names.get(key.lower(), key): value for key, value in (parameters or {}).items()}


def ignoring_case(attributes: dict[str, str] | None, name: str) -> str:
    """The first value that is not empty under this name (lower case) in any spelling, else the empty string."""
    return next((value for key, value in (attributes or {}).items() if key.lower() == name and value), "")


def partition(text: str) -> int:
    if not _INTEGER.fullmatch(text) or int(text) not in _INT32:
        raise TranslationError(f"the volume attribute partition={text!r} is not a partition number")
    return int(text)
