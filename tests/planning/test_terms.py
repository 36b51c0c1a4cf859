"""Topology.md 3 and 5: canonical terms, and allowedTopologies multiplied out."""

import pytest

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.planning import terms
from csi_provisioner.planning.terms import Term

Selector = list[tuple[str, list[str]]]

FLAT: list[tuple[str, list[Selector], list[Term]]] = [
    ("v-values", [[("z", ["1", "2"])]], [(("z", "1"),), (("z", "2"),)]),
    (
        "product",
        [[("z", ["1", "2"]), ("r", ["a", "b"])]],
        [(("r", r), ("z", z)) for z in ("1", "2") for r in ("a", "b")],
    ),
    (
        "several-selectors",
        [[("z", ["1"])], [("r", ["a"])], [("z", ["1"])]],
        [(("z", "1"),), (("r", "a"),), (("z", "1"),)],
    ),
    ("no-expressions", [[], [("z", ["1"])]], [(("z", "1"),)]),
    ("no-values-starts-afresh", [[("z", ["1"]), ("r", []), ("x", ["q"])]], [(("x", "q"),)]),
    ("no-values-last", [[("z", ["1"]), ("r", [])]], []),
    ("same-key-twice", [[("z", ["2"]), ("z", ["1"])]], [(("z", "1"), ("z", "2"))]),
    ("nothing", [], []),
]


@pytest.mark.parametrize(("given", "expected"), [r[1:] for r in FLAT], ids=[f"topology-5-{r[0]}" for r in FLAT])
def test_flatten(given: list[Selector], expected: list[Term]) -> None:
    selectors = [
        k8s.TopologySelectorTerm(
            matchLabelExpressions=[k8s.LabelSelectorRequirement(key=key, values=values) for key, values in selector]
        )
        for selector in given
    ]
    assert terms.flatten(selectors) == expected


def test_topology_5_a_selector_without_expressions_field() -> None:
    assert terms.flatten([k8s.TopologySelectorTerm()]) == []


def test_topology_5_the_larger_value_of_one_key_is_sent() -> None:
    assert terms.topology((("z", "1"), ("z", "2"))).segments == {"z": "2"}


def test_topology_3_shorter_first_then_bytewise_without_doubles() -> None:
    given: list[Term] = [
        (("a", "1"), ("b", "1")),
        (("z", "z-2"),),
        (("z", "z-10"),),
        (("z", "z-2"),),
        (("b", "9"),),
    ]
    assert terms.canonical(given) == ((("b", "9"),), (("z", "z-10"),), (("z", "z-2"),), (("a", "1"), ("b", "1")))


@pytest.mark.parametrize(
    ("key", "legal"),
    [
        ("zone", True),
        ("acme.test/zone", True),
        ("topology.kubernetes.io/Zone_1.x", True),
        ("a" * 63, True),
        ("a" * 64, False),
        ("a." * 126 + "a/zone", True),
        ("a." * 127 + "a/zone", False),
        ("Acme.test/zone", False),
        ("/zone", False),
        ("acme.test/", False),
        ("a/b/c", False),
        ("-zone", False),
        ("", False),
    ],
)
def test_topology_9_e6_label_keys(key: str, legal: bool) -> None:
    assert terms.is_label_key(key) is legal
