"""What the API server adds to objects and refuses in them, kind by kind, as far as volumes are concerned.

Decided here: defaults, quantities in canonical form, the data source of claims said twice, required and immutable
fields. Not here: metadata rules (`metadata`), versions and finalizers (`objects`), schemas (unknown fields are kept).
"""

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

from sandbox.api.errors import ApiError, Cause, Object, bad_request
from sandbox.api.quantities import MILLI, QuantityError, canonical, parse

PVC_PROTECTION = "kubernetes.io/pvc-protection"
PV_PROTECTION = "kubernetes.io/pv-protection"
_ACCESS_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_TIMES: dict[str, dict[tuple[str, ...], re.Pattern[str]]] = {
    "Lease": {("spec", "acquireTime"): _MICRO_TIME, ("spec", "renewTime"): _MICRO_TIME},
    "Event": {("firstTimestamp",): _TIME, ("lastTimestamp",): _TIME, ("eventTime",): _MICRO_TIME},
}
_EMPTY_EVENT = {
    "source": None,
    "firstTimestamp": None,
    "lastTimestamp": None,
    "eventTime": None,
    "reportingComponent": "",
    "reportingInstance": "",
}

# where each kind keeps maps of quantities, or (last step in brackets) single ones
_QUANTITIES: dict[str, tuple[tuple[str, ...], ...]] = {
    "PersistentVolume": (("spec", "capacity", "*"),),
    "PersistentVolumeClaim": (
        ("spec", "resources", "requests", "*"),
        ("spec", "resources", "limits", "*"),
        ("status", "capacity", "*"),
        ("status", "allocatedResources", "*"),
    ),
    "CSIStorageCapacity": (("capacity",), ("maximumVolumeSize",)),
    "Node": (("status", "capacity", "*"), ("status", "allocatable", "*")),
}


def canonicalize(kind: str, obj: Object) -> None:
    """Rewrite every quantity of `obj` in the server's own form; maps of them know nothing finer than a thousandth."""
    for path in _QUANTITIES.get(kind, ()):
        container: Any = obj
        for step in path[:-1]:
            container = container.get(step) if isinstance(container, dict) else None
        if not isinstance(container, dict):
            continue
        for name in list(container) if path[-1] == "*" else [path[-1]]:
            if container.get(name) is None:
                continue
            try:
                container[name] = canonical(container[name], MILLI) if path[-1] == "*" else canonical(container[name])
            except QuantityError as problem:
                raise undecodable(kind, str(problem)) from None


def undecodable(kind: str, why: str) -> ApiError:
    """A body that does not fit the kind's types is refused before anything is looked at."""
    return bad_request(f'{kind} in version "v1" cannot be handled as a {kind}: {why}')


def decode(kind: str, obj: Object) -> None:
    """What decoding into the kind's own types does to any body: times are read, and a few empty fields written out."""
    for path, form in _TIMES.get(kind, {}).items():
        at: Any = obj
        for step in path:
            at = at.get(step) if isinstance(at, dict) else None
        # Micro times of leases need six digits: client-go's writers send them, and others are refused.
        if at is not None and not (isinstance(at, str) and form.fullmatch(at)):
            raise undecodable(kind, f'parsing time "{at}" as "{form.pattern}": cannot parse')
    canonicalize(kind, obj)
    if kind == "Event":
        for name, empty in _EMPTY_EVENT.items():
            obj.setdefault(name, {} if name == "source" else empty)
    if kind == "PersistentVolumeClaim":
        for name in ("dataSource", "dataSourceRef"):
            if obj.get("spec", {}).get(name):
                # Go writes this field out even if it is empty, so clients see null.
                obj["spec"][name].setdefault("apiGroup", None)


def default(kind: str, obj: Object) -> None:
    """What a new object gets from the server."""
    rule = _DEFAULTS.get(kind)
    if rule is not None:
        rule(obj)


def problems(kind: str, new: Object, old: Object | None) -> Iterator[Cause]:
    """Everything wrong with the contents of `new`, and with its differences from `old`."""
    rule = _RULES.get(kind)
    if rule is not None:
        yield from rule(new, old)


def _finalize(obj: Object, finalizer: str) -> None:
    finalizers = obj["metadata"].setdefault("finalizers", [])
    if finalizer not in finalizers:
        finalizers.append(finalizer)


def _default_claim(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    obj["status"] = {"phase": "Pending"}
    _finalize(obj, PVC_PROTECTION)
    mirror_data_sources(spec)


def mirror_data_sources(spec: Object) -> None:
    """A source in the claim's own namespace is said in both fields, whichever one was given."""
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source and not reference:
        # The old field knows two kinds only; anything else is dropped without a word, as there.
        if not _is_classic_source(source):
            del spec["dataSource"]
        else:
            spec["dataSourceRef"] = dict(source)
    elif reference and not source and not reference.get("namespace"):
        spec["dataSource"] = {name: value for name, value in reference.items() if name != "namespace"}


def _is_classic_source(source: Object) -> bool:
    which = source.get("apiGroup") or "", source.get("kind")
    return which in (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot"))


def _default_volume(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    obj["status"] = {"phase": "Pending"}
    _finalize(obj, PV_PROTECTION)


def _default_class(obj: Object) -> None:
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def _default_namespace(obj: Object) -> None:
    obj["spec"] = {"finalizers": ["kubernetes"]}
    obj["status"] = {"phase": "Active"}
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]


def _default_secret(obj: Object) -> None:
    obj.setdefault("type", "Opaque")
    # Write-only: what is read back is `data`.
    for name, value in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[name] = base64.b64encode(value.encode()).decode()


def _default_pod(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("restartPolicy", "Always")
    obj["status"] = {"phase": "Pending"}


def _default_definition(obj: Object) -> None:
    names = obj.setdefault("spec", {}).setdefault("names", {})
    names.setdefault("singular", str(names.get("kind", "")).lower())
    names.setdefault("listKind", f"{names.get('kind')}List")
    accepted = {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found"}
    established = {"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "accepted"}
    stored = [version["name"] for version in obj["spec"].get("versions") or () if version.get("storage")]
    obj["status"] = {"conditions": [accepted, established], "acceptedNames": names, "storedVersions": stored}


_DEFAULTS: dict[str, Callable[[Object], None]] = {
    "PersistentVolumeClaim": _default_claim,
    "PersistentVolume": _default_volume,
    "StorageClass": _default_class,
    "Namespace": _default_namespace,
    "Secret": _default_secret,
    "Pod": _default_pod,
    "CustomResourceDefinition": _default_definition,
}


def _required(obj: Object, *paths: str) -> Iterator[Cause]:
    for path in paths:
        at: Any = obj
        for step in path.split("."):
            at = at.get(step) if isinstance(at, dict) else None
        if at in (None, "", [], {}):
            yield Cause(path, "Required value", "FieldValueRequired")


def _immutable(new: Object, old: Object | None, *names: str, path: str = "") -> Iterator[Cause]:
    if old is None:
        return
    for name in names:
        if new.get(name) != old.get(name):
            yield Cause(path + name, f"Invalid value: {new.get(name)!r}: field is immutable")


def _access_modes(spec: Object) -> Iterator[Cause]:
    modes = spec.get("accessModes") or []
    if not modes:
        yield Cause("spec.accessModes", "Required value: at least 1 access mode is required", "FieldValueRequired")
    for mode in modes:
        yield from _one_of("spec.accessModes", mode, *_ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        yield Cause("spec.accessModes", "Forbidden: may not use ReadWriteOncePod with other access modes",
                    "FieldValueForbidden")  # fmt: skip


def _one_of(field: str, value: Any, *known: str) -> Iterator[Cause]:
    if value not in known:
        listed = ", ".join(f'"{name}"' for name in sorted(known))
        yield Cause(field, f'Unsupported value: "{value}": supported values: {listed}', "FieldValueNotSupported")


def _size(field: str, amounts: Object) -> Iterator[Cause]:
    if "storage" not in amounts:
        yield Cause(f"{field}[storage]", "Required value", "FieldValueRequired")
    elif parse(amounts["storage"])[0] <= 0:
        yield Cause(f"{field}[storage]", f'Invalid value: "{amounts["storage"]}": must be greater than zero')


def _claim(new: Object, old: Object | None) -> Iterator[Cause]:
    spec = new["spec"]
    yield from _access_modes(spec)
    yield from _size("spec.resources", (spec.get("resources") or {}).get("requests") or {})
    yield from _one_of("spec.volumeMode", spec.get("volumeMode"), "Filesystem", "Block")
    if old is not None and _frozen_claim(spec, old["spec"]) != _frozen_claim(old["spec"], old["spec"]):
        yield Cause("spec", "Forbidden: spec is immutable after creation except resources.requests and"
                    " volumeAttributesClassName for bound claims", "FieldValueForbidden")  # fmt: skip


def _frozen_claim(spec: Object, old: Object) -> Object:
    """The part of a claim's spec that may not change: a name, once given, stays; requests may grow when bound."""
    free = {"volumeAttributesClassName"}
    # These two may be given later, by the binder or a default, and then no more.
    free |= {name for name in ("volumeName", "storageClassName") if not old.get(name)}
    if old.get("volumeName"):
        free.add("resources")
    return {name: value for name, value in spec.items() if name not in free}


_VOLUME_SOURCES = {
    *("csi", "hostPath", "nfs", "local", "iscsi", "fc", "rbd", "cephfs", "glusterfs", "flexVolume", "flocker"),
    *("quobyte", "scaleIO", "storageos", "photonPersistentDisk", "awsElasticBlockStore", "gcePersistentDisk"),
    *("azureDisk", "azureFile", "cinder", "vsphereVolume", "portworxVolume"),
}


def _volume(new: Object, old: Object | None) -> Iterator[Cause]:
    spec = new["spec"]
    yield from _access_modes(spec)
    if spec.get("capacity"):
        yield from _size("spec.capacity", spec["capacity"])
    yield from _required(new, "spec.capacity")
    sources = {name: spec[name] for name in sorted(_VOLUME_SOURCES & spec.keys())}
    if not sources:
        yield Cause("spec", "Required value: must specify a volume type", "FieldValueRequired")
    elif len(sources) > 1:
        # Which field the message names depends on the order of the server's own checks.
        surplus = "csi" if "csi" in sources else list(sources)[-1]
        message = "Forbidden: may not specify more than 1 volume type"
        yield Cause(f"spec.{surplus}", message, "FieldValueForbidden")
    if "csi" in sources:
        yield from _required(new, "spec.csi.driver", "spec.csi.volumeHandle")
    yield from _volume_affinity(spec)
    if old is None:
        return
    before = {name: old["spec"][name] for name in sorted(_VOLUME_SOURCES & old["spec"].keys())}
    if sources != before:
        yield Cause("spec.persistentvolumesource", "Forbidden: spec.persistentvolumesource is immutable after creation",
                    "FieldValueForbidden")  # fmt: skip
    yield from _immutable(spec, old["spec"], "volumeMode", path="spec.")
    # An affinity may be added later, but not changed once it is there.
    if old["spec"].get("nodeAffinity"):
        yield from _immutable(spec, old["spec"], "nodeAffinity", path="spec.")


def _volume_affinity(spec: Object) -> Iterator[Cause]:
    affinity = spec.get("nodeAffinity")
    if affinity is None:
        return
    field = "spec.nodeAffinity.required"
    required = affinity.get("required")
    if not required:
        yield Cause(field, "Required value: must specify required node constraints", "FieldValueRequired")
    elif not required.get("nodeSelectorTerms"):
        yield Cause(f"{field}.nodeSelectorTerms", "Required value: must have at least one node selector term",
                    "FieldValueRequired")  # fmt: skip


def _class(new: Object, old: Object | None) -> Iterator[Cause]:
    yield from _required(new, "provisioner")
    yield from _one_of("reclaimPolicy", new.get("reclaimPolicy"), "Delete", "Retain", "Recycle")
    yield from _one_of("volumeBindingMode", new.get("volumeBindingMode"), "Immediate", "WaitForFirstConsumer")
    if old is not None:
        # Absent and empty are the same to the server.
        if (new.get("parameters") or {}) != (old.get("parameters") or {}):
            yield Cause("parameters", "Forbidden: updates to parameters are forbidden.", "FieldValueForbidden")
        if new.get("provisioner") != old.get("provisioner"):
            yield Cause("provisioner", "Forbidden: updates to provisioner are forbidden.", "FieldValueForbidden")
        if new.get("reclaimPolicy") != old.get("reclaimPolicy"):
            yield Cause("reclaimPolicy", "Forbidden: updates to reclaimPolicy are forbidden.", "FieldValueForbidden")
        yield from _immutable(new, old, "volumeBindingMode")


def _capacity(new: Object, old: Object | None) -> Iterator[Cause]:
    yield from _required(new, "storageClassName")
    yield from _immutable(new, old, "nodeTopology", "storageClassName")


def _attributes_class(new: Object, old: Object | None) -> Iterator[Cause]:
    yield from _required(new, "driverName", "parameters")
    yield from _immutable(new, old, "driverName", "parameters")


def _attachment(new: Object, old: Object | None) -> Iterator[Cause]:
    yield from _required(new, "spec.attacher", "spec.nodeName", "spec.source")
    if old is not None and new["spec"] != old["spec"]:
        yield Cause("spec", "Invalid value: field is immutable")


def _event(new: Object, old: Object | None) -> Iterator[Cause]:
    # Events about cluster-wide objects stand in `default`.
    about = (new.get("involvedObject") or {}).get("namespace") or "default"
    if about != new["metadata"].get("namespace"):
        yield Cause("involvedObject.namespace", f'Invalid value: "{about}": does not match event.namespace')


def _node_drivers(new: Object, old: Object | None) -> Iterator[Cause]:
    for index, driver in enumerate((new.get("spec") or {}).get("drivers") or ()):
        for name in ("name", "nodeID"):
            if not driver.get(name):
                yield Cause(f"spec.drivers[{index}].{name}", "Required value", "FieldValueRequired")


def _secret(new: Object, old: Object | None) -> Iterator[Cause]:
    yield from _immutable(new, old, "type")


def _definition(new: Object, old: Object | None) -> Iterator[Cause]:
    yield from _required(new, "spec.group", "spec.names.kind", "spec.names.plural", "spec.versions", "spec.scope")
    spec = new["spec"]
    name = f"{spec['names'].get('plural')}.{spec.get('group')}"
    if new["metadata"]["name"] != name:
        yield Cause(
            "metadata.name", f'Invalid value: "{new["metadata"]["name"]}": must be spec.names.plural+"."+spec.group'
        )


_RULES: dict[str, Callable[[Object, Object | None], Iterator[Cause]]] = {
    "PersistentVolumeClaim": _claim,
    "PersistentVolume": _volume,
    "StorageClass": _class,
    "CSIStorageCapacity": _capacity,
    "VolumeAttributesClass": _attributes_class,
    "VolumeAttachment": _attachment,
    "Event": _event,
    "CSINode": _node_drivers,
    "Secret": _secret,
    "CustomResourceDefinition": _definition,
}
