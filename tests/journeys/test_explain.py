"""Broken claims on a real control plane, explained to the provisioner's own account and to one that may only ask."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.controlplane import COMPONENTS, KUSTOMIZE, RIGHTS, ControlPlane
from tests.journeys.objects import CLAIM, claim, from_snapshot
from tests.journeys.real import Real
from tests.journeys.world import Rule

pytestmark = pytest.mark.cluster

HERE = "--leader-election-namespace=default"
SECRET = "csi.storage.k8s.io/provisioner-secret"


@pytest.fixture
def explainer(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Path]:
    """Kubeconfig of an account with the rights of `kustomize/`, those of explain among them."""
    folder = tmp_path / "rights"
    folder.mkdir()
    base = os.path.relpath(KUSTOMIZE, folder)
    parts = [f"{base}/components/{name}" for name in (*COMPONENTS, "explain")]
    wanted = {"resources": [f"{base}/base"], "components": parts, "namePrefix": "explain-"}
    rights = [obj for obj in control_plane.rendered(folder, wanted) if obj["kind"] in RIGHTS]
    [account] = [obj["metadata"] for obj in rights if obj["kind"] == "ServiceAccount"]
    control_plane.apply(*rights)
    user = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    yield control_plane.kubeconfig("explainer", credential={"token": control_plane.tokens["admin"], "as": user})
    control_plane.delete(*rights)


async def explained(world: Real, name: str, *flags: str) -> tuple[int, dict[str, Any]]:
    code, out = await world.command("explain", f"{world.api.ns}/{name}", HERE, "-o", "json", *flags)
    return code, json.loads(out) if out else {}


async def test_broken_claims_name_their_cause(real_world: Real, explainer: Path) -> None:
    world = real_world
    await world.start(HERE)
    fast = await world.storage_class()
    late = await world.storage_class("late", volumeBindingMode="WaitForFirstConsumer")
    parameters = {f"{SECRET}-name": "gone", f"{SECRET}-namespace": world.api.ns}
    locked = await world.storage_class("locked", parameters=parameters)
    world.rules(Rule(match="unlucky", error="RESOURCE_EXHAUSTED"))
    for name, class_, spec in (
        ("fine", fast, {}),
        ("unlucky", fast, {}),
        ("classless", f"{fast}-gone", {}),
        ("waits", late, {}),
        ("locked", locked, {}),
        ("restored", fast, from_snapshot("none")),
    ):
        await world.claim(name, class_, **spec)
    await world.create(CLAIM, claim("static", ""))
    await world.bound("fine")
    for name in ("unlucky", "locked", "restored"):
        await world.event(name, "ProvisioningFailed")
    expected = {
        "fine": (0, "bind"),
        "unlucky": (4, "call"),
        "classless": (4, "class"),
        "waits": (3, "node"),
        "locked": (4, "secret"),
        "restored": (4, "source"),
        "static": (3, "class"),
    }
    found = {name: await explained(world, name) for name in expected}
    assert {name: (code, said["reason"]) for name, (code, said) in found.items()} == expected
    assert "ResourceExhausted" in found["unlucky"][1]["cause"]
    unknown = [step["text"] for step in found["waits"][1]["steps"] if step["status"] == "not known"]
    assert unknown[-1].startswith("no right to list pods")
    assert (await explained(world, "nobody"))[0] == 5
    # Another account, so that nothing is asked of the provisioner, and its last event stands in.
    world.kubeconfig = explainer
    found = {name: await explained(world, name) for name in expected}
    assert {name: (code, said["reason"]) for name, (code, said) in found.items()} == expected
    assert found["waits"][1]["cause"].endswith("no pod uses the claim")
    assert (await world.command("explain", f"--class={fast}", "--size=1Gi", HERE))[0] == 0
