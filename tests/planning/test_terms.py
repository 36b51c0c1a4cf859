"""Topology.md 3 and 5: canonical terms, and allowedTopologies multiplied out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import classes, terms
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.terms import Term
from tests.planning.objects import driver, storage_class

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


@pytest.mark.parametrize(("selectors", "expected"), [r[1:] for r in FLAT], ids=[f"topology-5-{r[0]}" for r in FLAT])
def test_flatten(selectors: list[Selector], expected: list[Term]) -> None:
    assert terms.flatten(_selectors(selectors)) == expected


def test_a_selector_without_expressions_gives_no_term() -> None:
    """topology.md 5."""
    assert terms.flatten([k8s.TopologySelectorTerm()]) == []


def test_the_larger_value_of_one_key_is_sent() -> None:
    """topology.md 5."""
    assert terms.topology((("z", "1"), ("z", "2"))).segments == {"z": "2"}


def test_terms_are_sorted_by_length_then_bytewise_without_doubles() -> None:
    """topology.md 3."""
    found: list[Term] = [
        (("a", "1"), ("b", "1")),
        (("z", "z-2"),),
        (("z", "z-10"),),
        (("z", "z-2"),),
        (("b", "9"),),
    ]
    assert terms.canonical(found) == ((("b", "9"),), (("z", "z-10"),), (("z", "z-2"),), (("a", "1"), ("b", "1")))


def _selectors(given: list[Selector]) -> list[k8s.TopologySelectorTerm]:
    return [
        k8s.TopologySelectorTerm(
            matchLabelExpressions=[k8s.LabelSelectorRequirement(key=key, values=values) for key, values in selector]
        )
        for selector in given
    ]


EXPRESSIONS = st.tuples(st.sampled_from("zrx"), st.lists(st.sampled_from("1234"), max_size=4))


@given(st.lists(st.lists(EXPRESSIONS, max_size=4), max_size=3), st.integers(0, 300))
def test_terms_are_counted_as_they_would_be_made(selectors: list[Selector], most: int) -> None:
    """topology.md 5."""
    found = _selectors(selectors)
    assert terms.too_many(found, most) is (len(terms.flatten(found)) > most)


def test_a_count_that_has_no_end_is_not_counted_to_the_end() -> None:
    """topology.md 5."""
    assert terms.too_many(_selectors([[(f"k{number}", ["1", "2"]) for number in range(50_000)]]))


@pytest.mark.parametrize(("length", "refused"), [(100, False), (101, True)])
def test_a_class_with_too_many_terms_is_refused_by_its_name(length: int, refused: bool) -> None:
    """topology.md 9 (E9)."""
    values = [str(number) for number in range(length)]
    selectors = _selectors([[("z", values), ("r", values[:100])]])
    read = classes.read(storage_class(allowedTopologies=selectors), driver(topology=True)).allowed
    if not refused:
        assert isinstance(read, terms.Allowed)
        assert len(read.messages) == len(read.terms) == terms.MOST
        return
    assert isinstance(read, Refusal)
    assert read.state is State.NO_CHANGE
    assert read.message.startswith("error generating accessibility requirements: ")
    assert "StorageClass fast" in read.message


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
def test_illegal_label_keys_are_found(key: str, legal: bool) -> None:
    """topology.md 9 (E6)."""
    assert terms.is_label_key(key) is legal
