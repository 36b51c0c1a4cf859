"""One pair's CSIStorageCapacity (capacity.md 4 and 8): who manages it, the question to the driver, the object made from
the answer, and the patch that corrects an older one. Pure; sending and retrying belong to the publisher.
"""

from typing import Any

import msgspec

from csi_provisioner.capacity.segments import Segment
from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import (
    CSIStorageCapacity,
    LabelSelector,
    ObjectMeta,
    OwnerReference,
    StorageClass,
)
from csi_provisioner.planning import quantity
from csi_provisioner.planning.fnv import fnv1a
from csi_provisioner.planning.refusal import Refusal

DRIVER_LABEL = "csi.storage.k8s.io/drivername"
MANAGER_LABEL = "csi.storage.k8s.io/managed-by"
"""The two labels that decide who manages an object. Nothing else does; owners play no part."""

_MANAGER = "external-provisioner"
_LONGEST = 63  # what Kubernetes allows for a label value


class Pair(msgspec.Struct, frozen=True, array_like=True):
    segment: Segment
    class_name: str


class Publication(msgspec.Struct, frozen=True):
    """What is the same for all objects of this process."""

    driver: str
    manager: str
    namespace: str
    owner: OwnerReference | None = None

    def labels(self) -> dict[str, str]:
        return {DRIVER_LABEL: self.driver, MANAGER_LABEL: self.manager}

    def selector(self) -> str:
        """Label selector of the watch, so that only our objects are sent."""
        return ",".join(f"{key}={value}" for key, value in self.labels().items())

    def manages(self, obj: CSIStorageCapacity) -> bool:
        return self.labels().items() <= (obj.metadata.labels or {}).items()


def manager_on(node: str) -> str:
    """The manager's name: the same for all in a central deployment (no node), with its node's name in a per-node one.

    Long node names are shortened exactly as the reference does, so that it and this program manage the same objects.
    """
    whole = f"{_MANAGER}-{node}" if node else _MANAGER
    if len(whole) <= _LONGEST:
        return whole
    tail = f"-{fnv1a(_MANAGER):08x}-{node}"
    if len(tail) < _LONGEST:
        return _MANAGER[: _LONGEST - len(tail)] + tail
    return f"{_MANAGER}-{fnv1a(whole):08x}"


def question(pair: Pair, storage_class: StorageClass) -> csi.GetCapacityRequest:
    """Parameters go unstripped and no capability is named: capacity counts as the same for all of them."""
    return csi.GetCapacityRequest(
        # As they are in the class, also for an in-tree one, as in the reference.
        parameters=dict(storage_class.parameters or {}),
        accessible_topology=csi.Topology(segments=dict(pair.segment)),
    )


def pair_of(obj: CSIStorageCapacity) -> Pair | None:
    """The pair an object stands for; None if its selector is not one of ours."""
    topology = obj.nodeTopology
    if topology is None or topology.matchExpressions:
        return None
    # The server drops an empty matchLabels, so absent and empty mean the same segment.
    return Pair(tuple(sorted((topology.matchLabels or {}).items())), obj.storageClassName)


def new(pair: Pair, found: csi.GetCapacityResponse, publication: Publication) -> CSIStorageCapacity:
    return CSIStorageCapacity(
        metadata=ObjectMeta(
            generateName="csisc-",
            namespace=publication.namespace,
            labels=publication.labels(),
            ownerReferences=[publication.owner] if publication.owner else None,
        ),
        storageClassName=pair.class_name,
        # An empty selector matches every node; no selector at all matches none.
        nodeTopology=LabelSelector(matchLabels=dict(pair.segment) or None),
        capacity=quantity.format(found.available_capacity),
        maximumVolumeSize=_size(found.maximum_volume_size),
    )


def correction(
    known: CSIStorageCapacity, found: csi.GetCapacityResponse, publication: Publication
) -> dict[str, Any] | None:
    """The strategic merge patch that makes the known version true, refused by the server for any other version.

    None if it is true already. An owner is added beside others, never taken away.
    """
    owned = publication.owner is None or _is_owned_by(known, publication.owner)
    sizes = _amount(known.capacity), _amount(known.maximumVolumeSize)
    if owned and sizes == (found.available_capacity, found.maximum_volume_size):
        return None
    # With the version, so that a change that we have not seen makes this a conflict.
    metadata: dict[str, Any] = {"resourceVersion": known.metadata.resourceVersion}
    if not owned:
        metadata["ownerReferences"] = [msgspec.to_builtins(publication.owner)]
    return {
        "metadata": metadata,
        "capacity": quantity.format(found.available_capacity),
        # null takes a maximum away that the driver names no more.
        "maximumVolumeSize": _size(found.maximum_volume_size),
    }


def _is_owned_by(obj: CSIStorageCapacity, owner: OwnerReference) -> bool:
    return any(reference.controller and reference.uid == owner.uid for reference in obj.metadata.ownerReferences or [])


def _size(amount: int | None) -> str | None:
    return None if amount is None else quantity.format(amount)


def _amount(text: str | None) -> int | None:
    """As a number, because the server rewrites quantities. -1, which equals nothing, if it cannot be read."""
    if text is None:
        return None
    try:
        return quantity.parse(text)
    except Refusal:
        return -1
