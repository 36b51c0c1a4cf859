"""Node affinity: the answer's (topology.md 10), against labels (node-deployment.md 9), as segments (capacity.md 10)."""

from typing import Any

import msgspec
import pytest

from csi_provisioner.model import csi
from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.planning import affinity
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.terms import Term

from .clusters import SPEC

Row = tuple[str, str, list[str] | None]
LABELS = {"acme.test/node": "node-7", "acme.test/slots": "12"}
NODE7: Row = ("acme.test/node", "In", ["node-7"])
NODE8: Row = ("acme.test/node", "In", ["node-8"])
BROKEN: Row = ("acme.test/node", "In", [])


def of_answer(*segments: dict[str, str]) -> Any:
    return msgspec.to_builtins(affinity.of_answer([csi.Topology(segments=given) for given in segments]))


def test_the_answer_becomes_one_term_for_each_topology() -> None:
    """topology.md 10."""
    assert of_answer(*SPEC["response"]) == SPEC["nodeAffinity"]


def test_no_topology_in_the_answer_gives_no_affinity() -> None:
    """topology.md 10."""
    assert of_answer() is None


def test_topologies_without_segments_give_no_term() -> None:
    """topology.md 10."""
    assert of_answer({}, {}) == {"required": {"nodeSelectorTerms": []}}


def test_nothing_is_merged() -> None:
    """topology.md 10."""
    assert len(of_answer({"z": "1"}, {"z": "1"})["required"]["nodeSelectorTerms"]) == 2


def term(*rows: Row, fields: bool = False) -> k8s.NodeSelectorTerm:
    name = k8s.NodeSelectorRequirement(key="metadata.name", operator="In", values=["other"])
    expressions = [k8s.NodeSelectorRequirement(key=key, operator=op, values=values) for key, op, values in rows]
    return k8s.NodeSelectorTerm(matchExpressions=expressions or None, matchFields=[name] if fields else None)


MATCHES: list[tuple[str, list[k8s.NodeSelectorTerm], bool]] = [
    ("own-node", [term(NODE7)], True),
    ("other-node", [term(NODE8)], False),
    ("either", [term(NODE8), term(NODE7)], True),
    ("unknown-label", [term(NODE7, ("acme.test/disk", "In", ["ssd"]))], False),
    ("hostname-is-no-segment", [term(("kubernetes.io/hostname", "In", ["node-7"]))], False),
    ("no-terms", [], False),
    ("empty-term", [term()], False),
    ("empty-expressions", [k8s.NodeSelectorTerm(matchExpressions=[])], False),
    ("fields-only", [term(fields=True)], True),
    ("fields-and-expressions", [term(NODE8, fields=True)], False),
    ("not-in", [term(("acme.test/node", "NotIn", ["node-8"]))], True),
    ("not-in-own", [term(("acme.test/node", "NotIn", ["node-7"]))], False),
    ("not-in-absent-label", [term(("acme.test/disk", "NotIn", ["ssd"]))], True),
    ("exists", [term(("acme.test/node", "Exists", None))], True),
    ("exists-not", [term(("acme.test/disk", "Exists", None))], False),
    ("does-not-exist", [term(("acme.test/disk", "DoesNotExist", []))], True),
    ("does-not-exist-but-does", [term(("acme.test/node", "DoesNotExist", None))], False),
    ("greater", [term(("acme.test/slots", "Gt", ["11"]))], True),
    ("greater-equal", [term(("acme.test/slots", "Gt", ["12"]))], False),
    ("less", [term(("acme.test/slots", "Lt", ["13"]))], True),
    ("greater-than-text", [term(("acme.test/node", "Gt", ["1"]))], False),
    ("greater-than-absent", [term(("acme.test/disk", "Gt", ["-1"]))], False),
    ("malformed-beside-a-match", [term(BROKEN), term(NODE7)], True),
]


@pytest.mark.parametrize(
    ("terms", "expected"), [row[1:] for row in MATCHES], ids=[f"node-deployment-9-{row[0]}" for row in MATCHES]
)
def test_matches(terms: list[k8s.NodeSelectorTerm], expected: bool) -> None:
    assert affinity.matches(k8s.NodeSelector(terms), LABELS) is expected


MALFORMED: list[tuple[str, list[k8s.NodeSelectorTerm]]] = [
    ("in-without-values", [term(BROKEN)]),
    ("not-in-without-values", [term(("acme.test/node", "NotIn", None))]),
    ("exists-with-values", [term(("acme.test/node", "Exists", ["x"]))]),
    ("absent-with-values", [term(("acme.test/node", "DoesNotExist", ["x"]))]),
    ("bound-not-a-number", [term(("acme.test/slots", "Gt", ["many"]))]),
    ("two-bounds", [term(("acme.test/slots", "Lt", ["1", "2"]))]),
    ("unknown-operator", [term(("acme.test/node", "Like", ["node-7"]))]),
    ("behind-one-that-fails", [term(NODE8, BROKEN)]),
    ("beside-a-mismatch", [term(BROKEN), term(NODE8)]),
]


@pytest.mark.parametrize(
    "terms", [row[1] for row in MALFORMED], ids=[f"node-deployment-9-{row[0]}" for row in MALFORMED]
)
def test_malformed_expressions_are_an_error_unless_something_else_matches(terms: list[k8s.NodeSelectorTerm]) -> None:
    with pytest.raises(Refusal, match="no valid expression"):
        affinity.matches(k8s.NodeSelector(terms), LABELS)


SEGMENTS: list[tuple[str, list[k8s.NodeSelectorTerm], list[Term]]] = [
    ("one", [term(NODE7)], [(("acme.test/node", "node-7"),)]),
    ("sorted", [term(("b", "In", ["1"]), ("a", "In", ["2"]))], [(("a", "2"), ("b", "1"))]),
    ("several", [term(NODE8), term(NODE7)], [(("acme.test/node", "node-8"),), (("acme.test/node", "node-7"),)]),
    ("fields", [term(NODE7, fields=True)], []),
    ("other-operator", [term(("a", "Exists", None)), term(NODE7)], [(("acme.test/node", "node-7"),)]),
    ("several-values", [term(("a", "In", ["1", "2"]))], []),
    ("no-value", [term(NODE7, BROKEN)], []),
    ("no-terms", [], []),
]


@pytest.mark.parametrize(
    ("terms", "expected"), [row[1:] for row in SEGMENTS], ids=[f"capacity-10-{row[0]}" for row in SEGMENTS]
)
def test_segments(terms: list[k8s.NodeSelectorTerm], expected: list[Term]) -> None:
    assert affinity.segments(k8s.VolumeNodeAffinity(required=k8s.NodeSelector(terms))) == expected


def test_an_affinity_without_terms_names_no_segment() -> None:
    """capacity.md 10."""
    assert affinity.segments(k8s.VolumeNodeAffinity()) == []
