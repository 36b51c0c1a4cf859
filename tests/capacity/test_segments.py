"""Capacity.md 5: segments of nodes, the fixed one, and which changes matter."""

import pytest

from csi_provisioner.capacity import segments
from csi_provisioner.capacity.segments import Segment
from csi_provisioner.model import kubernetes as k8s

from .objects import DRIVER


def node(name: str, **labels: str) -> k8s.Node:
    return k8s.Node(metadata=k8s.ObjectMeta(name=name, labels=labels or None))


def csinode(name: str, *keys: str, driver: str = DRIVER) -> k8s.CSINode:
    entry = k8s.CSINodeDriver(name=driver, topologyKeys=list(keys) or None)
    return k8s.CSINode(metadata=k8s.ObjectMeta(name=name), spec=k8s.CSINodeSpec(drivers=[entry]))


BARE = k8s.CSINode(metadata=k8s.ObjectMeta(name="a"))
ROWS: list[tuple[str, list[k8s.CSINode], list[k8s.Node], set[Segment]]] = [
    ("not-listed", [csinode("a", "zone", driver="other")], [node("a", zone="1")], set()),
    ("no-drivers", [BARE], [node("a", zone="1")], set()),
    ("stale-csinode", [csinode("a", "zone")], [node("b", zone="1")], set()),
    ("label-missing", [csinode("a", "zone", "rack")], [node("a", zone="1")], set()),
    ("no-keys-is-the-empty-segment", [csinode("a")], [node("a", zone="1")], {()}),
    (
        "sorted",
        [csinode("a", "zone", "rack")],
        [node("a", zone="1", rack="2", x="3")],
        {(("rack", "2"), ("zone", "1"))},
    ),
    (
        "distinct",
        [csinode("a", "zone"), csinode("b", "zone"), csinode("c", "zone")],
        [node("a", zone="1"), node("b", zone="1"), node("c", zone="2")],
        {(("zone", "1"),), (("zone", "2"),)},
    ),
    (
        "no-subset-reduction",
        [csinode("a"), csinode("b", "zone"), csinode("c", "zone", "rack")],
        [node("a"), node("b", zone="1"), node("c", zone="1", rack="2")],
        {(), (("zone", "1"),), (("rack", "2"), ("zone", "1"))},
    ),
    ("node-without-csinode", [], [node("a", zone="1")], set()),
]


@pytest.mark.parametrize(
    ("csinodes", "nodes", "expected"), [row[1:] for row in ROWS], ids=[f"capacity-5.1-{row[0]}" for row in ROWS]
)
def test_of_nodes(csinodes: list[k8s.CSINode], nodes: list[k8s.Node], expected: set[Segment]) -> None:
    assert segments.of_nodes(DRIVER, csinodes, {n.metadata.name: n for n in nodes}) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"b": "1", "a": "2"}, (("a", "2"), ("b", "1"))), ({}, ()), (None, ())],
    ids=["capacity-5.2-sorted", "capacity-5.2-empty", "capacity-5.2-no-topology"],
)
def test_fixed(given: dict[str, str] | None, expected: Segment) -> None:
    assert segments.fixed(given) == expected


NODE_CHANGES = [
    ("added", None, node("a"), True),
    ("deleted", node("a"), None, True),
    ("label-changed", node("a", zone="1"), node("a", zone="2"), True),
    ("labels-gone", node("a", zone="1"), node("a"), True),
    ("same-labels", node("a", zone="1"), node("a", zone="1"), False),
]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [row[1:] for row in NODE_CHANGES],
    ids=[f"capacity-5.1-node-{row[0]}" for row in NODE_CHANGES],
)
def test_node_matters(old: k8s.Node | None, new: k8s.Node | None, expected: bool) -> None:
    assert segments.node_matters(old, new) is expected


CSINODE_CHANGES = [
    ("added", None, BARE, True),
    ("deleted", BARE, None, True),
    ("keys-changed", csinode("a", "zone"), csinode("a", "rack"), True),
    ("listed-without-keys", BARE, csinode("a"), True),
    ("no-longer-listed", csinode("a"), BARE, True),
    ("same-keys", csinode("a", "zone"), csinode("a", "zone"), False),
    ("never-listed", BARE, csinode("a", "zone", driver="other"), False),
]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [row[1:] for row in CSINODE_CHANGES],
    ids=[f"capacity-5.1-csinode-{row[0]}" for row in CSINODE_CHANGES],
)
def test_csinode_matters(old: k8s.CSINode | None, new: k8s.CSINode | None, expected: bool) -> None:
    assert segments.csinode_matters(DRIVER, old, new) is expected
