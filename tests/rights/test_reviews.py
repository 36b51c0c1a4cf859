"""On a real API server: take one verb out of one role, and of all that the daemon asks for just that is refused.

So no role holds a verb that the daemon does not ask for, and none that another one holds as well.
"""

import copy
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import trio

from csi_provisioner.kube.client import KubeClient, connect, resolve
from csi_provisioner.kube.reviews import is_allowed
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.rights import Right, wanted
from csi_provisioner.settings import ClusterSettings, Settings
from tests.cluster.controlplane import ControlPlane
from tests.rights.granted import Granted, granted
from tests.rights.life import CONFIG, GROUPS, LEASE

pytestmark = pytest.mark.cluster

FACTS = DriverFacts(CONFIG.name, controller=frozenset(map(str, CONFIG.controller)), topology=True)
MERGE = "application/merge-patch+json"
# Secrets are asked for when a class names one.
ASKED = [*wanted(Settings(**GROUPS), FACTS, LEASE), Right("get", "secrets")]


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


@pytest.fixture
async def provisioner(anyio_backend: str, control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    settings = ClusterSettings(kubeconfig=str(control_plane.provisioner_kubeconfig))
    client = connect(resolve(settings), user_agent="csi-provisioner/test")
    yield client
    client.close()


async def refused(client: KubeClient) -> set[tuple[str, str]]:
    found = set()
    for right in ASKED:
        if not await is_allowed(client, right.verb, right.resource, right.group, right.namespace, right.name):
            found.add((right.verb, right.resource))
    return found


def _has(rule: dict[str, Any], right: Granted) -> bool:
    there = right.verb in rule["verbs"], right.resource in rule["resources"], right.group in rule["apiGroups"]
    return all(there)


@pytest.fixture
async def taken(provisioner: KubeClient, control_plane: ControlPlane, right: Granted) -> AsyncIterator[Granted]:
    [role] = [role for role in control_plane.rights if any(_has(rule, right) for rule in role.get("rules", []))]
    less = copy.deepcopy(role["rules"])
    [rule] = [rule for rule in less if _has(rule, right)]
    rule["verbs"].remove(right.verb)
    async with httpx2.AsyncClient(
        verify=ssl.create_default_context(cafile=str(control_plane.ca_file)),
        headers={"Authorization": f"Bearer {control_plane.tokens['admin']}", "Content-Type": MERGE},
        trust_env=False,
    ) as admin:
        url = control_plane.server + _path(role)
        (await admin.patch(url, json={"rules": [rule for rule in less if rule["verbs"]]})).raise_for_status()
        yield right
        (await admin.patch(url, json={"rules": role["rules"]})).raise_for_status()


def _path(role: dict[str, Any]) -> str:
    place = f"namespaces/{role['metadata']['namespace']}/" if role["kind"] == "Role" else ""
    return f"/apis/rbac.authorization.k8s.io/v1/{place}{role['kind'].lower()}s/{role['metadata']['name']}"


async def _settled(client: KubeClient, expected: set[tuple[str, str]]) -> None:
    """The API server's own caches come a little later."""
    found = await refused(client)
    with trio.move_on_after(20):
        while found != expected:
            await trio.sleep(0.02)
            found = await refused(client)
    assert found == expected


@pytest.mark.parametrize("right", granted(), ids=str)
async def test_just_the_verb_that_is_taken_away_is_refused(provisioner: KubeClient, taken: Granted) -> None:
    await _settled(provisioner, {(taken.verb, taken.resource)})


async def test_nothing_is_refused_with_all_roles(provisioner: KubeClient) -> None:
    await _settled(provisioner, set())
