"""Finalizers of source claims, source snapshots and volumes, one name at a time (provision.md 1.2 and 12).

`add` and `remove` edit an untyped object in place, as it came from the API server, and leave every other entry alone;
they answer whether anything changed.
"""

from typing import Any, Protocol

from csi_provisioner.model.kubernetes import ObjectMeta


class HasMetadata(Protocol):
    metadata: ObjectMeta


def present(obj: HasMetadata, finalizer: str) -> bool:
    return finalizer in (obj.metadata.finalizers or ())


def add(raw: dict[str, Any], finalizer: str) -> bool:
    metadata = raw.setdefault("metadata", {})
    finalizers = metadata.get("finalizers") or []
    if finalizer in finalizers:
        return False
    # A new list: the old one may belong to an object of a cache, which nobody may change.
    metadata["finalizers"] = [*finalizers, finalizer]
    return True


def remove(raw: dict[str, Any], finalizer: str) -> bool:
    metadata = raw.get("metadata") or {}
    finalizers = metadata.get("finalizers") or []
    if finalizer not in finalizers:
        return False
    metadata["finalizers"] = [entry for entry in finalizers if entry != finalizer]
    return True
