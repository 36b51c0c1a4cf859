"""Canonical quantities against exact fractions: the same number, in its own family, with the largest exact suffix."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.api.quantities import QuantityError, canonical, parse

SUFFIXES = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "e-3", "E6"]


@given(st.integers(0, 10**15), st.sampled_from(SUFFIXES), st.sampled_from(["", "-", "+"]))
def test_the_number_stays_the_same(digits: int, suffix: str, sign: str) -> None:
    text = f"{sign}{digits}{suffix}"
    number, _ = parse(text)
    assert parse(canonical(text))[0] == number


@given(st.decimals(0, 10**9, places=6, allow_nan=False), st.sampled_from(SUFFIXES))
def test_canonical_is_canonical(number: object, suffix: str) -> None:
    once = canonical(f"{number:f}{suffix}")
    assert canonical(once) == once
    assert "." not in once


@given(st.integers(1, 10**18))
def test_a_decimal_number_ends_in_no_thousand(number: int) -> None:
    text = canonical(number)
    digits = text.rstrip("kMGTPE")
    assert not digits.endswith("000") or text.endswith("E")


@given(st.fractions(0, 1000))
def test_rounding_goes_up_to_a_billionth(fraction: Fraction) -> None:
    text = f"{float(fraction):.12f}"
    rounded, exact = parse(text)[0], Fraction(text)
    assert 0 <= rounded - exact < Fraction(1, 10**9)


@pytest.mark.parametrize("text", ["", " ", "Gi", "1 Gi", "1gi", "1.2.3", "e3", "1e", "0x10", "1_000", "NaN"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(QuantityError):
        parse(text)
