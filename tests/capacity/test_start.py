"""Capacity.md 1, 2, 12 and process.md 3 step 20: what the start needs, what ends the process, who owns the objects."""

from typing import Any

import httpx2
import msgspec
import pytest
import trio
from msgspec.structs import replace

from csi_provisioner import supervisor
from csi_provisioner.configuration import read
from csi_provisioner.flags import FLAGS
from csi_provisioner.settings import ClusterSettings, HttpSettings, LogSettings, NodeSettings
from sandbox.api.faults import Fault
from sandbox.driver import Config
from tests.capacity.objects import DRIVER
from tests.capacity.publishing import CONFIG, KIND, SETTINGS, exists, made, start
from tests.cluster.controlplane import free_ports
from tests.embedded import VIRTUAL, Cluster

SET = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "p", "uid": "2-2", "controller": True}


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


def pod(cluster: Cluster) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    cluster.objects.create("Pod", {"metadata": {"name": "p-0", "ownerReferences": [dict(SET)]}, "spec": spec}, "ns1")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"namespace": None}, "NAMESPACE"),
        ({"ownerref_level": 0}, "POD_NAME"),
        ({"ownerref_level": 1, "pod_name": "nobody"}, "cannot look up Pod ns1/nobody"),
    ],
    ids=["capacity-15-10-namespace", "pod-name", "owner"],
)
async def test_what_is_missing_ends_the_process(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], text: str
) -> None:
    driver = await cluster.driver(CONFIG)
    settings = cluster.settings(CONFIG, capacity=replace(SETTINGS, **changes))
    assert await supervisor.run(settings, stop=trio.Event()) == 255
    assert text in capsys.readouterr().err
    assert [call.rpc for call in driver.calls][-1] == "ControllerGetCapabilities"  # the driver was asked before


async def test_an_api_server_that_cannot_be_reached_ends_the_process(
    cluster: Cluster, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """capacity.md 15.15."""
    await cluster.driver(CONFIG)
    [port] = free_ports(1)
    settings = cluster.settings(CONFIG, capacity=SETTINGS)
    settings = replace(settings, cluster=ClusterSettings(master=f"http://127.0.0.1:{port}"))
    assert await supervisor.run(settings, stop=trio.Event()) == 255
    assert "cannot make CSIStorageCapacity objects" in capsys.readouterr().err


@pytest.mark.parametrize("code", [403, 404, 500])
async def test_objects_that_cannot_be_made_end_the_process(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    """Also in a replica that stands by: process.md 3 step 20, 11.3. capacity.md 2.6."""
    await cluster.driver(CONFIG)
    cluster.server.faults.add(Fault(verb="create", kind=KIND, namespace="ns1", code=code, message="no way", times=None))
    with trio.fail_after(60):
        assert await supervisor.run(cluster.settings(CONFIG, capacity=SETTINGS), stop=trio.Event()) == 255
    error = capsys.readouterr().err
    assert "cannot make CSIStorageCapacity objects (storage.k8s.io/v1, Kubernetes 1.24) in namespace ns1" in error
    assert "no way" in error
    assert "invalid-name" not in error


@pytest.mark.parametrize(
    ("verb", "kind", "plural", "group"),
    [("get", "Pod", "pods", ""), ("create", KIND, "csistoragecapacities", "storage.k8s.io")],
    ids=["owner", "objects"],
)
async def test_a_missing_right_names_the_kustomization(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], verb: str, kind: str, plural: str, group: str
) -> None:
    await cluster.driver(CONFIG)
    pod(cluster)
    said = f'{plural} is forbidden: User "u" cannot {verb} resource "{plural}" in API group "{group}"'
    cluster.server.faults.add(Fault(verb=verb, kind=kind, code=403, message=said, times=None))
    capacity = replace(SETTINGS, ownerref_level=1, pod_name="p-0")
    assert await supervisor.run(cluster.settings(CONFIG, capacity=capacity), stop=trio.Event()) == 255
    assert "kustomize/components/capacity grants it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "enabled"),
    [([], False), (["--enable-capacity"], True), (["--capacity-controller-deployment-mode=central"], True)],
    ids=["none", "switch", "old-mode"],
)
def test_one_switch_turns_publishing_on(arguments: list[str], enabled: bool) -> None:
    """capacity.md 15.2."""
    found = read(FLAGS.parse(arguments), {"NAMESPACE": "ns1"}, LogSettings())
    assert found is not None
    assert (found.capacity.enabled, found.capacity.namespace) == (enabled, "ns1")


async def test_objects_get_the_owner(cluster: Cluster) -> None:
    """New ones at once; to an object of before it is added, beside others and with nothing else changed."""
    pod(cluster)
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "9-9"}
    cluster.node("n1", DRIVER, zone="z-1")
    cluster.node("n2", DRIVER, zone="z-2")
    cluster.storage_class("fast", DRIVER)
    old = exists(cluster, "a", "z-1", "fast")
    cluster.objects.edit(KIND, "a", "ns1", change=lambda obj: obj["metadata"].update(ownerReferences=[other]))
    await start(cluster, replace(SETTINGS, ownerref_level=1, pod_name="p-0"))
    objects = made(cluster)
    owners = {owner["name"]: owner for owner in objects["z-1", "fast"]["metadata"]["ownerReferences"]}
    assert owners == {"other": other, "p": SET}
    assert objects["z-1", "fast"]["metadata"]["uid"] == old["metadata"]["uid"]
    assert objects["z-2", "fast"]["metadata"]["ownerReferences"] == [SET]
    assert cluster.counts(KIND) == {"create": 1, "patch": 1}


async def test_publishing_has_its_own_request_budget(cluster: Cluster) -> None:
    """One request a second after the burst of 5, of which the start has used one; claims are served meanwhile.
    capacity.md 15.12."""
    for number in range(30):
        cluster.node(f"n{number}", DRIVER, zone=f"z-{number}")
    cluster.storage_class("fast", DRIVER)
    await cluster.driver(CONFIG)
    settings = cluster.settings(CONFIG, capacity=SETTINGS, cluster=ClusterSettings())
    cluster.provisioner(settings)
    begin = trio.current_time()
    await cluster.until(lambda: len(cluster.objects.all(KIND)) == 10)
    for number in range(20):
        cluster.claim(f"c{number}", "fast", node="n1")
    before = trio.current_time()
    await cluster.until(lambda: cluster.is_bound(*cluster.claims()))
    assert trio.current_time() - before < 1
    await cluster.until(lambda: len(cluster.objects.all(KIND)) == 30)
    assert 26 <= trio.current_time() - begin <= 30


async def test_missing_rights_for_the_objects_do_not_stop_provisioning(cluster: Cluster) -> None:
    cluster.node("n1", DRIVER, zone="z-1")
    cluster.storage_class("fast", DRIVER)
    cluster.server.faults.add(Fault(verb="list", kind=KIND, code=403, times=None))
    await start(cluster)
    cluster.claim("a", "fast", node="n1")
    await cluster.until(lambda: cluster.is_bound("a"), limit=10)
    assert cluster.counts(KIND) == {}


async def test_nodes_are_watched_for_a_driver_without_topology(cluster: Cluster) -> None:
    """Its segment is the empty one where it is registered without keys: one object for all nodes."""
    config = Config(name=DRIVER)
    cluster.objects.create("Node", {"metadata": {"name": "n"}})
    entry = {"name": DRIVER, "nodeID": "n", "topologyKeys": []}
    cluster.objects.create("CSINode", {"metadata": {"name": "n"}, "spec": {"drivers": [entry]}})
    cluster.storage_class("fast", DRIVER)
    await cluster.driver(config)
    cluster.provisioner(cluster.settings(config, capacity=SETTINGS))
    await trio.sleep(200)  # capacity-8: the object comes back without labels in its selector, and is not obsolete
    [obj] = cluster.objects.all(KIND)
    assert obj["nodeTopology"] == {}
    assert cluster.counts(KIND) == {"create": 1}


async def metrics(port: int) -> dict[str, float]:
    async with httpx2.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_goal_current_and_obsolete_are_exposed(cluster: Cluster) -> None:
    """4 pairs, 2 of them with objects, 2 left-over objects: 4 / 2 / 2, and 4 / 4 / 0 when all is done.
    capacity.md 12."""
    for zone in ("z-1", "z-2"):
        cluster.node(f"in-{zone}", DRIVER, zone=zone)
        exists(cluster, f"of-gone-{zone}", zone, "gone")
        exists(cluster, f"of-fast-{zone}", zone, "fast")
    cluster.storage_class("fast", DRIVER)
    cluster.storage_class("slow", DRIVER)
    [port] = free_ports(1)
    for verb in ("create", "patch", "delete"):
        after = 1 if verb == "create" else 0  # the start asks first
        cluster.server.faults.add(Fault(verb=verb, kind=KIND, delay=20.0, skip=after, times=None))
    await cluster.driver(CONFIG)
    http = HttpSettings(endpoint=f"127.0.0.1:{port}")
    cluster.provisioner(cluster.settings(CONFIG, capacity=SETTINGS, http=http))
    await trio.sleep(5)
    prefix = "csistoragecapacities_"
    names = [f"{prefix}{name}" for name in ("desired_goal", "desired_current", "obsolete")]
    found = await metrics(port)
    assert [found[name] for name in names] == [4, 2, 2]
    await trio.sleep(120)
    found = await metrics(port)
    assert [found[name] for name in names] == [4, 4, 0]
    assert 0 < found["csi_provisioner_capacity_age_seconds"] <= 61
    for queue in ("csistoragecapacity", "csitopology"):
        assert found[f'workqueue_adds_total{{name="{queue}"}}'] > 0
        assert found[f'workqueue_depth{{name="{queue}"}}'] == 0
    assert any("GetCapacity" in name for name in found)


async def test_every_node_has_its_own_objects(cluster: Cluster) -> None:
    """The fixed segment, the node in the managed-by label; nodes are not watched, objects of others not touched.
    capacity.md 13."""
    config = msgspec.structs.replace(CONFIG, node_segment={"acme.test/zone": "z-1"})
    cluster.storage_class("fast", DRIVER)
    exists(cluster, "central", "z-1", "fast")
    await cluster.driver(config)
    nodes = NodeSettings(enabled=True, node_name="node-7")
    cluster.provisioner(cluster.settings(config, capacity=SETTINGS, nodes=nodes))
    await trio.sleep(30)
    labels = {obj["metadata"]["labels"]["csi.storage.k8s.io/managed-by"] for obj in cluster.objects.all(KIND)}
    assert labels == {"external-provisioner", "external-provisioner-node-7"}
    assert cluster.counts(KIND) == {"create": 1}
    assert not cluster.server.calls.of(kind="*Node")
