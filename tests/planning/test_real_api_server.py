"""What only the real API server can confirm: it takes our volume, and our patches touch one finalizer alone."""

import json
from typing import Any

import msgspec
import pytest

from csi_provisioner.model import csi
from csi_provisioner.planning import deletion, verdict, volume
from tests.cluster.controlplane import ControlPlane
from tests.planning.objects import SETTINGS, draft, driver, plan, response

pytestmark = pytest.mark.cluster

OURS = "external-provisioner.volume.kubernetes.io/finalizer"
PROTECTION = "kubernetes.io/pv-protection"


@pytest.fixture
def stored(control_plane: ControlPlane) -> Any:
    facts = driver(topology=True)
    planned = plan(draft(facts=facts))
    answer = response(accessible_topology=[csi.Topology(segments={"acme.test/zone": "a"})])
    made = verdict.judge(planned, answer)
    pv = volume.compose(planned, made, facts, "identity", SETTINGS)
    control_plane.kubectl(
        "create",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "PersistentVolume"} | msgspec.to_builtins(pv)),
    )
    yield json.loads(control_plane.kubectl("get", "pv", pv.metadata.name, "-o", "json"))
    empty = json.dumps({"metadata": {"finalizers": None}})
    control_plane.kubectl("patch", "pv", pv.metadata.name, "--type=merge", "-p", empty)
    control_plane.kubectl("delete", "pv", pv.metadata.name, "--ignore-not-found")


def test_the_api_server_takes_the_volume_as_it_is(stored: dict[str, Any]) -> None:
    """provision.md 10."""
    assert set(stored["metadata"]["finalizers"]) == {OURS, PROTECTION}
    assert stored["spec"]["capacity"] == {"storage": "5Gi"}
    assert stored["spec"]["csi"]["volumeHandle"] == "h"
    [term] = stored["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term == {"matchExpressions": [{"key": "acme.test/zone", "operator": "In", "values": ["a"]}]}


def test_patches_leave_others_alone_d13_9(control_plane: ControlPlane, stored: dict[str, Any]) -> None:
    """delete.md 4."""
    name = stored["metadata"]["name"]

    def finalizers_after(patch: dict[str, Any], kind: str = "strategic") -> list[str]:
        control_plane.kubectl("patch", "pv", name, f"--type={kind}", "-p", json.dumps(patch))
        found = json.loads(control_plane.kubectl("get", "pv", name, "-o", "json"))
        # the cluster's own controller puts its finalizer back whenever it likes
        return [entry for entry in found["metadata"].get("finalizers", []) if entry != PROTECTION]

    assert finalizers_after({"metadata": {"finalizers": ["acme.test/a", OURS, "acme.test/b"]}}, "merge")
    remove, add = deletion.finalizer_patch("remove"), deletion.finalizer_patch("add")
    assert finalizers_after(remove) == ["acme.test/a", "acme.test/b"]
    assert finalizers_after(remove) == ["acme.test/a", "acme.test/b"]
    assert sorted(finalizers_after(add)) == sorted(["acme.test/a", "acme.test/b", OURS])
    assert finalizers_after({"metadata": {"finalizers": [OURS]}}, "merge") == [OURS]
    assert finalizers_after(remove) == []
