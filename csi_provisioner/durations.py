"""Durations as the command line writes them: `1h10m`, `1.5s`, `300ms` (process.md 1.2), as seconds."""

import re
from typing import Final

_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # U+00B5
    "μs": 10**3,  # U+03BC
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = r"(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)"
_LONGEST = 2**63  # nanoseconds, about 292 years; one less on the positive side


def parse(text: str) -> float:
    """Seconds; ValueError with a reason a person can use."""
    rest = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    negative = text.startswith("-")
    if rest == "0":
        return 0.0
    if not rest:
        raise ValueError("a duration is a number with a unit, such as 10s or 1m30s")
    if not re.fullmatch(f"({_PART})+", rest):
        raise ValueError("a duration needs numbers each with a unit of ns, us, ms, s, m or h, such as 10s or 1m30s")
    # In integers: a float loses nanoseconds in long durations.
    nanoseconds: int = sum(
        int(whole or 0) * _UNITS[unit] + int(fraction or 0) * _UNITS[unit] // 10 ** len(fraction)
        for whole, fraction, unit in re.findall(_PART, rest)
    )
    if nanoseconds > (_LONGEST if negative else _LONGEST - 1):
        raise ValueError("a duration cannot be longer than about 292 years")
    return (-nanoseconds if negative else nanoseconds) / 1e9


def show(seconds: float) -> str:
    """`10s`, `5m0s`, `1h30m0s`, `1.5s`, `300ms`: as the reference prints them."""
    nanoseconds = round(seconds * 1e9)
    sign, nanoseconds = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if nanoseconds == 0:
        return "0s"
    for unit in ("ns", "µs", "ms"):
        if nanoseconds < 1000 * _UNITS[unit]:
            return f"{sign}{_decimal(nanoseconds, _UNITS[unit])}{unit}"
    minutes, rest = divmod(nanoseconds, _UNITS["m"])
    text = f"{_decimal(rest, _UNITS['s'])}s"
    if minutes:
        text = f"{minutes % 60}m{text}"
    if minutes >= 60:
        text = f"{minutes // 60}h{text}"
    return sign + text


def _decimal(amount: int, unit: int) -> str:
    whole, fraction = divmod(amount, unit)
    digits = f"{fraction:0{len(str(unit)) - 1}}".rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)
