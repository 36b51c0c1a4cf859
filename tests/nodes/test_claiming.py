"""Node-deployment.md 4, 5 and 14: whose claim it is."""

from typing import Any

import pytest

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.nodes import claiming
from csi_provisioner.nodes.claiming import Turn
from csi_provisioner.settings import NodeSettings

from .objects import ALPHA, NODE, SELECTED, claim, storage_class

ON, OFF = (
    NodeSettings(enabled=True, node_name=NODE),
    NodeSettings(enabled=True, node_name=NODE, immediate_binding=False),
)
LATE, AT_ONCE, UNSET = storage_class("WaitForFirstConsumer"), storage_class(), storage_class(None)

ROWS: list[tuple[str, k8s.PersistentVolumeClaim, k8s.StorageClass | None, NodeSettings, Turn]] = [
    ("own-late-binding", claim("node-7"), LATE, ON, Turn.OURS),
    ("own-immediate", claim("node-7"), AT_ONCE, ON, Turn.OURS),
    ("own-flag-off", claim("node-7"), AT_ONCE, OFF, Turn.OURS),
    ("own-class-missing", claim("node-7"), None, ON, Turn.OURS),
    ("other", claim("node-8"), AT_ONCE, ON, Turn.OTHERS),
    ("other-class-missing", claim("node-8"), None, ON, Turn.OTHERS),
    ("none-late-binding", claim(), LATE, ON, Turn.OTHERS),
    ("none-unset-mode", claim(), UNSET, ON, Turn.OTHERS),
    ("none-flag-off", claim(), AT_ONCE, OFF, Turn.OTHERS),
    ("none-immediate", claim(), AT_ONCE, ON, Turn.OPEN),
    ("empty-immediate", claim(""), AT_ONCE, ON, Turn.OPEN),
    ("empty-late-binding", claim(""), LATE, ON, Turn.OTHERS),
    ("none-class-missing", claim(), None, ON, Turn.OURS),
    ("alpha-key-does-not-count", claim(**{ALPHA: "node-7"}), LATE, ON, Turn.OTHERS),
    ("alpha-key-does-not-hinder", claim(**{ALPHA: "node-8"}), AT_ONCE, ON, Turn.OPEN),
]


@pytest.mark.parametrize(
    ("given", "given_class", "settings", "expected"),
    [row[1:] for row in ROWS],
    ids=[f"node-deployment-4-{row[0]}" for row in ROWS],
)
def test_decide(
    given: k8s.PersistentVolumeClaim, given_class: k8s.StorageClass | None, settings: NodeSettings, expected: Turn
) -> None:
    assert claiming.decide(given, given_class, NODE, settings) is expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {SELECTED: "node-7"}),
        ({"annotations": None}, {SELECTED: "node-7"}),
        ({"annotations": {"a": "b", SELECTED: ""}}, {"a": "b", SELECTED: "node-7"}),
    ],
    ids=["node-deployment-5-no-annotations", "node-deployment-5-null", "node-deployment-5-others-stay"],
)
def test_take(before: dict[str, Any], after: dict[str, str]) -> None:
    untyped: dict[str, Any] = {"metadata": {"name": "c", **before}, "spec": {"x": 1}}
    assert claiming.take(untyped, NODE)
    assert untyped == {"metadata": {"name": "c", "annotations": after}, "spec": {"x": 1}}
