"""What ends a try becomes one outcome, in one place (design.md 2)."""

import pytest

from csi_provisioner.csi.errors import CallError
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.model.codes import Code
from csi_provisioner.model.outcome import Done, GiveUp, Outcome, Retry, RetryAt, State, TryError, after
from csi_provisioner.planning.refusal import Refusal, not_ours

BUSY = KubeError(429, "TooManyRequests", retry_after=7.0)


def made_of(cause: TryError) -> Refusal:
    """As planning's rules are raised for what could not be read."""
    refusal = Refusal(State.NO_CHANGE, "cannot read it")
    refusal.__cause__ = cause
    return refusal


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        pytest.param(not_ours("x"), Done(ignored=True), id="what is not ours is done"),
        pytest.param(
            Refusal(State.IN_BACKGROUND, "no", "why"),
            Retry("no (why)", state=State.IN_BACKGROUND, kind="refused"),
            id="a refusal",
        ),
        pytest.param(BUSY, Retry("429 TooManyRequests", 7.0, kind="api 429"), id="a busy API server"),
        pytest.param(
            made_of(BUSY),
            Retry("cannot read it", 7.0, kind="refused"),
            id="a refusal made of a busy API server's answer",
        ),
        pytest.param(
            CallError(Code.UNAVAILABLE, "gone", "Create", lost=True),
            Retry("Create: rpc error: code = Unavailable desc = gone", lost=True, kind="Unavailable"),
            id="a call lost with the connection",
        ),
    ],
)
def test_an_error_becomes_an_outcome(error: TryError, outcome: Outcome) -> None:
    assert after(error) == outcome


def test_the_log_names_the_object_and_an_outcome_may_have_a_time_or_no_next_try() -> None:
    error = Refusal(State.RESCHEDULE, "no", "why")
    assert after(error, "claim a/b: no", due=5.0) == RetryAt(
        5.0, "claim a/b: no (why)", True, State.RESCHEDULE, kind="refused"
    )
    assert after(error, give_up=True) == GiveUp("no (why)", State.RESCHEDULE)


def test_only_an_api_server_that_is_away_could_not_be_asked() -> None:
    assert made_of(BUSY).unavailable
    assert not made_of(KubeError(403, "Forbidden")).unavailable
    assert not Refusal(State.NO_CHANGE, "no").unavailable
