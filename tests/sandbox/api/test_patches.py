"""Patches as pure functions, where a real server is not needed to know the answer: the RFCs' own examples."""

from typing import Any

import pytest

from sandbox.api.errors import ApiError
from sandbox.api.patches import json_patch, merge, strategic

# RFC 7396, appendix A
MERGES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("document", "patch", "result"), MERGES)
def test_merge(document: Any, patch: Any, result: Any) -> None:
    assert merge(document, patch) == result


# RFC 6902, appendix A
OPERATIONS: list[tuple[Any, list[dict[str, Any]], Any]] = [
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    ({"foo": [1, 3]}, [{"op": "add", "path": "/foo/1", "value": 2}], {"foo": [1, 2, 3]}),
    ({"foo": [1]}, [{"op": "add", "path": "/foo/-", "value": [2]}], {"foo": [1, [2]]}),
    ({"baz": 1, "foo": 2}, [{"op": "remove", "path": "/baz"}], {"foo": 2}),
    ({"foo": [1, 2, 3]}, [{"op": "remove", "path": "/foo/1"}], {"foo": [1, 3]}),
    ({"a": 1}, [{"op": "replace", "path": "/a", "value": 2}], {"a": 2}),
    ({"a": [1, 2]}, [{"op": "replace", "path": "/a/1", "value": 3}], {"a": [1, 3]}),
    ({"a": {"b": 1}, "c": {}}, [{"op": "move", "from": "/a/b", "path": "/c/d"}], {"a": {}, "c": {"d": 1}}),
    ({"a": [1, 2, 3, 4]}, [{"op": "move", "from": "/a/1", "path": "/a/3"}], {"a": [1, 3, 4, 2]}),
    ({"a": 1}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": 1, "b": 1}),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    ({"m": {"a/b": 1}}, [{"op": "remove", "path": "/m/a~1b"}], {"m": {}}),
    ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
]


@pytest.mark.parametrize(("document", "operations", "result"), OPERATIONS)
def test_json_patch(document: Any, operations: list[dict[str, Any]], result: Any) -> None:
    assert json_patch(document, operations) == result


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a", "value": 2},
        {"op": "remove", "path": "/b"},
        {"op": "remove", "path": ""},
        {"op": "replace", "path": "/b", "value": 1},
        {"op": "add", "path": "/l/9", "value": 1},
        {"op": "add", "path": "/a/b", "value": 1},
        {"op": "add", "path": "/c"},
        {"op": "jump", "path": "/a"},
        {"op": "add", "path": "c", "value": 1},
        {"path": "/a"},
    ],
    ids=str,
)
def test_operations_that_cannot_be_applied(operation: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        json_patch({"a": 1, "l": [1]}, [operation])


STRATEGIC: list[tuple[Any, Any, Any]] = [
    ({"a": {"b": 1}}, {"a": {"$patch": "replace", "c": 2}}, {"a": {"c": 2}}),
    ({"a": {"b": 1}}, {"a": {"$patch": "delete"}}, {"a": {}}),
    ({"a": {"b": 1, "c": 2}}, {"a": {"$retainKeys": ["c", "d"], "d": 3}}, {"a": {"c": 2, "d": 3}}),
    ({"spec": {"accessModes": [1, 2]}}, {"spec": {"accessModes": [3]}}, {"spec": {"accessModes": [3]}}),
    (
        {"status": {"conditions": [{"type": "A", "x": 1}, {"type": "B"}]}},
        {"status": {"conditions": [{"type": "A", "y": 2}]}},
        {"status": {"conditions": [{"type": "A", "x": 1, "y": 2}, {"type": "B"}]}},
    ),
    (
        {"status": {"conditions": [{"type": "A"}]}},
        {"status": {"conditions": [{"$patch": "replace"}, {"type": "B"}]}},
        {"status": {"conditions": [{"type": "B"}]}},
    ),
    ({}, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}, {"metadata": {}}),
]


@pytest.mark.parametrize(("document", "patch", "result"), STRATEGIC)
def test_strategic(document: Any, patch: Any, result: Any) -> None:
    assert strategic(document, patch) == result


def test_entries_of_merged_lists_need_their_key() -> None:
    with pytest.raises(ApiError):
        strategic({}, {"status": {"conditions": [{"status": "True"}]}})
