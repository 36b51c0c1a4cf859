"""Label and field selectors: text in, a predicate over objects out.

Label selectors know the equality and the set form; field selectors the few fields each kind declares, anything else is
refused as the API server refuses it. Nothing here reads the storage.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.api.errors import Object, bad_request

Predicate = Callable[[Object], bool]

# one requirement: !key | key | key op value | key in (a,b)
_REQUIREMENT = re.compile(
    r"\s*(?:!\s*(?P<absent>[^\s,!=()]+)"
    r"|(?P<key>[^\s,!=()]+)(?:\s*(?P<op>==|=|!=)\s*(?P<value>[^\s,!=()]*)"
    r"|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)
_FIELD = re.compile(r"(?P<field>[^=!]+?)(?P<op>==|=|!=)(?P<value>.*)")


def labels(text: str) -> Predicate | None:
    """The predicate of a label selector; None when it selects everything."""
    if not text.strip():
        return None
    tests: list[Callable[[Mapping[str, str]], bool]] = []
    position = 0
    while position < len(text):
        match = _REQUIREMENT.match(text, position)
        if match is None:
            raise bad_request(f"unable to parse requirement: {text[position:]!r}")
        tests.append(_label_test(match))
        position = match.end()
    return lambda obj: all(test(obj["metadata"].get("labels") or {}) for test in tests)


def _label_test(match: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    absent, key, operator, value = match["absent"], match["key"], match["op"], match["value"]
    if absent:
        return lambda labels: absent not in labels
    if match["set"]:
        values = {part.strip() for part in match["values"].split(",")}
        if match["set"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if operator is None:
        return lambda labels: key in labels
    if operator == "!=":
        return lambda labels: labels.get(key) != value
    return lambda labels: labels.get(key) == value


def fields(text: str, known: frozenset[str]) -> Predicate | None:
    """The predicate of a field selector over the `known` fields; None when it selects everything."""
    tests: list[tuple[str, bool, str]] = []
    for part in filter(None, text.split(",")):
        match = _FIELD.fullmatch(part.strip())
        if match is None:
            raise bad_request(f"invalid selector: {part!r}; can't understand {part!r}")
        if match["field"] not in known:
            raise bad_request(f"field label not supported: {match['field']}")
        tests.append((match["field"], match["op"] != "!=", match["value"]))
    if not tests:
        return None
    return lambda obj: all((_value(obj, field) == value) is wanted for field, wanted, value in tests)


def _value(obj: Object, path: str) -> str:
    """What a field holds as text; a field that is not set is the empty text, as in the API."""
    at: Any = obj
    if path == "source":  # of an event: spelled short in selectors
        path = "source.component"
    for step in path.split("."):
        at = at.get(step) if isinstance(at, dict) else None
    return "" if at is None else str(at)


def both(first: Predicate | None, second: Predicate | None) -> Predicate | None:
    if first is None or second is None:
        return first or second
    one, two = first, second
    return lambda obj: one(obj) and two(obj)
