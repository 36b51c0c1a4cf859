"""The throw-away control plane itself: up, with the kinds and the rights that the tests rely on."""

import json

import pytest

from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.cluster


def may(plane: ControlPlane, verb: str, resource: str) -> bool:
    namespace, name = plane.provisioner
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{name}",
            "resourceAttributes": {"verb": verb, "resource": resource, "namespace": namespace},
        },
    }
    answer = plane.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review))
    return bool(json.loads(answer)["status"]["allowed"])


def test_ready_with_the_snapshot_kinds(control_plane: ControlPlane) -> None:
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"
    assert "volumesnapshots" in control_plane.kubectl("api-resources", "--api-group=snapshot.storage.k8s.io")


def test_the_provisioner_has_its_own_rights_and_no_more(control_plane: ControlPlane) -> None:
    assert may(control_plane, "patch", "persistentvolumes")
    assert may(control_plane, "get", "secrets")
    assert not may(control_plane, "update", "persistentvolumes")
    assert not may(control_plane, "delete", "persistentvolumeclaims")


def test_the_api_server_comes_back_with_its_data(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    control_plane.restart_apiserver()
    assert "kept" in control_plane.kubectl("get", "configmap", "kept")
    control_plane.kubectl("delete", "configmap", "kept")
