"""Whose claim it is when a provisioner runs on every node (node-deployment.md 4 to 7): the decisions of the race.

The instances agree by the selected-node annotation alone, written under the claim's resourceVersion. Waiting and
writing are `race`'s, asking the driver is `capacity_check`'s.
"""

from typing import Any

import msgspec

from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import NodeName, PersistentVolumeClaim, StorageClass
from csi_provisioner.planning import gate, wellknown
from csi_provisioner.planning.gate import Fail, Provision, Skip
from csi_provisioner.settings import NodeSettings


class Compete(msgspec.Struct, frozen=True):
    """Anyone may have the claim: wait a while, then try to be the first to take it."""


Decision = Provision | Skip | Fail | Compete


def decide(
    claim: PersistentVolumeClaim, storage_class: StorageClass | None, node: NodeName, settings: NodeSettings
) -> Decision:
    """Section 4, for a claim that concerns this driver; `storage_class` is that of `gate.claim_class(claim)`."""
    selected = gate.scheduler_node(claim)
    if selected == node:
        return Provision()
    if selected:
        return Skip(f"the claim is node {selected}'s")
    if storage_class is None:
        return Fail(gate.missing_class(claim))
    if storage_class.volumeBindingMode != gate.IMMEDIATE_BINDING:
        return Skip("no node selected yet")
    if not settings.immediate_binding:
        return Skip("no node selected, and this provisioner takes no claims by itself")
    return Compete()


def take(claim: dict[str, Any], node: NodeName) -> bool:
    """Writes our name into the claim as the server has it; always a change."""
    metadata = claim["metadata"]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), wellknown.SELECTED_NODE: node}
    return True


# ---- waiting


def delay(attempt: int, settings: NodeSettings, u: float) -> float:
    """Section 6: doubled with each attempt (the first is 0), less a jitter of the base's width; `u` from [0, 1)."""
    base, most = (round(seconds * 1_000_000_000) for seconds in (settings.base_delay, settings.max_delay))
    # beyond 2**63 nanoseconds any base has long passed any limit
    raw = min(base << min(attempt, 63), most)
    return max(raw - int(base * u), 0) / 1_000_000_000


# ---- capacity


def questions(request: csi.CreateVolumeRequest) -> list[csi.GetCapacityRequest]:
    """Section 7: one for each place the volume may be in; none for a volume without size, which fits anywhere."""
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
