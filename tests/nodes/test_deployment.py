"""Node-deployment.md 4 to 10 with the whole program on each node: who takes which claim, and who deletes what."""

from typing import Any

import pytest
import trio

from csi_provisioner import supervisor
from csi_provisioner.settings import (
    CapacitySettings,
    ClusterSettings,
    NodeSettings,
    ProvisioningSettings,
)
from sandbox.api.errors import Object
from sandbox.driver import GIB, Config, Fault
from tests.embedded import VIRTUAL, Cluster
from tests.nodes.deployed import CLAIM, KEY, VOLUME, annotate, config, deploy, settings
from tests.nodes.objects import DRIVER

OFF = {"immediate_binding": False}
TOPOLOGIES = "allowedTopologies"


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


def allowed(*nodes: str) -> list[Object]:
    return [{"matchLabelExpressions": [{"key": KEY, "values": list(nodes)}]}]


def requests(cluster: Cluster) -> set[str]:
    return {call.kind for call in cluster.server.calls}


# ---- section 14: one claim, node a


ROWS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any] | None, str, bool]] = [
    # id, claim, class, flags, annotation afterwards, provisioned
    ("own", {"node": "a"}, {"late": False}, None, "a", True),
    ("own-late-binding", {"node": "a"}, {}, OFF, "a", True),
    ("other", {"node": "b"}, {"late": False}, None, "b", False),
    ("none-late-binding", {}, {}, None, "", False),
    ("none-flag-off", {}, {"late": False}, OFF, "", False),
    ("none-enough-space", {"size": str(2 * GIB)}, {"late": False}, None, "a", True),
    ("none-one-byte-too-little", {"size": str(2 * GIB + 1)}, {"late": False}, None, "", False),
    ("none-allowed-elsewhere", {}, {"late": False, TOPOLOGIES: allowed("b")}, None, "", False),
    ("none-allowed-here", {}, {"late": False, TOPOLOGIES: allowed("a", "b")}, None, "a", True),
]


@pytest.mark.parametrize(
    ("claim", "storage_class", "flags", "selected", "provisioned"),
    [row[1:] for row in ROWS],
    ids=[f"node-deployment-14-{row[0]}-p19-topology-5" for row in ROWS],
)
async def test_one_claim(
    cluster: Cluster,
    claim: dict[str, Any],
    storage_class: dict[str, Any],
    flags: dict[str, Any] | None,
    selected: str,
    provisioned: bool,
) -> None:
    driver = await deploy(cluster, "a", 2 * GIB, flags)
    cluster.storage_class("fast", DRIVER, **storage_class)
    cluster.claim("data", "fast", **claim)
    await trio.sleep(60)
    assert cluster.selected("data") == selected
    assert cluster.is_bound("data") == provisioned
    assert bool(driver.made("CreateVolume")) == provisioned
    reasons = {line.partition(":")[0] for line in cluster.events("data")} - {"ExternalProvisioning"}
    assert reasons == ({"ProvisioningSucceeded"} if provisioned else set())


async def test_a_claim_is_taken_though_get_capacity_fails(cluster: Cluster) -> None:
    """The claim is taken all the same, so that people see in its events what is wrong. node-deployment.md 14."""
    driver = await deploy(cluster, "a")
    driver.faults.add(Fault(rpc="GetCapacity", code="UNIMPLEMENTED"))
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.claim("data", "fast")
    await cluster.until(lambda: cluster.is_bound("data"), limit=60)
    assert cluster.selected("data") == "a"


async def test_a_claim_without_its_class_is_nobodys_until_the_class_comes(cluster: Cluster) -> None:
    """node-deployment.md 4."""
    await deploy(cluster, "a")
    cluster.claim("data", "fast")
    annotate(cluster, "data", "volume.kubernetes.io/storage-provisioner", DRIVER)
    await trio.sleep(60)
    assert cluster.selected("data") == ""
    cluster.storage_class("fast", DRIVER, late=False)
    await cluster.until(lambda: cluster.is_bound("data"), limit=400)


async def test_nothing_is_read_of_nodes(cluster: Cluster) -> None:
    """The requirement is this node's term, the identity names the node. node-deployment.md 15.9."""
    driver = await deploy(cluster, "a")
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.claim("data", "fast")
    await cluster.until(lambda: cluster.is_bound("data"), limit=60)
    assert not requests(cluster) & {"Node", "CSINode", "VolumeAttachment"}
    [call] = driver.made("CreateVolume")
    requirement = call.request.accessibility_requirements
    assert [term.segments for term in requirement.requisite] == [{KEY: "a"}]
    assert requirement.preferred == requirement.requisite
    [volume] = cluster.objects.all(VOLUME)
    assert volume["spec"]["csi"]["volumeAttributes"]["storage.kubernetes.io/csiProvisionerIdentity"].endswith("-a")


async def test_the_driver_is_asked_for_room_before_a_claim_is_taken(cluster: Cluster) -> None:
    """Stripped parameters and the capabilities of the volume, with a deadline; no side effect
    on a source (Q11). node-deployment.md 15.7."""
    driver = await deploy(cluster, "a", provisioning=ProvisioningSettings(extra_create_metadata=True))
    driver.faults.add(Fault(rpc="GetCapacity", hang=True, times=1))
    parameters = {"csi.storage.k8s.io/fstype": "xfs", "tier": "gold"}
    cluster.storage_class("fast", DRIVER, late=False, parameters=parameters)
    cluster.claim("data", "fast")
    await cluster.until(lambda: cluster.is_bound("data"), limit=100)
    [question], [create] = driver.made("GetCapacity"), driver.made("CreateVolume")
    assert question.cancelled
    assert question.deadline is not None
    assert question.deadline <= 10
    assert question.request.parameters == create.request.parameters
    assert question.request.parameters["tier"] == "gold"
    assert "csi.storage.k8s.io/fstype" not in question.request.parameters
    assert question.request.volume_capabilities == create.request.volume_capabilities
    assert question.request.accessible_topology.segments == {KEY: "a"}


async def test_a_source_is_not_protected_by_a_node_without_room(cluster: Cluster) -> None:
    """provision.md 18, quirk Q11."""
    await deploy(cluster, "a", 3 * GIB)
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.claim("source", "fast", size="2Gi")
    await cluster.until(lambda: cluster.is_bound("source"), limit=60)
    cluster.claim("copy", "fast", size="2Gi", dataSource={"kind": CLAIM, "name": "source"})
    await trio.sleep(100)
    assert cluster.selected("copy") == ""
    assert not any("cloning" in name for name in cluster.claims()["source"]["metadata"]["finalizers"])


# ---- deletion


async def test_only_its_node_deletes_a_volume(cluster: Cluster) -> None:
    """node-deployment.md 9, node-deployment.md 15.1."""
    drivers = {name: await deploy(cluster, name) for name in ("a", "b")}
    cluster.storage_class("fast", DRIVER)
    for name in drivers:
        cluster.claim(f"on-{name}", "fast", node=name)
    await cluster.until(lambda: cluster.is_bound("on-a", "on-b"), limit=30)
    cluster.objects.delete(CLAIM, "on-a", "default")
    await cluster.until(lambda: len(cluster.objects.all(VOLUME)) == 1, limit=30)
    await trio.sleep(600)
    assert len(drivers["a"].made("DeleteVolume")) == 1
    assert drivers["b"].made("DeleteVolume") == []
    assert not any("VolumeFailedDelete" in line for line in cluster.events("on-a"))


async def test_volumes_of_a_node_that_is_gone_stay(cluster: Cluster) -> None:
    """node-deployment.md 13."""
    driver = await deploy(cluster, "a")
    cluster.storage_class("fast", DRIVER)
    term = {"matchExpressions": [{"key": KEY, "operator": "In", "values": ["gone"]}]}
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": "fast",
        "csi": {"driver": DRIVER, "volumeHandle": "h"},
        "claimRef": {"namespace": "default", "name": "gone", "uid": "1-2-3"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
    }
    cluster.objects.create(VOLUME, {"metadata": {"name": "pv"}, "spec": spec})
    await trio.sleep(2000)
    [volume] = cluster.objects.all(VOLUME)
    assert volume["status"]["phase"] == "Released"
    assert driver.made("DeleteVolume") == []


# ---- start


@pytest.mark.parametrize("code", ["UNIMPLEMENTED", "INTERNAL"])
async def test_the_process_ends_if_node_get_info_fails(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    """node-deployment.md 2."""
    driver = await cluster.driver(config("a"))
    driver.faults.add(Fault(rpc="NodeGetInfo", code=code))
    assert await supervisor.run(settings(cluster, config("a")), stop=trio.Event()) == 255
    assert "cannot get the node's topology from the CSI driver" in capsys.readouterr().err


async def test_capacity_is_published_beside_the_race(cluster: Cluster) -> None:
    """Block volumes and the race work with capacity published, and it follows what is made here.
    node-deployment.md 15.4."""
    capacity = CapacitySettings(enabled=True, ownerref_level=-1, namespace="default", immediate_binding=True)
    await deploy(cluster, "a", 10 * GIB, {"base_delay": 1.0}, capacity=capacity)
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.claim("data", "fast", size="4Gi", volumeMode="Block")
    await cluster.until(lambda: cluster.is_bound("data"), limit=30)
    await trio.sleep(2)
    [obj] = cluster.objects.all("CSIStorageCapacity")
    assert obj["nodeTopology"] == {"matchLabels": {KEY: "a"}}
    assert obj["metadata"]["labels"]["csi.storage.k8s.io/managed-by"] == "external-provisioner-a"
    assert obj["capacity"] == "6Gi"


async def test_topology_not_active(cluster: Cluster) -> None:
    """The reference crashes there: without the capability there are no stand-ins, and no requirement is made."""
    made = Config(name=DRIVER, node_id="a", node_segment={})
    driver = await cluster.driver(made)
    nodes = NodeSettings(enabled=True, node_name="a", base_delay=1.0)
    cluster.provisioner(cluster.settings(made, nodes=nodes, cluster=ClusterSettings()))
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.claim("data", "fast")
    await cluster.until(lambda: cluster.is_bound("data"), limit=30)
    [question] = driver.made("GetCapacity")
    assert question.request.accessible_topology is None
    cluster.objects.delete(CLAIM, "data", "default")
    await cluster.until(lambda: not driver.state.volumes, limit=30)


async def test_nodes_look_at_the_snapshots_one_after_the_other(cluster: Cluster) -> None:
    """Each lists those of the whole cluster: started together, all would do so at once, every five minutes."""
    for number in range(10):
        await deploy(cluster, f"node-{number}")
    await trio.sleep(300)
    calls = cluster.server.calls.of("list", "VolumeSnapshot")
    assert len(calls) == 2 * 10
    assert len({round(call.at) for call in calls}) > 5
