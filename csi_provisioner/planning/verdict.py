"""What the driver's answer to CreateVolume means (provision.md 9.2 and 9.3)."""

from collections.abc import Sequence

import msgspec

from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from csi_provisioner.model.outcome import State, TryError
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.request import Plan

# After any other code the driver is done, and a claim that is deleted then needs no further call.
_MAY_STILL_RUN = frozenset((Code.CANCELED, Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE, Code.ABORTED))


class Made(msgspec.Struct, frozen=True):
    """A volume to be kept."""

    volume_id: str
    capacity_bytes: int
    context: dict[str, str]
    accessible_topology: Sequence[csi.Topology]


class Unusable(msgspec.Struct, frozen=True):
    """An answer to be refused, state `InBackground`. `volume_id` is what to delete again; None if nothing is named."""

    message: str
    volume_id: str | None = None


def state_of(code: int | None, *, topology_active: bool, selected_node: str) -> State:
    """The state a failed call leaves; `code` is None for an error without a gRPC status: it may have been sent."""
    if code is None or code in _MAY_STILL_RUN:
        return State.IN_BACKGROUND
    # Also without --strict-topology: the driver knows best that no place that we named has room.
    if code == Code.RESOURCE_EXHAUSTED and topology_active and selected_node:
        return State.RESCHEDULE
    return State.FINISHED


def call_failed(error: TryError, code: int | None, driver: DriverFacts, selected_node: str) -> Refusal:
    state = state_of(code, topology_active=driver.topology, selected_node=selected_node)
    refusal = Refusal(state, f"driver {driver.name} could not create the volume: {error}")
    refusal.kind, refusal.lost, refusal.infeasible = error.kind, error.lost, code == Code.INVALID_ARGUMENT
    return refusal


def judge(plan: Plan, response: csi.CreateVolumeResponse) -> Made | Unusable:
    volume, name = response.volume, plan.draft.name
    driver = plan.draft.driver.name
    if volume is None or not volume.volume_id:
        return Unusable(f"driver {driver} says it created volume {name} but does not say which volume that is")
    wanted = plan.draft.required_bytes
    # 0 is how a driver says that it does not know. Any other size is taken to the byte.
    capacity = volume.capacity_bytes or wanted
    if capacity < wanted:
        return Unusable(
            f"driver {driver} created volume {name} with {capacity} bytes, less than the {wanted} bytes requested",
            volume.volume_id,
        )
    # Drivers from before cloning ignore a source that they do not know, and answer with an empty volume.
    if plan.expects_content and volume.content_source is None:
        return Unusable(
            f"driver {driver} created volume {name} without saying that it filled it from the claim's data source; "
            "it may be empty",
            volume.volume_id,
        )
    return Made(volume.volume_id, capacity, dict(volume.volume_context), tuple(volume.accessible_topology))


def orphaned(plan: Plan, unusable: Unusable, why: object) -> str:
    """The text when the undo failed too (9.4)."""
    return (
        f"{unusable.message}; deleting it again failed as well ({why}): volume {unusable.volume_id} "
        f"of PersistentVolume {plan.draft.name} may be left behind in the storage and need deletion by hand"
    )
