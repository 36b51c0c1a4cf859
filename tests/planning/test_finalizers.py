"""provision.md 12: one finalizer put on or taken off an untyped object, everything else kept."""

from typing import Any

import pytest

from csi_provisioner.planning import finalizers


@pytest.mark.parametrize(
    ("metadata", "after"),
    [
        pytest.param({}, ["f"], id="none"),
        pytest.param({"finalizers": None}, ["f"], id="null"),
        pytest.param({"finalizers": ["x"]}, ["x", "f"], id="appended"),
        pytest.param({"finalizers": ["f", "x"]}, None, id="already there"),
    ],
)
def test_add(metadata: dict[str, Any], after: list[str] | None) -> None:
    raw = {"metadata": dict(metadata), "spec": {"unknown": 1}}
    assert finalizers.add(raw, "f") is (after is not None)
    assert raw == {"metadata": metadata | ({"finalizers": after} if after else {}), "spec": {"unknown": 1}}


@pytest.mark.parametrize(
    ("metadata", "after"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"finalizers": ["x"]}, None, id="not there"),
        pytest.param({"finalizers": ["a", "f", "b"]}, ["a", "b"], id="others kept in order"),
        pytest.param({"finalizers": ["f"]}, [], id="the only one"),
    ],
)
def test_remove(metadata: dict[str, Any], after: list[str] | None) -> None:
    raw = {"metadata": dict(metadata), "spec": {"unknown": 1}}
    assert finalizers.remove(raw, "f") is (after is not None)
    assert raw == {"metadata": metadata | ({} if after is None else {"finalizers": after}), "spec": {"unknown": 1}}


def test_lists_are_not_shared_with_the_given_object_p19_sources_8() -> None:
    listed = ["x"]
    raw = {"metadata": {"finalizers": listed}}
    finalizers.add(raw, "f")
    finalizers.remove(raw, "x")
    assert (listed, raw["metadata"]["finalizers"]) == (["x"], ["f"])
