"""The overlays of `kustomize/`, as kubectl renders them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.controlplane import REPOSITORY, ControlPlane

pytestmark = pytest.mark.cluster


def rights(plane: ControlPlane, overlay: str) -> Iterator[tuple[str, str]]:
    """Kind of role and resource."""
    for document in rendered(plane, REPOSITORY / "kustomize" / overlay):
        for rule in document.get("rules", []):
            yield from ((document["kind"], resource) for resource in rule["resources"])


def rendered(plane: ControlPlane, folder: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(plane.kubectl("kustomize", str(folder))))


def test_capacity_is_published_in_one_namespace(control_plane: ControlPlane) -> None:
    given = set(rights(control_plane, "capacity"))
    assert given == {("Role", "csistoragecapacities"), ("Role", "pods"), ("Role", "replicasets")}


def test_node_deployment_does_not_see_nodes(control_plane: ControlPlane) -> None:
    central = {*rights(control_plane, "base"), *rights(control_plane, "capacity")}
    less = central - set(rights(control_plane, "node-deployment"))
    assert less == {("ClusterRole", "nodes"), ("ClusterRole", "csinodes")}


@pytest.mark.parametrize("base", [["base", "capacity"], ["node-deployment"]])
def test_they_go_together_in_the_drivers_namespace(
    control_plane: ControlPlane, tmp_path: Path, base: list[str]
) -> None:
    shutil.copytree(REPOSITORY / "kustomize", tmp_path / "kustomize")
    parts = [f"kustomize/{name}" for name in [*base, "secrets", "reference-grants"]]
    (tmp_path / "kustomization.yaml").write_text(json.dumps({"namespace": "storage", "resources": parts}))
    objects = rendered(control_plane, tmp_path)
    [account] = [obj["metadata"]["namespace"] for obj in objects if obj["kind"] == "ServiceAccount"]
    subjects = [subject["namespace"] for obj in objects for subject in obj.get("subjects", [])]
    assert [account, *subjects] == ["storage"] * 6
