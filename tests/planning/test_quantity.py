"""provision.md 10.1 and step 10: quantities against exact fractions."""

from contextlib import suppress
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.model.outcome import State
from csi_provisioner.planning import quantity
from csi_provisioner.planning.refusal import Refusal
from tests.planning.objects import claim

SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (5368709120, "5Gi"),
        (5905580032, "5632Mi"),
        (102400, "100Ki"),
        (5970004541, "5970004541"),
        (100, "100"),
        (0, "0"),
        (1 << 60, "1Ei"),
        (1500000000, "1500000000"),
    ],
)
def test_a_number_is_written_in_the_largest_unit(amount: int, text: str) -> None:
    """provision.md 10.1."""
    assert quantity.format(amount) == text
    assert quantity.parse(text) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        pytest.param("1", 1, id="plain"),
        pytest.param("+1", 1, id="sign"),
        pytest.param("1.5Gi", 3 << 29, id="binary fraction"),
        pytest.param("0.5", 1, id="rounded up"),
        pytest.param("1n", 1, id="a billionth is one"),
        pytest.param("1500m", 2, id="milli"),
        pytest.param("1e3", 1000, id="exponent"),
        pytest.param("1E3", 1000, id="exponent in capitals"),
        pytest.param("1.25e-1", 1, id="negative exponent"),
        pytest.param("2E", 2 * 10**18, id="E alone is exa"),
        pytest.param("2Ei", 2 << 60, id="exbi"),
        pytest.param(".5k", 500, id="no leading digit"),
        pytest.param("5.", 5, id="no digit after the point"),
        pytest.param("100E", quantity.LARGEST, id="capped at int64"),
        pytest.param("1e999999999", quantity.LARGEST, id="capped without computing it"),
        pytest.param("1e-999999999", 1, id="a tiny fraction is one"),
        pytest.param("0e999999999", 0, id="zero stays zero"),
    ],
)
def test_every_form_of_a_quantity_is_read(text: str, amount: int) -> None:
    """provision.md 10.1."""
    assert quantity.parse(text) == amount


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "Gi", "1gi", "1K", "1e", "1.2.3", "--1", "1Gi3", "9" * 200, "٣", "1\n"]
)
def test_unreadable(text: str) -> None:
    with pytest.raises(Refusal, match="as a quantity"):
        quantity.parse(text)


@given(st.integers(0, 10**20), st.integers(0, 12), st.sampled_from(sorted(SUFFIXES)))
def test_parse_equals_the_exact_fraction(digits: int, places: int, suffix: str) -> None:
    number = f"{digits:0{places + 1}d}"
    text = f"{number[:-places]}.{number[-places:]}" if places else number
    exact = Fraction(digits, 10**places) * SUFFIXES[suffix]
    assert quantity.parse(text + suffix) == min(ceil(exact), quantity.LARGEST)


@given(st.integers(0, 10**12), st.integers(-30, 30))
def test_parse_exponents_exactly(digits: int, exponent: int) -> None:
    exact = ceil(Fraction(digits) * Fraction(10) ** exponent)
    assert quantity.parse(f"{digits}e{exponent}") == min(exact, quantity.LARGEST)


@given(st.integers(0, quantity.LARGEST))
def test_format_round_trips(amount: int) -> None:
    assert quantity.parse(quantity.format(amount)) == amount


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(Refusal):
        assert abs(quantity.parse(text)) <= quantity.LARGEST


@given(st.integers(0, 10**40), st.sampled_from(sorted(SUFFIXES)))
def test_a_size_is_asked_for_as_it_is_or_refused(digits: int, suffix: str) -> None:
    """provision.md 8, step 10."""
    text = f"{digits}{suffix}"
    exact = ceil(digits * SUFFIXES[suffix])
    if exact <= quantity.LARGEST:
        assert quantity.requested(claim(size=text)) == exact
        return
    with pytest.raises(Refusal, match=f"claim shop/a asks for {text} of storage") as refused:
        quantity.requested(claim(size=text))
    assert refused.value.state is State.FINISHED


@pytest.mark.parametrize(("size", "asked"), [("1", 1), (None, None), ("9223372036854775807", quantity.LARGEST)])
def test_the_size_asked_for_is_a_number(size: str | None, asked: int | None) -> None:
    """provision.md 8, step 10."""
    assert quantity.requested(claim(size=size)) == asked
