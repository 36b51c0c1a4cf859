"""The overlays of `kustomize/`, as kubectl renders them."""

from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.controlplane import REPOSITORY, ControlPlane

pytestmark = pytest.mark.cluster


def rights(plane: ControlPlane, overlay: str) -> Iterator[tuple[str, str]]:
    """Kind of role and resource."""
    for document in yaml.safe_load_all(plane.kubectl("kustomize", str(REPOSITORY / "kustomize" / overlay))):
        for rule in document.get("rules", []):
            yield from ((document["kind"], resource) for resource in rule["resources"])


def test_capacity_is_published_in_one_namespace(control_plane: ControlPlane) -> None:
    more = set(rights(control_plane, "capacity")) - set(rights(control_plane, "base"))
    assert more == {("Role", "csistoragecapacities"), ("Role", "pods"), ("Role", "replicasets")}


def test_node_deployment_does_not_see_nodes(control_plane: ControlPlane) -> None:
    less = set(rights(control_plane, "capacity")) - set(rights(control_plane, "node-deployment"))
    assert less == {("ClusterRole", "nodes"), ("ClusterRole", "csinodes")}
