"""Decides which node provisions a claim when each node has a provisioner (node-deployment.md 4 to 7).

The provisioners agree only through the selected-node annotation, written under the claim's resourceVersion. Waiting
and writing are `race`'s, asking the driver is `capacity_check`'s.
"""

from enum import Enum
from typing import Any

from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import NodeName, PersistentVolumeClaim, StorageClass
from csi_provisioner.planning import gate, wellknown
from csi_provisioner.settings import NodeSettings


class Turn(Enum):
    """Whose turn it is to provision a claim."""

    OURS = "this node's"
    OTHERS = "another node's, or nobody's until a node is selected"
    OPEN = "that of the node which is the first to take it, after a wait"


def decide(
    claim: PersistentVolumeClaim, storage_class: StorageClass | None, node: NodeName, settings: NodeSettings
) -> Turn:
    """node-deployment.md 4, for a claim of this driver. `storage_class` is the one that the claim names."""
    selected = gate.scheduler_node(claim)
    if selected:
        return Turn.OURS if selected == node else Turn.OTHERS
    if storage_class is None:
        return Turn.OURS  # provisioning says that there is no such class
    takes = settings.immediate_binding and storage_class.volumeBindingMode == gate.IMMEDIATE_BINDING
    return Turn.OPEN if takes else Turn.OTHERS


def take(claim: dict[str, Any], node: NodeName) -> bool:
    """Writes our node into the untyped claim. Always True: the claim is changed."""
    metadata = claim["metadata"]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), wellknown.SELECTED_NODE: node}
    return True


# ---- waiting


def delay(attempt: int, settings: NodeSettings, u: float) -> float:
    """node-deployment.md 6: doubles with each attempt from 0 on, minus a jitter of up to the base. `u` is in [0, 1)."""
    base, most = (round(seconds * 1_000_000_000) for seconds in (settings.base_delay, settings.max_delay))
    # Shifts above 63 would only make huge numbers: the maximum is reached long before.
    # Whole nanoseconds, as the reference counts them.
    raw = min(base << min(attempt, 63), most)
    return max(raw - int(base * u), 0) / 1_000_000_000


# ---- capacity


def questions(request: csi.CreateVolumeRequest) -> list[csi.GetCapacityRequest]:
    """node-deployment.md 7: one request per allowed topology; none for a volume without a size."""
    if not _required(request):
        return []
    requirement = request.accessibility_requirements
    places: list[csi.Topology | None] = [*requirement.requisite] if requirement and requirement.requisite else [None]
    return [
        csi.GetCapacityRequest(
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
            accessible_topology=place,
        )
        for place in places
    ]


def fits(response: csi.GetCapacityResponse, request: csi.CreateVolumeRequest) -> bool:
    return response.available_capacity >= _required(request)


def _required(request: csi.CreateVolumeRequest) -> int:
    return request.capacity_range.required_bytes if request.capacity_range else 0
