"""Topology.md 8 and 12: retries ask for what the first try asked for, unless something better is known."""

from collections import Counter

import pytest

from csi_provisioner.model import csi
from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.topology import TopologyMemory

from .clusters import DRIVER, answered, ask, case, cluster, csinode, full, node, wanted


def test_a_time_out_keeps_the_answer_though_the_node_goes() -> None:
    """topology.md 12 (R1)."""
    index, memory = cluster("K2"), TopologyMemory()
    assert answered(ask(case("T07"), index, memory)) == wanted(case("T07"))
    index.node_changed("n2", None, None)
    index.csinode_changed("n2", None, None)
    assert answered(ask(case("T07"), index, memory, in_flight=True)) == wanted(case("T07"))


def test_a_time_out_keeps_the_answer_though_another_node_goes() -> None:
    """topology.md 12 (R2)."""
    index, memory = cluster("K1"), TopologyMemory()
    assert answered(ask(case("T04"), index, memory)) == wanted(case("T04"))
    index.node_changed("gamma", None, None)
    index.csinode_changed("gamma", None, None)
    assert answered(ask(case("T04"), index, memory, in_flight=True)) == wanted(case("T04"))


def test_a_missing_label_that_is_added_counts() -> None:
    """topology.md 12 (R3)."""
    index, memory = cluster("K4"), TopologyMemory()
    with pytest.raises(Refusal, match="rack"):
        ask(case("T25"), index, memory)
    index.node_changed("d4", None, node("d4", {"zone": "z-7", "rack": "r-z"}))
    _, preferred = answered(ask(case("T25"), index, memory))
    assert preferred[0] == {"rack": "r-z", "zone": "z-7"}


def test_another_node_after_exhausted_is_asked_for_anew() -> None:
    """topology.md 12 (R4)."""
    index = cluster("K2")
    ask(case("T07"), index, TopologyMemory())
    _, preferred = answered(ask(case("T07") | {"selected": "n1"}, index, TopologyMemory()))
    assert preferred[0] == {"rack": "r-b", "zone": "z-1"}


def test_a_label_changed_after_a_final_error_counts() -> None:
    """topology.md 12 (R5)."""
    index = cluster("K2")
    ask(case("T07"), index, TopologyMemory())
    index.node_changed("n2", None, node("n2", {"zone": "z-9", "rack": "r-a"}))
    _, preferred = answered(ask(case("T07"), index, TopologyMemory()))
    assert preferred[0] == {"rack": "r-a", "zone": "z-9"}


def spoil(found: csi.TopologyRequirement | None) -> None:
    assert found is not None
    found.preferred.append(found.preferred.pop(0))
    found.requisite.reverse()
    found.requisite[0].segments[full("zone")] = "spoilt"


def test_an_answer_changed_in_place_does_not_change_what_is_remembered() -> None:
    """topology.md 12 (R6)."""
    index, memory = cluster("K2"), TopologyMemory()
    for _ in range(3):
        found = ask(case("T07"), index, memory, in_flight=True)
        assert answered(found) == wanted(case("T07"))
        spoil(found)
        index.node_changed("n2", None, None)
        index.csinode_changed("n2", None, None)


def test_what_is_remembered_does_not_change_with_the_objects() -> None:
    """topology.md 13.13."""
    labels = {full("zone"): "z-1"}
    index, memory = cluster("K1"), TopologyMemory()
    index.node_changed("alpha", None, k8s.Node(metadata=k8s.ObjectMeta(name="alpha", labels=labels)))
    first = answered(ask(case("T01") | {"selected": "alpha"}, index, memory))
    labels[full("zone")] = "z-9"
    assert answered(ask(case("T01") | {"selected": "alpha"}, index, memory, in_flight=True)) == first


def test_incomplete_labels_are_read_again_each_time() -> None:
    """topology.md 13.14."""
    index, memory = cluster("K4"), TopologyMemory()
    for labels in ({"zone": "z-7"}, {"rack": "r-z"}):
        index.node_changed("d4", None, node("d4", labels))
        with pytest.raises(Refusal):
            ask(case("T25"), index, memory)
    index.node_changed("d4", None, node("d4", {"zone": "z-7", "rack": "r-z"}))
    ask(case("T25"), index, memory)


def test_the_terms_of_all_sets_of_keys_are_kept() -> None:
    """topology.md 8 (C4)."""
    index, memory = cluster("K4"), TopologyMemory()
    assert answered(ask(case("T26"), index, memory)) == wanted(case("T26"))
    index.csinode_changed("d1", None, None)
    assert answered(ask(case("T26"), index, memory, in_flight=True)) == wanted(case("T26"))
    assert len(answered(ask(case("T26"), index, TopologyMemory()))[0]) == 2


def test_a_node_that_is_selected_in_flight_is_found_among_terms_of_several_sets_of_keys() -> None:
    index, memory = cluster("K4"), TopologyMemory()
    ask(case("T26"), index, memory)
    requisite, preferred = answered(ask(case("T26") | {"selected": "d1"}, index, memory, in_flight=True))
    assert requisite == case("T26")["requisite"]
    assert preferred[0] == {"zone": "z-1"}


def test_allowed_topologies_are_not_remembered() -> None:
    """topology.md 8."""
    memory = TopologyMemory()
    ask(case("T06"), cluster("K1"), memory)
    assert memory == TopologyMemory()


def test_another_node_selected_while_nothing_is_in_flight_counts() -> None:
    """topology.md 8."""
    index, memory = cluster("K2"), TopologyMemory()
    ask(case("T07"), index, memory)
    _, kept = answered(ask(case("T07") | {"selected": "n1"}, index, memory, in_flight=True))
    _, fresh = answered(ask(case("T07") | {"selected": "n1"}, index, memory))
    assert Counter(term["zone"] for term in kept) == Counter(term["zone"] for term in fresh)
    assert kept[0] == {"rack": "r-a", "zone": "z-2"}
    assert fresh[0] == {"rack": "r-b", "zone": "z-1"}


def test_what_was_refused_is_not_remembered() -> None:
    """A volume was never asked for with these keys, so that nothing can be left behind by asking with others.
    topology.md 8."""
    index, memory = cluster("K4"), TopologyMemory()
    with pytest.raises(Refusal):
        ask(case("T25"), index, memory)
    index.csinode_changed("d4", None, csinode("d4", ["zone"]))
    _, preferred = answered(ask(case("T25"), index, memory))
    assert preferred[0] == {"zone": "z-7"}


def test_what_was_refused_is_not_remembered_without_a_node_either() -> None:
    """topology.md 8."""
    index, memory = ClusterTopology(DRIVER, [node("n1", {"zone": "z-1"})], [csinode("n1", ["rack"])]), TopologyMemory()
    with pytest.raises(Refusal, match="rack"):
        ask({"pvc": "x"}, index, memory)
    index.csinode_changed("n1", None, csinode("n1", ["zone"]))
    assert answered(ask({"pvc": "x"}, index, memory)) == ([{"zone": "z-1"}], [{"zone": "z-1"}])
