"""Which kinds the API serves: paths, names, scope, and the few traits in which Kubernetes treats kinds differently.

The table holds what a provisioner and its tests touch. The snapshot and gateway kinds stand there as if their
CustomResourceDefinitions had been applied; any other custom resource is added by applying its definition (`custom`).
Rules on contents are in `validation`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sandbox.api.errors import Object

_EVENT_FIELDS = (
    "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion"
    " involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `versions` are all served, the first one is preferred."""

    name: str
    plural: str
    group: str = ""
    versions: tuple[str, ...] = ("v1",)
    namespaced: bool = True
    status: bool = False  # has the status subresource
    short: tuple[str, ...] = ()
    fields: frozenset[str] = frozenset()  # besides metadata.name and metadata.namespace
    custom: bool = False  # served from a CustomResourceDefinition
    generation: bool = False  # counts changes of the spec
    unconditional: bool = True  # PUT without a resourceVersion is accepted
    returns_deleted: bool = False  # DELETE answers with the object rather than a Status
    heads: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for version in self.versions:
            head = f'{{"kind":"{self.name}","apiVersion":"{self.api_version(version)}",'
            self.heads[version] = head.encode()

    def api_version(self, version: str | None = None) -> str:
        version = version or self.versions[0]
        return f"{self.group}/{version}" if self.group else version

    @property
    def selectable(self) -> frozenset[str]:
        return self.fields | ({"metadata.name", "metadata.namespace"} if self.namespaced else {"metadata.name"})


def _core() -> Iterator[Kind]:
    yield Kind("Namespace", "namespaces", namespaced=False, status=True, short=("ns",), fields=_fields("status.phase"))
    yield Kind("Node", "nodes", namespaced=False, status=True, short=("no",), fields=_fields("spec.unschedulable"))
    yield Kind(
        "PersistentVolume", "persistentvolumes", namespaced=False, status=True, short=("pv",), returns_deleted=True
    )
    yield Kind("PersistentVolumeClaim", "persistentvolumeclaims", status=True, short=("pvc",), returns_deleted=True)
    yield Kind(
        "Pod",
        "pods",
        status=True,
        short=("po",),
        fields=_fields("spec.nodeName status.phase spec.restartPolicy spec.schedulerName spec.serviceAccountName"),
        generation=True,
        returns_deleted=True,
    )
    yield Kind("Secret", "secrets", fields=_fields("type"))
    yield Kind("ConfigMap", "configmaps", short=("cm",))
    yield Kind("Event", "events", short=("ev",), fields=_fields(_EVENT_FIELDS))
    yield Kind("ResourceQuota", "resourcequotas", status=True, short=("quota",), returns_deleted=True)
    yield Kind("ServiceAccount", "serviceaccounts", short=("sa",), returns_deleted=True)


def _groups() -> Iterator[Kind]:
    yield Kind("ReplicaSet", "replicasets", "apps", status=True, short=("rs",), generation=True)
    yield Kind("StatefulSet", "statefulsets", "apps", status=True, short=("sts",), generation=True)
    yield Kind("Deployment", "deployments", "apps", status=True, short=("deploy",), generation=True)
    yield Kind("Lease", "leases", "coordination.k8s.io", unconditional=False)
    yield Kind("ClusterRole", "clusterroles", "rbac.authorization.k8s.io", namespaced=False)
    yield Kind("ClusterRoleBinding", "clusterrolebindings", "rbac.authorization.k8s.io", namespaced=False)
    yield Kind("Role", "roles", "rbac.authorization.k8s.io")
    yield Kind("RoleBinding", "rolebindings", "rbac.authorization.k8s.io")
    storage = "storage.k8s.io"
    yield Kind("StorageClass", "storageclasses", storage, namespaced=False, short=("sc",), returns_deleted=True)
    yield Kind("CSIDriver", "csidrivers", storage, namespaced=False, returns_deleted=True)
    yield Kind("CSINode", "csinodes", storage, namespaced=False, unconditional=False, returns_deleted=True)
    yield Kind(
        "VolumeAttachment", "volumeattachments", storage, namespaced=False, status=True, unconditional=False,
        returns_deleted=True,
    )  # fmt: skip
    yield Kind("VolumeAttributesClass", "volumeattributesclasses", storage, namespaced=False, short=("vac",),
               returns_deleted=True)  # fmt: skip
    yield Kind("CSIStorageCapacity", "csistoragecapacities", storage)
    yield Kind(
        "CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io", namespaced=False, status=True,
        short=("crd",), generation=True, unconditional=False,
    )  # fmt: skip


def _custom() -> Iterator[Kind]:
    snapshot, traits = "snapshot.storage.k8s.io", _TRAITS
    yield Kind("VolumeSnapshot", "volumesnapshots", snapshot, status=True, short=("vs",), **traits)
    yield Kind("VolumeSnapshotContent", "volumesnapshotcontents", snapshot, namespaced=False, status=True,
               short=("vsc",), **traits)  # fmt: skip
    yield Kind("VolumeSnapshotClass", "volumesnapshotclasses", snapshot, namespaced=False, **traits)
    gateway = "gateway.networking.k8s.io"
    yield Kind("ReferenceGrant", "referencegrants", gateway, ("v1beta1",), short=("refgrant",), **traits)


_TRAITS: dict[str, Any] = {"custom": True, "generation": True, "unconditional": False}


def _fields(names: str) -> frozenset[str]:
    return frozenset(names.split())


def custom(definition: Object) -> Kind:
    """The kind that a (validated) CustomResourceDefinition stands for."""
    spec, names = definition["spec"], definition["spec"]["names"]
    served = [version for version in spec["versions"] if version.get("served", True)]
    return Kind(
        names["kind"],
        names["plural"],
        spec["group"],
        tuple(version["name"] for version in served),
        namespaced=spec.get("scope") != "Cluster",
        status=any("status" in (version.get("subresources") or {}) for version in served),
        short=tuple(names.get("shortNames") or ()),
        **_TRAITS,
    )


class Registry:
    """The kinds being served, found by name or by path."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._by_path: dict[tuple[str, str], Kind] = {}
        for kind in kinds:
            self.add(kind)

    def add(self, kind: Kind) -> None:
        self._by_path[kind.group, kind.plural] = kind

    def remove(self, kind: Kind) -> None:
        self._by_path.pop((kind.group, kind.plural), None)

    def at(self, group: str, version: str, plural: str) -> Kind | None:
        kind = self._by_path.get((group, plural))
        return kind if kind is not None and version in kind.versions else None

    def named(self, name: str) -> Kind:
        """The kind of that name; KeyError if it is not served."""
        for kind in self._by_path.values():
            if kind.name == name:
                return kind
        raise KeyError(name)

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._by_path.values()))


def registry(*, snapshots: bool = True) -> Registry:
    """All kinds of the table; without `snapshots` those of the custom definitions are left out."""
    return Registry([*_core(), *_groups(), *(_custom() if snapshots else ())])
