"""As much of PromQL as tells which metrics and labels an expression names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?(\s*\[[^\]]*\])?")
_GROUPING = re.compile(r"\b(by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_MATCHER = re.compile(r'([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


@dataclass(frozen=True)
class Selector:
    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors(expression: str) -> Iterator[Selector]:
    rest = _GROUPING.sub(" ", expression)
    for match in _SELECTOR.finditer(rest):
        name, matchers = match[1], match[2] or ""
        if (
            name not in _WORDS
            and not rest[match.end() :].lstrip().startswith("(")
            and rest[match.start() - 1 : match.start()] not in tuple("0123456789")
        ):
            yield Selector(name, tuple(_MATCHER.findall(matchers)))


def groupings(expression: str) -> set[str]:
    """Labels by which is added up or joined."""
    return {
        label.strip() for _, labels in _GROUPING.findall(expression) for label in labels.split(",") if label.strip()
    }


def mentioned(text: str) -> set[str]:
    """Labels in a legend or an annotation."""
    return set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text)) - {"value"}
