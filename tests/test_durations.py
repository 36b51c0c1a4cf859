"""Durations of the command line (process.md 1.2)."""

import pytest

from csi_provisioner.durations import parse, show


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("+0", 0),
        ("-0", 0),
        ("10s", 10),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1),
        ("300ms", 0.3),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("7μs", 7e-6),
        ("12ns", 1.2e-8),
        ("1h10m", 4200),
        ("1.5h10m3µs", 6000.000003),
        ("-1m30s", -90),
        ("+2s", 2),
        ("1.9999999999s", 1.999999999),
        ("2562047h47m16.854775807s", 9223372036.854775807),
        ("-2562047h47m16.854775808s", -9223372036.854775808),
    ],
)
def test_a_duration_of_go_is_read(text: str, seconds: float) -> None:
    """process.md 1.2."""
    assert parse(text) == pytest.approx(seconds, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "10",
        "1d",
        "s",
        ".s",
        "1 s",
        " 1s",
        "1s ",
        "1m 2s",
        "--1s",
        "1e3s",
        "1S",
        "٣s",
        "2562047h47m16.854775808s",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """process.md 1.2."""
    with pytest.raises(ValueError, match="duration"):
        parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (10, "10s"),
        (300, "5m0s"),
        (5400, "1h30m0s"),
        (1.5, "1.5s"),
        (0.25, "250ms"),
        (0.0015, "1.5ms"),
        (7e-6, "7µs"),
        (1.2e-8, "12ns"),
        (-90, "-1m30s"),
        (90000.25, "25h0m0.25s"),
    ],
)
def test_a_duration_is_printed_as_go_prints_it(seconds: float, text: str) -> None:
    """process.md 1.2."""
    assert show(seconds) == text
    assert parse(text) == pytest.approx(seconds)
