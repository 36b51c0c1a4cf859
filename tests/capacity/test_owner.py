"""Capacity.md 3: the way from the pod to the owner of the objects, and what is asked on it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from csi_provisioner.capacity import owner
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.client import KubeClient, connect, resolve
from csi_provisioner.settings import ClusterSettings
from sandbox.driver import Config
from tests.bad_answers import BAD, Bad
from tests.embedded import VIRTUAL, Cluster
from tests.faults.spoiler import spoiler

SET = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "p", "uid": "2-2", "controller": True}
REPLICAS = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "p-77", "uid": "3-3", "controller": True}
DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "p", "uid": "4-4", "controller": True}
STRANGER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "notme", "uid": "5-5"}


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[KubeClient]:
    settings = cluster.settings(Config()).cluster
    client = connect(resolve(settings), user_agent="test")
    yield client
    client.close()


def pod(cluster: Cluster, *owners: dict[str, Any]) -> None:
    metadata = {"name": "p-0", "ownerReferences": [dict(owner) for owner in owners]}
    spec = {"containers": [{"name": "c", "image": "i"}]}
    cluster.objects.create("Pod", {"metadata": metadata, "spec": spec}, "ns1")


def replica_set(cluster: Cluster, *owners: dict[str, Any]) -> None:
    metadata = {"name": "p-77", "ownerReferences": [dict(owner) for owner in owners]}
    selector = {"matchLabels": {"app": "p"}}
    template = {"metadata": {"labels": {"app": "p"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": selector, "template": template}
    cluster.objects.create(
        "ReplicaSet", {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec}, "ns1"
    )


async def found(kube: KubeClient, level: int) -> tuple[str, str, str, str, bool | None]:
    reference = await owner.find(kube, "ns1", "p-0", level)
    assert reference is not None
    return reference.apiVersion, reference.kind, reference.name, reference.uid, reference.controller


async def test_no_owner_asks_nothing(cluster: Cluster, kube: KubeClient) -> None:
    """capacity.md 3."""
    assert await owner.find(kube, "ns1", "p-0", -1) is None
    assert len(cluster.server.calls) == 0


async def test_level_0_is_the_pod(cluster: Cluster, kube: KubeClient) -> None:
    """capacity.md 3."""
    pod(cluster)
    uid = cluster.objects.all("Pod")[0]["metadata"]["uid"]
    assert await found(kube, 0) == ("v1", "Pod", "p-0", uid, True)


async def test_level_1_is_copied_and_need_not_exist(cluster: Cluster, kube: KubeClient) -> None:
    """capacity.md 3."""
    pod(cluster, STRANGER, SET)
    assert await found(kube, 1) == ("apps/v1", "StatefulSet", "p", "2-2", True)
    assert [(call.verb, call.kind) for call in cluster.server.calls] == [("get", "Pod")]


async def test_level_2_is_the_deployment(cluster: Cluster, kube: KubeClient) -> None:
    """capacity.md 3."""
    pod(cluster, REPLICAS)
    replica_set(cluster, DEPLOYMENT)
    assert await found(kube, 2) == ("apps/v1", "Deployment", "p", "4-4", True)
    assert [call.kind for call in cluster.server.calls] == ["Pod", "ReplicaSet"]


@pytest.mark.parametrize(
    ("owners", "level", "text"),
    [
        ([STRANGER], 1, "Pod p-0 is controlled by nothing"),
        ([SET | {"controller": False}], 1, "Pod p-0 is controlled by nothing"),
        ([], 1, "Pod p-0 is controlled by nothing"),
        ([SET | {"kind": "Robot"}], 2, "the cluster has no kind Robot in apps/v1"),
        ([SET | {"apiVersion": "a/b/c"}], 2, "malformed apiVersion 'a/b/c'"),
        ([SET | {"apiVersion": "/v1"}], 2, "malformed apiVersion '/v1'"),
        ([SET | {"apiVersion": "../v1"}], 2, "cannot be a part of a URL"),
        ([SET | {"apiVersion": "apps/.."}], 2, "cannot be a part of a URL"),
        ([SET | {"name": "../../pods/p-0"}], 2, "cannot be a part of a URL"),
        ([SET | {"apiVersion": "none.acme.test/v1"}], 2, "cannot look up StatefulSet ns1/p"),
    ],
    ids=[
        "no-controller",
        "not-controlling",
        "alone",
        "unknown-kind",
        "malformed",
        "no-group",
        "up",
        "up-again",
        "elsewhere",
        "unknown-group",
    ],
)
async def test_a_chain_that_ends_too_early_says_where(
    cluster: Cluster, kube: KubeClient, owners: list[dict[str, Any]], level: int, text: str
) -> None:
    """capacity.md 3."""
    pod(cluster, *owners)
    with pytest.raises(Fatal, match=text):
        await owner.find(kube, "ns1", "p-0", level)


async def test_an_owner_that_is_missing_on_the_way_is_named(cluster: Cluster, kube: KubeClient) -> None:
    """capacity.md 3."""
    with pytest.raises(Fatal, match=r"cannot look up Pod ns1/p-0.*NAMESPACE and POD_NAME"):
        await owner.find(kube, "ns1", "p-0", 1)
    pod(cluster, REPLICAS)
    with pytest.raises(Fatal, match="cannot look up ReplicaSet ns1/p-77"):
        await owner.find(kube, "ns1", "p-0", 2)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("asked", ["get pods", "discover /apis/apps/v1", "get replicasets"])
async def test_a_bad_answer_on_the_way_is_an_error(cluster: Cluster, asked: str, bad: Bad) -> None:
    pod(cluster, REPLICAS)
    replica_set(cluster, DEPLOYMENT)
    async with spoiler(cluster.server.port, lambda what: bad.raw if what == asked else None) as between:
        client = connect(resolve(ClusterSettings(master=f"http://127.0.0.1:{between.port}")), user_agent="test")
        with pytest.raises(Fatal):
            await owner.find(client, "ns1", "p-0", 2)
        client.close()
