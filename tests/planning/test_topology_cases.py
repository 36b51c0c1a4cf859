"""The 34 worked examples of topology.md 12, and what must hold for all of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.model.outcome import State
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.refusal import Refusal

from .clusters import DRIVER, SPEC, answered, ask, case, cluster, csinode, node, wanted

CASES: list[dict[str, Any]] = SPEC["cases"]
REFUSED = {"nochange": State.NO_CHANGE, "reschedule": State.RESCHEDULE}


def test_there_are_thirty_four_cases() -> None:
    assert len(CASES) == 34


@pytest.mark.parametrize("row", CASES, ids=[f"topology-12-{case['id']}" for case in CASES])
def test_case(row: dict[str, Any]) -> None:
    match row["result"]:
        case "ok":
            assert answered(ask(row, cluster(row["cluster"]))) == wanted(row)
        case "none":
            assert ask(row, cluster(row["cluster"])) is None
        case refused:
            with pytest.raises(Refusal) as caught:
                ask(row, cluster(row["cluster"]))
            assert caught.value.state is REFUSED[refused]


def same_as(row: str, **changes: Any) -> None:
    changed = case(row) | changes
    assert answered(ask(changed, cluster(changed["cluster"]))) == wanted(case(row))


def test_strict_restricts_delayed_mode_only() -> None:
    """topology.md 13.1."""
    same_as("T01", strict=True)
    assert len(answered(ask(case("T09"), cluster("K2")))[0]) == 1


def test_allowed_topologies_may_have_some_of_the_keys() -> None:
    """topology.md 13.3."""
    same_as("T12")


def test_topology_for_immediate_binding_can_be_switched_off() -> None:
    """topology.md 13.6."""
    assert ask(case("T05"), cluster("K1")) is None
    same_as("T06")


@pytest.mark.parametrize("row", ["T21", "T22"])
def test_a_selected_node_without_csinode_is_given_up(row: str) -> None:
    """topology.md 13.10."""
    with pytest.raises(Refusal) as caught:
        ask(case(row), cluster("K3"))
    assert caught.value.state is State.RESCHEDULE


def test_a_driver_without_keys_needs_allowed_topologies_or_the_switch() -> None:
    """topology.md 13.11."""
    with pytest.raises(Refusal):
        ask(case("T29"), cluster("K6"))
    assert ask(case("T30"), cluster("K6")) is None
    same_as("T31")


def test_immediate_topology_does_not_matter_in_delayed_mode() -> None:
    """topology.md 1."""
    for row in ("T07", "T09", "T10"):
        same_as(row, immediateTopology=False)


NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
ZONES = st.lists(st.sampled_from(["z-1", "z-2", "z-10", "z-3"]), min_size=1, max_size=6)


@given(NAMES, ZONES, st.booleans(), st.booleans())
def test_preferred_is_a_rotation_of_a_sorted_requisite(
    name: str, zones: list[str], delayed: bool, with_allowed: bool
) -> None:
    """topology.md 4."""
    nodes = [node(f"n{i}", {"zone": zone}) for i, zone in enumerate(zones)]
    index = ClusterTopology(DRIVER, nodes, [csinode(n.metadata.name, ["zone"]) for n in nodes])
    row: dict[str, Any] = {"pvc": name} | ({"selected": "n0"} if delayed else {})
    row |= {"allowed": [{"zone": zones}]} if with_allowed else {}
    requisite, preferred = answered(ask(row, index))
    values = [term["zone"] for term in requisite]
    assert values == sorted(set(zones))
    first = requisite.index(preferred[0])
    assert preferred == requisite[first:] + requisite[:first]
    if delayed:
        assert preferred[0]["zone"] == zones[0]
