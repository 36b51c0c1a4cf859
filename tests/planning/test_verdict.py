"""provision.md 9.2 and 9.3: what the driver's answer means."""

from typing import Any

import pytest

from csi_provisioner.csi.errors import CallError
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import verdict
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.request import Plan
from tests.planning.objects import DRIVER, SNAPSHOT, UID, claim, draft, driver, plan, response

NAME = f"pvc-{UID}"
BACKGROUND = (Code.CANCELED, Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE, Code.ABORTED)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda code: f"9.2 {code.name}")
@pytest.mark.parametrize("active", [False, True], ids=["no topology", "topology"])
@pytest.mark.parametrize("node", ["", "n1"], ids=["no node", "node"])
def test_states(code: Code, active: bool, node: str) -> None:
    state = verdict.state_of(code, topology_active=active, selected_node=node)
    if code in BACKGROUND:
        assert state is State.IN_BACKGROUND
    elif code is Code.RESOURCE_EXHAUSTED and active and node:
        assert state is State.RESCHEDULE
    else:
        assert state is State.FINISHED


@pytest.mark.parametrize(
    ("code", "state"),
    [
        pytest.param(None, State.IN_BACKGROUND, id="9.2 no status, p19-engine-1"),
        pytest.param(8, State.FINISHED, id="p19-engine-2 ResourceExhausted is final"),
        pytest.param(77, State.FINISHED, id="9.2 any other code"),
        pytest.param(0, State.FINISHED, id="9.2 OK that came as an error"),
    ],
)
def test_other_errors(code: int | None, state: State) -> None:
    assert verdict.state_of(code, topology_active=False, selected_node="") is state


@pytest.mark.parametrize(
    ("active", "node", "state"),
    [
        pytest.param(False, "", State.FINISHED, id="16 (0,0)"),
        pytest.param(False, "n", State.FINISHED, id="16 (0,1)"),
        pytest.param(True, "", State.FINISHED, id="16 (1,0)"),
        pytest.param(True, "n", State.RESCHEDULE, id="16 (1,1)"),
    ],
)
def test_resource_exhausted_p19_topology_1(active: bool, node: str, state: State) -> None:
    assert verdict.state_of(8, topology_active=active, selected_node=node) is state


@pytest.mark.parametrize("code", [None, *Code])
def test_only_invalid_argument_is_infeasible_p19_engine_4(code: int | None) -> None:
    """provision.md 6."""
    refusal = verdict.call_failed(CallError(code or Code.UNKNOWN, "", "Create"), code, driver(), "")
    assert refusal.infeasible is (code == Code.INVALID_ARGUMENT)


# ---- answers (9.3)


def refused(planned: Plan, answer: csi.CreateVolumeResponse) -> str:
    with pytest.raises(Refusal) as caught:
        verdict.judge(planned, answer)
    assert caught.value.state is State.IN_BACKGROUND
    return caught.value.message


def test_a_good_answer_is_a_volume() -> None:
    """provision.md 9.3."""
    topology = csi.Topology(segments={"zone": "a"})
    answer = response(volume_context={"k": "v"}, accessible_topology=[topology])
    assert verdict.judge(plan(), answer) == csi.Volume(
        volume_id="h", capacity_bytes=5 << 30, volume_context={"k": "v"}, accessible_topology=[topology]
    )


@pytest.mark.parametrize(
    ("size", "answered", "kept"),
    [
        pytest.param("100", 0, 100, id="16 vector 0 is the requested size, p19-response-1"),
        pytest.param("100", 100, 100, id="9.3-3 equal"),
        pytest.param("5Gi", 5970004541, 5970004541, id="9.3-3 larger: exactly, p19-response-2"),
        pytest.param(None, 0, 0, id="9.3-3 nothing requested"),
        pytest.param(None, 7, 7, id="9.3-3 nothing requested, some given"),
    ],
)
def test_capacity(size: str | None, answered: int, kept: int) -> None:
    made = verdict.judge(plan(draft(claim(size=size))), response(capacity=answered))
    assert made.capacity_bytes == kept


def test_an_answer_without_volume_is_refused() -> None:
    """provision.md 18, quirk Q3."""
    text = refused(plan(), csi.CreateVolumeResponse())
    assert DRIVER in text
    assert NAME in text


def test_less_than_what_was_asked_for_is_refused() -> None:
    """provision.md 16."""
    text = refused(plan(draft(claim(size="100"))), response(capacity=80))
    assert "80 bytes, less than the 100 bytes" in text


@pytest.mark.parametrize(
    ("content", "usable"),
    [
        pytest.param(None, False, id="9.3-4 missing, p19-sources-3"),
        pytest.param(csi.VolumeContentSource(), True, id="9.3-4 there, though empty"),
        pytest.param(
            csi.VolumeContentSource(volume=csi.VolumeContentSourceVolumeSource(volume_id="x")),
            True,
            id="9.3-4 not compared",
        ),
    ],
)
def test_content_source(content: Any, usable: bool) -> None:
    planned, answer = plan(draft(claim(dataSource=SNAPSHOT))), response(content_source=content)
    if usable:
        assert verdict.judge(planned, answer).volume_id == "h"
    else:
        assert "may be empty" in refused(planned, answer)


def test_the_size_is_looked_at_before_the_content() -> None:
    """provision.md 9.3."""
    text = refused(plan(draft(claim(dataSource=SNAPSHOT))), response(capacity=1))
    assert "1 bytes" in text


def test_an_empty_volume_id_is_left_to_the_api_server() -> None:
    """provision.md 9.3: it refuses the PersistentVolume, and the driver is not asked again."""
    assert verdict.judge(plan(), response(volume_id="")).volume_id == ""
