"""Topology.md 6: the rotation by the claim's name."""

import pytest

from csi_provisioner.planning import fnv, spreading

from .clusters import SPEC

ROWS = [pytest.param(*row, id=f"topology-6-{row[0]}") for row in SPEC["hashes"]]


def test_there_are_fifteen_rows() -> None:
    assert len(ROWS) == 15


@pytest.mark.parametrize(("name", "text", "hashed", "index", "two", "three", "four", "five"), ROWS)
def test_row(name: str, text: str, hashed: int, index: int, two: int, three: int, four: int, five: int) -> None:
    assert spreading.parse(name) == (text, index)
    assert fnv.fnv1(text) == hashed
    assert [spreading.shift(name, terms) for terms in (2, 3, 4, 5)] == [two, three, four, five]


@pytest.mark.parametrize(
    ("text", "expected"), [("hello", 0xB6FA7167), ("", 2166136261)], ids=["topology-6-hello", "topology-6-empty"]
)
def test_fnv1_and_not_fnv1a(text: str, expected: int) -> None:
    assert fnv.fnv1(text) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web-+1", ("web-+1", 0)),
        ("web-1_0", ("web-1_0", 0)),
        ("web-1 ", ("web-1 ", 0)),
        ("web-\u0661", ("web-\u0661", 0)),
        ("web-", ("web-", 0)),
        ("-7", ("", 7)),
        ("web-00000000000004294967295", ("web", 4294967295)),
        ("web-" + "9" * 200, ("web-" + "9" * 200, 0)),
        ("7", ("7", 0)),
    ],
    ids=["sign", "underscore", "blank", "other-digits", "nothing", "only-index", "zeros", "huge", "no-dash"],
)
def test_what_is_no_index_is_part_of_the_name(name: str, expected: tuple[str, int]) -> None:
    """topology.md 6."""
    assert spreading.parse(name) == expected
