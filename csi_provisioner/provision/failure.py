"""How a try ended that made no volume, as one value, whatever said no."""

from dataclasses import dataclass

from csi_provisioner.kube.client import KubeError
from csi_provisioner.kube.errors import cause_of, floor
from csi_provisioner.model.outcome import State
from csi_provisioner.planning.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Failure:
    """How a try ended that made no volume. `kind` is the class of failure that repeats of its event are merged by;
    `asked` says that the driver was called, so that the state is its own word. `detail` is for the log only. For
    `floor` seconds the API server wants to be left alone. `passing`: it could just not be asked."""

    state: State
    message: str
    kind: str
    asked: bool
    infeasible: bool = False
    lost: bool = False
    detail: str = ""
    floor: float = 0.0
    passing: bool = False


def refused(error: Refusal | KubeError, *, asked: bool) -> Failure:
    cause = cause_of(error)
    passing = cause is not None and cause.unavailable
    if isinstance(error, KubeError):
        return Failure(State.NO_CHANGE, str(error), f"api {error.code}", asked, floor=floor(error), passing=passing)
    state, text, detail = error.state, error.message, error.detail
    return Failure(state, text, "refused", asked, detail=detail, floor=floor(error), passing=passing)
