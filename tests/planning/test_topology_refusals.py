"""Topology.md 9: every refusal names the node, the driver's entry, the missing labels, and what repairs it."""

import pytest

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.outcome import State
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.topology import TopologyMemory

from .clusters import DRIVER, answered, ask, case, cluster, csinode, node

PREFIX = "error generating accessibility requirements: "

ROWS = [
    ("E1", "T22", ['failed to get selected CSINode c9: csinode.storage.k8s.io "c9" not found', "selected again"]),
    (
        "E2-not-listed",
        "T19",
        ["no topology keys", "node c2", f"does not list driver {DRIVER}", "listed: other.acme.test", "node plugin"],
    ),
    ("E2-no-keys", "T20", ["node c3", f"lists driver {DRIVER} (node id 'id-c3') without topology keys", "restart"]),
    (
        "E3",
        "T25",
        [
            "node d4 lacks the label acme.test/rack",
            "acme.test/rack, acme.test/zone in its CSINode",
            "has acme.test/zone=z-7",
            "restart",
        ],
    ),
    (
        "E4",
        "T15",
        [
            "node n2 (acme.test/rack=r-a, acme.test/zone=z-2)",
            "allowedTopologies",
            "{acme.test/zone=z-1}",
            "--strict-topology",
        ],
    ),
    ("E4-empty", "T34", ["node alpha", "no term at all"]),
    (
        "E5",
        "T29",
        [
            "no available topology found",
            f"no CSINode lists driver {DRIVER}",
            "node plugin",
            "--immediate-topology=false",
        ],
    ),
    (
        "E8",
        "T14",
        [
            "node n2 (acme.test/rack=r-a, acme.test/zone=z-2)",
            "allowedTopologies",
            "{acme.test/zone=z-1}",
            "selected-node",
        ],
    ),
]


@pytest.mark.parametrize(("row", "parts"), [r[1:] for r in ROWS], ids=[f"topology-9-{r[0]}" for r in ROWS])
def test_text(row: str, parts: list[str]) -> None:
    with pytest.raises(Refusal) as caught:
        ask(case(row), cluster(case(row)["cluster"]))
    check(caught.value, parts)


def check(refusal: Refusal, parts: list[str]) -> None:
    for part in parts:
        assert part in refusal.message
    assert (refusal.state is State.RESCHEDULE) != refusal.message.startswith(PREFIX)
    # longer ones are cut by the API server's limit for events
    assert len(refusal.message) < 800


def refused(index: ClusterTopology, selected: str, memory: TopologyMemory | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        ask({"pvc": "x", "selected": selected}, index, memory)
    return caught.value


def test_a_selected_node_without_node_object_is_refused() -> None:
    """topology.md 9 (E3)."""
    index = ClusterTopology(DRIVER, [], [csinode("n1", ["zone"])])
    check(refused(index, "n1"), ["node n1 does not exist", f"driver {DRIVER}", "acme.test/zone", "selected again"])


def test_a_node_is_given_up_once_its_csinode_is_gone_too() -> None:
    """topology.md 9 (E1)."""
    index, memory = ClusterTopology(DRIVER, [], [csinode("n1", ["zone"])]), TopologyMemory()
    assert refused(index, "n1", memory).state is State.NO_CHANGE
    index.csinode_changed("n1", None, None)
    assert refused(index, "n1", memory).state is State.RESCHEDULE


def test_an_illegal_key_is_refused() -> None:
    """topology.md 9 (E6)."""
    entry = k8s.CSINodeDriver(name=DRIVER, topologyKeys=["not a key/x/y"])
    named = k8s.CSINode(metadata=k8s.ObjectMeta(name="n1"), spec=k8s.CSINodeSpec(drivers=[entry]))
    labelled = k8s.Node(metadata=k8s.ObjectMeta(name="n1", labels={"not a key/x/y": "v"}))
    check(
        refused(ClusterTopology(DRIVER, [labelled], [named]), "n1"),
        [f"driver {DRIVER}", "'not a key/x/y'", "prefix/name"],
    )


@pytest.mark.parametrize("other", ["rack", "not a key/x/y"])
def test_a_set_of_keys_that_gives_no_place_does_not_keep_others_from_it(other: str) -> None:
    """topology.md 7."""
    index = ClusterTopology(DRIVER, [node("n1", {"zone": "z-1"})], [csinode("n1", ["zone"]), csinode("n2", [other])])
    assert answered(ask({"pvc": "x"}, index)) == ([{"zone": "z-1"}], [{"zone": "z-1"}])


def test_keys_that_no_node_carries_are_refused() -> None:
    """topology.md 9 (E7)."""
    index = ClusterTopology(DRIVER, [node("n1", {})], [csinode("n1", ["zone", "rack"])])
    with pytest.raises(Refusal) as caught:
        ask({"pvc": "x"}, index)
    check(caught.value, ["acme.test/rack, acme.test/zone", f"driver {DRIVER}", "no node carries", "restart"])


def test_a_node_that_nothing_remembered_fits_is_refused() -> None:
    """Aggregated terms were remembered before the node appeared under other labels. topology.md 9 (E8)."""
    index, memory = cluster("K1"), TopologyMemory()
    ask({"pvc": "x", "selected": "alpha"}, index, memory)
    memory.labels = {"acme.test/zone": "z-9"}
    check(
        refused(index, "alpha", memory),
        ["node alpha (acme.test/zone=z-9)", "topologies found in the cluster", "{acme.test/zone=z-1}"],
    )


def test_long_lists_are_cut() -> None:
    """topology.md 9."""
    zones = [f"zone-{i:03}" for i in range(200)]
    row = {"pvc": "x", "selected": "alpha", "strict": True, "allowed": [{"zone": zones}]}
    with pytest.raises(Refusal, match="and 195 more") as caught:
        ask(row, cluster("K1"))
    assert len(caught.value.message) < 800
