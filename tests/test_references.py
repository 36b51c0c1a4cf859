"""Every reference leads somewhere: `process.md 5.3`, `design.md 3, rule 4`, `quirk Q7`, links of documents."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SPECS = DOCS / "spec"
RECORDED = (ROOT / "tests" / "conformance", ROOT / "tests" / "controlplane", ROOT / "tests" / "journal")
TEXTS = ("*.py", "*.md", "*.yaml", "*.toml", "*.proto", "Dockerfile", "run")
SKIPPED = {".git", ".venv", ".nox", "build", "dist"}

SECTION = re.compile(r"\b([A-Za-z][a-z-]*)\.md,?(?: sections?)? ([A-Z]?\d+(?:\.\d+)*)\b")
RULE = re.compile(r"\bdesign\.md(?: section)? 3,? rule (\d+)")
QUIRK = re.compile(r"\b[Qq]uirks? (Q\d+)")
PAGE = re.compile(r"(?<![\w/.-])docs/[\w/.-]+\.(?:md|yaml|json|png)\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def texts() -> Iterator[Path]:
    for pattern in TEXTS:
        for path in ROOT.rglob(pattern):
            parts = path.relative_to(ROOT).parts
            if not SKIPPED & set(parts) and not any(folder in path.parents for folder in RECORDED):
                yield path


@cache
def sections(name: str) -> frozenset[str]:
    """Numbers that a document has: of headings, of list items below them (`4.2`), of rows that begin with one."""
    path = next((path for path in (SPECS / name, DOCS / name) if path.exists()), None)
    found, heading = set(), ""
    for line in path.read_text().splitlines() if path else ():
        if match := re.match(r"#+ (?:Quirk )?([A-Z]?\d+(?:\.\d+)*)\b", line):
            heading = match[1]
            found.add(heading)
        elif match := re.match(r"\s*(?:- )?\**(?:\| )?([A-Z]?\d+(?:\.\d+)*)\b", line):
            found |= {f"{heading}.{match[1]}"} | ({match[1]} if match[1][0].isalpha() else set())
    return frozenset(found)


def missing(text: str) -> list[str]:
    """The references of a text that lead nowhere, but for links."""
    asked = [(f"{name.lower()}.md", number) for name, number in SECTION.findall(text)]
    wrong = [f"{name} {number}" for name, number in asked if number not in sections(name)]
    wrong += [f"rule {number}" for number in RULE.findall(text) if f"3.{number}" not in sections("design.md")]
    return wrong + [f"quirk {name}" for name in QUIRK.findall(text) if name not in sections("provision.md")]


def test_sections_rules_and_quirks_exist() -> None:
    wrong = {str(path.relative_to(ROOT)): found for path in texts() if (found := missing(path.read_text()))}
    assert wrong == {}


@pytest.mark.parametrize(
    "text",
    ["process" + ".md 99.9", "nowhere" + ".md 1", "design.md 3 " + "rule 77", "quirk" + " Q99"],
    ids=["section", "document", "rule", "quirk"],
)
def test_what_leads_nowhere_is_found(text: str) -> None:
    assert missing(text)


@pytest.mark.parametrize("folder", ["tutorial", "how-to", "reference", "explanation", "spec"])
def test_the_index_links_every_page(folder: str) -> None:
    linked = {target.partition("#")[0] for target in LINK.findall((DOCS / "index.md").read_text())}
    pages = {path.relative_to(DOCS).as_posix() for path in (DOCS / folder).rglob("*.md")}
    assert pages - linked == set()


def test_pages_that_texts_name_exist() -> None:
    wrong = {f"{path.relative_to(ROOT)}: {name}" for path in texts() for name in PAGE.findall(path.read_text())}
    assert {line for line in wrong if not (ROOT / line.partition(": ")[2]).exists()} == set()


def test_links_of_documents_exist() -> None:
    wrong = []
    for path in texts():
        for target in LINK.findall(path.read_text()) if path.suffix == ".md" else ():
            file = target.partition("#")[0]
            if file and "://" not in file and not (path.parent / file).exists():
                wrong.append(f"{path.relative_to(ROOT)}: {target}")
    assert wrong == []
