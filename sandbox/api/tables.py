"""Lists as kubectl wants to print them: the columns of the kinds one looks at in the sandbox.

A real API server renders tables for every kind; here the storage kinds have their usual columns and all others name
and age.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from sandbox.api.errors import Object
from sandbox.api.kinds import Kind

_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def wanted(accept: str) -> bool:
    """Whether the client prefers a table. Watches are never tables here: kubectl prints their plain objects as well."""
    # Only the first type that is offered: kubectl names plain JSON as its second choice.
    return "as=Table" in accept.partition(",")[0]


def table(kind: Kind, objects: Sequence[Object], metadata: Object, now: str) -> bytes:
    columns = _COLUMNS.get(kind.name, {})
    names = ["Name", *columns, "Age"]
    rows = []
    for obj in objects:
        cells = [obj["metadata"]["name"], *(str(read(obj) or "") for read in columns.values())]
        age = _age(obj["metadata"]["creationTimestamp"], now)
        # kubectl needs the metadata of a row for `-o name` and for labels as columns.
        partial: Object = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
        rows.append({"cells": [*cells, age], "object": partial})
    definitions = [
        {"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": "", "priority": 0}
        for name in names
    ]
    body = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    return msgspec.json.encode({**body, "columnDefinitions": definitions, "rows": rows})


def _age(created: str, now: str) -> str:
    seconds = int((_time(now) - _time(created)).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        # As kubectl shows ages: 90 seconds are `90s`, from two minutes on it is minutes.
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _at(path: str) -> Callable[[Object], Any]:
    steps = path.split(".")

    def read(obj: Object) -> Any:
        at: Any = obj
        for step in steps:
            at = at.get(step) if isinstance(at, dict) else None
        return at

    return read


def _modes(obj: Object) -> str:
    return ",".join(_MODES.get(mode, mode) for mode in obj["spec"].get("accessModes") or ())


def _claim(obj: Object) -> str:
    reference = obj["spec"].get("claimRef")
    return f"{reference.get('namespace')}/{reference.get('name')}" if reference else ""


def _about(obj: Object) -> str:
    about = obj.get("involvedObject") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _status(obj: Object) -> Any:
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else (obj.get("status") or {}).get("phase")


_COLUMNS: dict[str, dict[str, Callable[[Object], Any]]] = {
    "PersistentVolumeClaim": {
        "Status": _status,
        "Volume": _at("spec.volumeName"),
        "Capacity": _at("status.capacity.storage"),
        "Access Modes": _modes,
        "StorageClass": _at("spec.storageClassName"),
    },
    "PersistentVolume": {
        "Capacity": _at("spec.capacity.storage"),
        "Access Modes": _modes,
        "Reclaim Policy": _at("spec.persistentVolumeReclaimPolicy"),
        "Status": _status,
        "Claim": _claim,
        "StorageClass": _at("spec.storageClassName"),
    },
    "StorageClass": {
        "Provisioner": _at("provisioner"),
        "ReclaimPolicy": _at("reclaimPolicy"),
        "VolumeBindingMode": _at("volumeBindingMode"),
    },
    "Event": {"Type": _at("type"), "Reason": _at("reason"), "Object": _about, "Message": _at("message")},
    "Pod": {"Status": _status, "Node": _at("spec.nodeName")},
    "Namespace": {"Status": _status},
}
