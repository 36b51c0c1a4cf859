"""What the driver's answer to CreateVolume means (provision.md 9.2 and 9.3)."""

from dataclasses import replace

from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from csi_provisioner.model.outcome import State, TryError
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.request import Plan

# Final codes that say nothing about a volume: drivers give them for all kinds of trouble
NEVER_CERTAIN = frozenset((Code.ALREADY_EXISTS, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS))
# After any other code the driver is done, and a claim that is deleted then needs no further call.
_MAY_STILL_RUN = frozenset((Code.CANCELED, Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE, Code.ABORTED))


def state_of(code: int | None, *, topology_active: bool, selected_node: str) -> State:
    """The state a failed call leaves; `code` is None for an error without a gRPC status: it may have been sent."""
    if code is None or code in _MAY_STILL_RUN:
        return State.IN_BACKGROUND
    # Also without --strict-topology: the driver knows best that no place that we named has room.
    if code == Code.RESOURCE_EXHAUSTED and topology_active and selected_node:
        return State.RESCHEDULE
    return State.FINISHED


def call_failed(
    error: TryError, code: int | None, driver: DriverFacts, selected_node: str, remark: str = ""
) -> Refusal:
    state = state_of(code, topology_active=driver.topology, selected_node=selected_node)
    refusal = Refusal(state, f"driver {driver.name} could not create the volume: {error}{remark}")
    refusal.kind, refusal.lost, refusal.infeasible = error.kind, error.lost, code == Code.INVALID_ARGUMENT
    return refusal


def judge(plan: Plan, response: csi.CreateVolumeResponse) -> csi.Volume:
    """The volume, with the size it is taken to have. Raises Refusal for an answer that cannot be used."""
    volume, wanted = response.volume, plan.draft.required_bytes
    driver, name = plan.draft.driver.name, plan.draft.name
    if volume is None:
        text = f"driver {driver} says it created volume {name} but does not say which volume that is"
        raise Refusal(State.IN_BACKGROUND, text)
    # 0 is how a driver says that it does not know. Any other size is taken to the byte.
    capacity = volume.capacity_bytes or wanted
    if capacity < wanted:
        text = f"driver {driver} created volume {name} with {capacity} bytes, less than the {wanted} bytes requested"
        raise Refusal(State.IN_BACKGROUND, text)
    # Drivers from before cloning ignore a source that they do not know, and answer with an empty volume.
    if plan.expects_content and volume.content_source is None:
        text = f"driver {driver} created volume {name} without saying that it filled it from the claim's data source"
        raise Refusal(State.IN_BACKGROUND, f"{text}; it may be empty")
    return replace(volume, capacity_bytes=capacity)
