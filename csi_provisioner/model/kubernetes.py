"""Slim Structs of the Kubernetes objects we read and create: only the fields somebody here reads.

Attribute names are the API's own. Inner Structs leave the garbage collector alone (`gc=False`): they are trees. The
outermost cannot, because lightkube wants its plain `Resource` class as a base. None of these may ever be sent back as
an update of an object (fields we do not model would be lost); new objects are made from them.
"""

from collections.abc import Callable
from typing import Any, NewType, TypeVar

import msgspec
from lightkube.core.resource import ApiInfo, GlobalResource, NamespacedResourceG, Resource, ResourceDef

from csi_provisioner.model.in_tree import (
    AWSElasticBlockStore,
    AzureDisk,
    AzureFile,
    Cinder,
    GCEPersistentDisk,
    PortworxVolume,
    VsphereVolume,
)

R = TypeVar("R", bound=Resource)

Uid = NewType("Uid", str)
NodeName = NewType("NodeName", str)

# What lightkube keeps of a kind: which operations it knows.
_VERBS = ["delete", "deletecollection", "get", "global_list", "global_watch", "list", "patch", "post", "put", "watch"]


def resource(group: str, version: str, kind: str, plural: str) -> Callable[[type[R]], type[R]]:
    """Says in lightkube's words where the API serves this Struct."""

    def register(cls: type[R]) -> type[R]:
        cls._api_info = ApiInfo(resource=ResourceDef(group, version, kind), plural=plural, verbs=_VERBS)
        return cls

    return register


class OwnerReference(msgspec.Struct, gc=False, omit_defaults=True):
    apiVersion: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class ObjectMeta(msgspec.Struct, gc=False, omit_defaults=True):
    name: str = ""
    namespace: str | None = None
    uid: str = ""
    resourceVersion: str = ""
    # The API server makes a name of it, for objects that nobody looks for by their names.
    generateName: str | None = None
    # Times stay text: they are compared with each other, and all of one form.
    creationTimestamp: str | None = None
    deletionTimestamp: str | None = None
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    finalizers: list[str] | None = None
    ownerReferences: list[OwnerReference] | None = None


class TypeMeta(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Both are filled in when an object is sent. The API server leaves them out of a list's items."""

    apiVersion: str | None = None
    kind: str | None = None


class Object(TypeMeta):
    """What every kind has."""

    metadata: ObjectMeta  # required: an object without it is refused when it is decoded


# ---- claims


class TypedReference(msgspec.Struct, gc=False, omit_defaults=True):
    """`dataSource` and `dataSourceRef` of a claim."""

    kind: str = ""
    name: str = ""
    apiGroup: str | None = None
    # Only dataSourceRef has it.
    namespace: str | None = None


class ResourceRequirements(msgspec.Struct, gc=False, omit_defaults=True):
    # Quantities: the API server sends them as text, however they were given.
    requests: dict[str, str] | None = None


class ClaimSpec(msgspec.Struct, gc=False, omit_defaults=True):
    accessModes: list[str] | None = None
    resources: ResourceRequirements | None = None
    storageClassName: str | None = None
    volumeMode: str | None = None
    volumeName: str | None = None
    dataSource: TypedReference | None = None
    dataSourceRef: TypedReference | None = None
    # Only that there is one counts: it cannot be met by a new volume.
    selector: dict[str, Any] | None = None
    volumeAttributesClassName: str | None = None


class Phase(msgspec.Struct, gc=False, omit_defaults=True):
    phase: str | None = None
    lastPhaseTransitionTime: str | None = None  # of volumes alone, from Kubernetes 1.28 on


@resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
class PersistentVolumeClaim(NamespacedResourceG, Object):
    spec: ClaimSpec = msgspec.field(default_factory=ClaimSpec)
    status: Phase = msgspec.field(default_factory=Phase)
    shown: bytes | None = None  # not the API's: JSON whose `object` it is, where it is to be changed as it stands


# ---- volumes


class ObjectReference(msgspec.Struct, gc=False, omit_defaults=True):
    """`claimRef` of a volume, `involvedObject` of an event."""

    kind: str | None = None
    apiVersion: str | None = None
    name: str = ""
    namespace: str | None = None
    uid: str = ""
    resourceVersion: str | None = None


# Frozen, because one object may stand in several roles of a volume.
class SecretReference(msgspec.Struct, gc=False, omit_defaults=True, frozen=True):
    name: str = ""
    namespace: str = ""


class CSIVolumeSource(msgspec.Struct, gc=False, omit_defaults=True):
    driver: str = ""
    volumeHandle: str = ""
    fsType: str = ""
    readOnly: bool = False
    volumeAttributes: dict[str, str] | None = None
    controllerPublishSecretRef: SecretReference | None = None
    nodeStageSecretRef: SecretReference | None = None
    nodePublishSecretRef: SecretReference | None = None
    controllerExpandSecretRef: SecretReference | None = None
    nodeExpandSecretRef: SecretReference | None = None


class NodeSelectorRequirement(msgspec.Struct, gc=False, omit_defaults=True):
    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class NodeSelectorTerm(msgspec.Struct, gc=False, omit_defaults=True):
    matchExpressions: list[NodeSelectorRequirement] | None = None
    matchFields: list[NodeSelectorRequirement] | None = None


# Empty lists are written too: a selector without terms fits no node, and one that is left out fits all.
class NodeSelector(msgspec.Struct, gc=False):
    nodeSelectorTerms: list[NodeSelectorTerm] = msgspec.field(default_factory=list)


class VolumeNodeAffinity(msgspec.Struct, gc=False, omit_defaults=True):
    required: NodeSelector | None = None


class VolumeSpec(msgspec.Struct, gc=False, omit_defaults=True):
    accessModes: list[str] | None = None
    capacity: dict[str, str] | None = None
    mountOptions: list[str] | None = None
    persistentVolumeReclaimPolicy: str | None = None
    storageClassName: str | None = None
    volumeMode: str | None = None
    volumeAttributesClassName: str | None = None
    claimRef: ObjectReference | None = None
    nodeAffinity: VolumeNodeAffinity | None = None
    csi: CSIVolumeSource | None = None
    # Volumes of plugins that a driver has taken over keep this form in the cluster.
    awsElasticBlockStore: AWSElasticBlockStore | None = None
    gcePersistentDisk: GCEPersistentDisk | None = None
    azureDisk: AzureDisk | None = None
    azureFile: AzureFile | None = None
    cinder: Cinder | None = None
    vsphereVolume: VsphereVolume | None = None
    portworxVolume: PortworxVolume | None = None


@resource("", "v1", "PersistentVolume", "persistentvolumes")
class PersistentVolume(GlobalResource, Object):
    spec: VolumeSpec = msgspec.field(default_factory=VolumeSpec)
    status: Phase | None = None


# ---- classes


class LabelSelectorRequirement(msgspec.Struct, gc=False, omit_defaults=True):
    key: str = ""
    values: list[str] = msgspec.field(default_factory=list)


class TopologySelectorTerm(msgspec.Struct, gc=False, omit_defaults=True):
    matchLabelExpressions: list[LabelSelectorRequirement] | None = None


@resource("storage.k8s.io", "v1", "StorageClass", "storageclasses")
class StorageClass(GlobalResource, Object):
    provisioner: str = ""
    parameters: dict[str, str] | None = None
    reclaimPolicy: str | None = None
    mountOptions: list[str] | None = None
    # The API server fills this in. None counts as neither of the two modes.
    volumeBindingMode: str | None = None
    allowedTopologies: list[TopologySelectorTerm] | None = None


@resource("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses")
class VolumeAttributesClass(GlobalResource, Object):
    driverName: str = ""
    parameters: dict[str, str] | None = None


# ---- nodes and attachments


@resource("", "v1", "Node", "nodes")
class Node(GlobalResource, Object):
    """Only its labels are of interest."""


class CSINodeDriver(msgspec.Struct, gc=False, omit_defaults=True):
    name: str = ""
    nodeID: str = ""
    # None and no keys are the same: the driver says nothing about places.
    topologyKeys: list[str] | None = None


class CSINodeSpec(msgspec.Struct, gc=False, omit_defaults=True):
    drivers: list[CSINodeDriver] | None = None


@resource("storage.k8s.io", "v1", "CSINode", "csinodes")
class CSINode(GlobalResource, Object):
    spec: CSINodeSpec = msgspec.field(default_factory=CSINodeSpec)


class VolumeAttachmentSource(msgspec.Struct, gc=False, omit_defaults=True):
    persistentVolumeName: str | None = None  # none of a volume that is written into a pod


class VolumeAttachmentSpec(msgspec.Struct, gc=False, omit_defaults=True):
    # Of every attacher: which driver has attached a volume does not matter for its deletion.
    attacher: str = ""
    nodeName: str = ""
    source: VolumeAttachmentSource = msgspec.field(default_factory=VolumeAttachmentSource)


@resource("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments")
class VolumeAttachment(GlobalResource, Object):
    spec: VolumeAttachmentSpec = msgspec.field(default_factory=VolumeAttachmentSpec)


# ---- snapshots


class SnapshotStatus(msgspec.Struct, gc=False, omit_defaults=True):
    boundVolumeSnapshotContentName: str | None = None
    readyToUse: bool | None = None
    # In a custom resource a number stays a number.
    restoreSize: str | int | float | None = None


@resource("snapshot.storage.k8s.io", "v1", "VolumeSnapshot", "volumesnapshots")
class VolumeSnapshot(NamespacedResourceG, Object):
    status: SnapshotStatus | None = None
    shown: bytes | None = None  # as for a claim


class SnapshotContentSpec(msgspec.Struct, gc=False, omit_defaults=True):
    driver: str = ""
    sourceVolumeMode: str | None = None
    volumeSnapshotRef: ObjectReference = msgspec.field(default_factory=ObjectReference)
    nodeAffinity: Any = None  # still alpha: another form of it must not hide the rest


class SnapshotContentStatus(msgspec.Struct, gc=False, omit_defaults=True):
    snapshotHandle: str | None = None


@resource("snapshot.storage.k8s.io", "v1", "VolumeSnapshotContent", "volumesnapshotcontents")
class VolumeSnapshotContent(GlobalResource, Object):
    spec: SnapshotContentSpec = msgspec.field(default_factory=SnapshotContentSpec)
    status: SnapshotContentStatus | None = None


# ---- grants, capacity, events


GATEWAY = "gateway.networking.k8s.io"


class ReferenceGrantFrom(msgspec.Struct, gc=False, omit_defaults=True):
    group: str = ""
    kind: str = ""
    namespace: str = ""


class ReferenceGrantTo(msgspec.Struct, gc=False, omit_defaults=True):
    group: str = ""
    kind: str = ""
    # None and empty: every object of the kind.
    name: str | None = None


class ReferenceGrantSpec(msgspec.Struct, gc=False, omit_defaults=True):
    from_: list[ReferenceGrantFrom] | None = msgspec.field(default=None, name="from")
    to: list[ReferenceGrantTo] | None = None


@resource(GATEWAY, "v1", "ReferenceGrant", "referencegrants")
class ReferenceGrant(NamespacedResourceG, Object):
    spec: ReferenceGrantSpec = msgspec.field(default_factory=ReferenceGrantSpec)


@resource(GATEWAY, "v1beta1", "ReferenceGrant", "referencegrants")
class BetaReferenceGrant(ReferenceGrant):
    """The same object, for clusters without v1."""


class LabelSelector(msgspec.Struct, gc=False, omit_defaults=True):
    matchLabels: dict[str, str] | None = None
    matchExpressions: list[dict[str, Any]] | None = None


@resource("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities")
class CSIStorageCapacity(NamespacedResourceG, Object):
    storageClassName: str = ""
    # An empty selector stands for every node, none at all for no node.
    nodeTopology: LabelSelector | None = None
    capacity: str | None = None
    maximumVolumeSize: str | None = None


class EventSource(msgspec.Struct, gc=False, omit_defaults=True):
    component: str = ""


# Not those of events.k8s.io: the reference writes these, and people sort and filter by their fields.
@resource("", "v1", "Event", "events")
class Event(NamespacedResourceG, Object):
    involvedObject: ObjectReference = msgspec.field(default_factory=ObjectReference)
    type: str = ""
    reason: str = ""
    message: str = ""
    source: EventSource = msgspec.field(default_factory=EventSource)
    count: int = 0
    firstTimestamp: str | None = None
    lastTimestamp: str | None = None
    reportingComponent: str = ""


# ---- leases: only read; they are written untyped


class LeaseSpec(msgspec.Struct, gc=False, omit_defaults=True, frozen=True):
    holderIdentity: str | None = None
    leaseDurationSeconds: int | None = None
    acquireTime: str | None = None
    renewTime: str | None = None
    leaseTransitions: int | None = None


@resource("coordination.k8s.io", "v1", "Lease", "leases")
class Lease(NamespacedResourceG, Object):
    spec: LeaseSpec = LeaseSpec()


# ---- secrets: read live, never cached; decoded values live in `model.secret.SecretData` only
@resource("", "v1", "Secret", "secrets")
class Secret(NamespacedResourceG, Object):
    # Base64 in JSON; msgspec decodes it.
    data: dict[str, bytes] | None = None

    def __repr__(self) -> str:
        return f"Secret({self.metadata.namespace}/{self.metadata.name}, ***stripped***)"


def key(obj: Any) -> str:
    """`namespace/name`, or the bare name of a cluster-scoped object; also of what refers to it."""
    meta: ObjectMeta | ObjectReference = obj if isinstance(obj, ObjectReference) else obj.metadata
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name
