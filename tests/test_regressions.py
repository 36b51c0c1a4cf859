"""Every regression line has its row in regressions.md, and the tests that the rows name exist."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROWS = re.findall(
    r"^\| ((?:p19-[a-z]+|d13)-\d+) \| (.+) \| (.+) \|$", (HERE / "regressions.md").read_text(), re.MULTILINE
)
LINES = {"engine": 12, "request": 11, "sources": 9, "response": 5, "topology": 7, "migration": 6}
"""How many lines each part of provision.md 19 has; delete.md 13 has 18."""


def test_every_line_has_one_row() -> None:
    expected = [f"p19-{part}-{number}" for part, count in LINES.items() for number in range(1, count + 1)]
    assert [row[0] for row in ROWS] == expected + [f"d13-{number}" for number in range(1, 19)]


@pytest.mark.parametrize(("line", "tests"), [(row[0], row[2]) for row in ROWS], ids=[row[0] for row in ROWS])
def test_named_tests_exist(line: str, tests: str) -> None:
    for entry in tests.split(", "):
        if entry == "effects":
            continue
        path, _, name = entry.strip("`").partition("::")
        found = re.search(rf"^(?:async )?def {name}\(", (HERE.parent / path).read_text(), re.MULTILINE)
        assert found, f"{line} names {entry}, which is not there"
