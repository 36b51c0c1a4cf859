"""Quantities in the form the API server stores them: the same number, written its own way (provision.md 10.1).

Decided here: parsing into an exact fraction and a family of suffixes (decimal, binary, exponent), and the canonical
text of that pair. Which fields of which kind hold quantities is `validation`'s matter.
"""

import re
from fractions import Fraction
from functools import lru_cache

_FORM = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?|[eE][+-]?[0-9]+)")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_EXPONENTS = {suffix: exponent for exponent, suffix in _DECIMAL.items()}
_NANO = Fraction(1, 10**9)
MILLI = Fraction(1, 1000)


class QuantityError(ValueError):
    """The text is no quantity; the message is the server's."""

    def __init__(self) -> None:
        super().__init__("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")


@lru_cache(maxsize=1024)  # clusters use few different sizes, and every write looks at them again
def parse(text: str, finest: Fraction = _NANO) -> tuple[Fraction, str]:
    """The number and its family: "binary", "decimal" or "exponent". What is finer than `finest` is rounded up, away
    from zero."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise QuantityError
    sign, digits, suffix = match.groups()
    number = Fraction(digits)
    if suffix in _EXPONENTS:
        number, family = number * Fraction(10) ** _EXPONENTS[suffix], "decimal"
    elif suffix in _BINARY:
        number, family = number * 1024 ** _BINARY.index(suffix), "binary"
    else:
        number, family = number * Fraction(10) ** int(suffix[1:]), "exponent"
    number = -(-number // finest) * finest
    return (-number if sign == "-" else number), family


@lru_cache(maxsize=1024)
def canonical(value: str | int | float, finest: Fraction = _NANO) -> str:
    """The text the server keeps for `value`: no fraction digits, the largest suffix of its family that is exact."""
    number, family = parse(str(value), finest)
    if number == 0:
        return "0"
    if family == "binary" and abs(number) >= 1024 and number.denominator == 1:
        return _binary(int(number))
    # small or broken binary numbers fall back to decimal suffixes, which can say them exactly
    return _decimal(number, exponent_form=family == "exponent")


def _binary(number: int) -> str:
    power = 0
    while number % 1024 == 0 and power + 1 < len(_BINARY):
        number //= 1024
        power += 1
    return f"{number}{_BINARY[power]}"


def _decimal(number: Fraction, *, exponent_form: bool) -> str:
    exponent = -9
    mantissa = int(number * 10**9)
    while mantissa % 1000 == 0 and (exponent < 18 or exponent_form):
        mantissa //= 1000
        exponent += 3
    if exponent_form:
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{_DECIMAL[exponent]}"
