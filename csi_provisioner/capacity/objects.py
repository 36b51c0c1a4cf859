"""One pair's CSIStorageCapacity (capacity.md 8): the question to the driver, the object made from the answer, and the
patch that corrects an older one. Pure; sending and retrying belong to the publisher.
"""

from typing import Any

import msgspec

from csi_provisioner.capacity import naming
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
from csi_provisioner.planning.refusal import Refusal


class Pair(msgspec.Struct, frozen=True, tag=True, array_like=True):
    segment: Segment
    class_name: str


class Reading(msgspec.Struct, frozen=True):
    """What the driver said about a pair; `maximum` is None if it said nothing of it, and 0 if it said 0."""

    capacity: int
    maximum: int | None = None


class Publication(msgspec.Struct, frozen=True):
    """What is the same for all objects of this process."""

    driver: str
    manager: str
    namespace: str
    owner: OwnerReference | None = None


def question(pair: Pair, storage_class: StorageClass) -> csi.GetCapacityRequest:
    """Parameters go unstripped and no capability is named: capacity counts as the same for all of them."""
    return csi.GetCapacityRequest(
        parameters=dict(storage_class.parameters or {}),
        accessible_topology=csi.Topology(segments=dict(pair.segment)),
    )


def reading(response: csi.GetCapacityResponse) -> Reading:
    return Reading(response.available_capacity, response.maximum_volume_size)


def pair_of(obj: CSIStorageCapacity) -> Pair | None:
    """The pair an object stands for; None if its selector is not one of ours."""
    topology = obj.nodeTopology
    if topology is None or topology.matchExpressions:
        return None
    # the server drops an empty matchLabels: absent and empty are the same segment
    return Pair(tuple(sorted((topology.matchLabels or {}).items())), obj.storageClassName)


def is_managed(obj: CSIStorageCapacity, publication: Publication) -> bool:
    return naming.is_managed(obj.metadata.labels, publication.driver, publication.manager)


def new(pair: Pair, found: Reading, publication: Publication) -> CSIStorageCapacity:
    return CSIStorageCapacity(
        metadata=ObjectMeta(
            generateName="csisc-",
            namespace=publication.namespace,
            labels=naming.labels(publication.driver, publication.manager),
            ownerReferences=[publication.owner] if publication.owner else None,
        ),
        storageClassName=pair.class_name,
        # an empty selector is every node; none at all would be no node
        nodeTopology=LabelSelector(matchLabels=dict(pair.segment) or None),
        capacity=quantity.format(found.capacity),
        maximumVolumeSize=_size(found.maximum),
    )


def correction(known: CSIStorageCapacity, found: Reading, publication: Publication) -> dict[str, Any] | None:
    """The strategic merge patch that makes the known version true, refused by the server for any other version.

    None if it is true already. An owner is added beside others, never taken away.
    """
    owned = publication.owner is None or _is_owned_by(known, publication.owner)
    if owned and _amount(known.capacity) == found.capacity and _amount(known.maximumVolumeSize) == found.maximum:
        return None
    metadata: dict[str, Any] = {"resourceVersion": known.metadata.resourceVersion}
    if not owned:
        metadata["ownerReferences"] = [msgspec.to_builtins(publication.owner)]
    return {
        "metadata": metadata,
        "capacity": quantity.format(found.capacity),
        "maximumVolumeSize": _size(found.maximum),
    }


def _is_owned_by(obj: CSIStorageCapacity, owner: OwnerReference) -> bool:
    return any(reference.controller and reference.uid == owner.uid for reference in obj.metadata.ownerReferences or [])


def _size(amount: int | None) -> str | None:
    return None if amount is None else quantity.format(amount)


def _amount(text: str | None) -> int | None:
    """The server writes quantities its own way: only numbers compare. What cannot be read differs from everything."""
    if text is None:
        return None
    try:
        return quantity.parse(text)
    except Refusal:
        return -1
