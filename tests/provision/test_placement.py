"""Topology at work (provision.md 19, topology.md 8, 9, 13): what the driver is asked, what becomes of the claim."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from lightkube.core.resource import api_info

from csi_provisioner.model.kubernetes import CSINode
from csi_provisioner.settings import CsiSettings, ProvisioningSettings, Settings
from sandbox.driver import Config, Driver, Fault, Pool
from sandbox.driver.config import CONTROLLER_CAPABILITIES
from tests.embedded import SELECTED, VIRTUAL, Cluster, embedded

DRIVER = "disk.acme.test"
ZONE = "acme.test/zone"
PLUGIN = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")
ZONED = Config(name=DRIVER, plugin=PLUGIN, pools=tuple(Pool({ZONE: zone}) for zone in ("z-1", "z-2", "z-3")))
CLAIM = "PersistentVolumeClaim"


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
async def cluster(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with embedded(tmp_path) as made:
        for number in (1, 2, 3):
            made.node(f"n{number}", DRIVER, zone=f"z-{number}")
        made.storage_class("late", DRIVER)
        made.storage_class("now", DRIVER, late=False)
        yield made


async def start(cluster: Cluster, config: Config = ZONED, *, strict: bool = False) -> Driver:
    driver = await cluster.driver(config)
    found: Settings = cluster.settings(config, provisioning=ProvisioningSettings(strict_topology=strict))
    cluster.provisioner(found)
    await trio.sleep(1)
    return driver


def asked(driver: Driver) -> list[tuple[list[str], list[str]]]:
    """The zones of each CreateVolume: requisite and preferred."""
    found = []
    for call in driver.made("CreateVolume"):
        terms = call.request.accessibility_requirements
        found.append(([t.segments[ZONE] for t in terms.requisite], [t.segments[ZONE] for t in terms.preferred]))
    return found


@pytest.mark.parametrize("strict", [False, True], ids=["not-strict", "strict"])
async def test_exhausted_with_a_node_asks_for_another_p19_topology_1(cluster: Cluster, strict: bool) -> None:
    driver = await start(cluster, strict=strict)
    driver.faults.add(Fault(code="RESOURCE_EXHAUSTED", times=None))
    cluster.claim("a", "late", node="n2")
    await trio.sleep(30)
    assert SELECTED not in cluster.claims()["a"]["metadata"].get("annotations", {})
    assert len(driver.made("CreateVolume")) == 1
    assert any("the scheduler is asked for another node" in line for line in cluster.events("a"))


@pytest.mark.parametrize(
    ("config", "class_name", "node"),
    [(Config(name=DRIVER), "late", "n2"), (ZONED, "now", "")],
    ids=["no-topology", "no-node"],
)
async def test_exhausted_otherwise_is_tried_again_p19_topology_1(
    cluster: Cluster, config: Config, class_name: str, node: str
) -> None:
    driver = await start(cluster, config)
    driver.faults.add(Fault(code="RESOURCE_EXHAUSTED", times=2))
    cluster.claim("a", class_name, node=node)
    await cluster.until(lambda: cluster.is_bound("a"), limit=30)
    assert len(driver.made("CreateVolume")) == 3
    assert cluster.selected("a") == node


async def test_a_node_without_csinode_is_given_up_p19_topology_2(cluster: Cluster) -> None:
    driver = await start(cluster)
    cluster.objects.delete("CSINode", "n2")
    cluster.claim("a", "late", node="n2")
    await trio.sleep(30)
    assert cluster.selected("a") == ""
    assert driver.made("CreateVolume") == []
    [failed] = [line for line in cluster.events("a") if line.startswith("ProvisioningFailed")]
    assert 'failed to get selected CSINode n2: csinode.storage.k8s.io "n2" not found' in failed


async def test_a_node_that_goes_before_its_csinode_is_given_up(cluster: Cluster) -> None:
    """As in a cluster that shrinks: the garbage collector takes the CSINode a moment after the Node."""
    await start(cluster)
    cluster.objects.delete("Node", "n2")
    cluster.claim("a", "late", node="n2")
    await trio.sleep(2)
    assert cluster.selected("a") == "n2"
    cluster.objects.delete("CSINode", "n2")
    await trio.sleep(30)
    assert cluster.selected("a") == ""


async def test_topology_9_e3_heals_when_the_driver_registers_other_keys(cluster: Cluster) -> None:
    cluster.objects.edit("Node", "n2", change=lambda node: node["metadata"].update(labels={"acme.test/rack": "r-1"}))
    driver = await start(cluster)
    cluster.claim("a", "late", node="n2")
    await trio.sleep(10)
    assert driver.made("CreateVolume") == []
    entry = {"name": DRIVER, "nodeID": "n2", "topologyKeys": ["acme.test/rack"]}
    cluster.objects.edit("CSINode", "n2", change=lambda csinode: csinode["spec"].update(drivers=[entry]))
    await cluster.until(lambda: bool(driver.made("CreateVolume")), limit=60)
    [first, *_] = driver.made("CreateVolume")
    requirement = first.request.accessibility_requirements
    assert [term.segments for term in requirement.preferred] == [{"acme.test/rack": "r-1"}]


async def test_retries_ask_for_the_same_though_nodes_vanish_p19_topology_3(cluster: Cluster) -> None:
    """topology-12-R1 and topology-13-12: twice no answer, and the nodes go in between."""
    driver = await cluster.driver(ZONED)
    settings = cluster.settings(ZONED)
    cluster.provisioner(Settings(csi=CsiSettings(address=settings.csi.address, timeout=5.0), cluster=settings.cluster))
    driver.faults.add(Fault(hang=True, times=2))
    cluster.claim("a", "late", node="n2")
    await driver.wait_until(lambda: len(driver.made("CreateVolume")) == 1)
    for kind in ("Node", "CSINode"):
        for name in ("n2", "n3"):
            cluster.objects.delete(kind, name)
    await cluster.until(lambda: cluster.is_bound("a"), limit=60)
    assert asked(driver) == [(["z-1", "z-2", "z-3"], ["z-2", "z-3", "z-1"])] * 3
    assert cluster.selected("a") == "n2"


async def test_a_final_answer_lets_the_next_try_look_anew_p19_topology_3(cluster: Cluster) -> None:
    """topology-12-R5: nothing is remembered after an error that leaves nothing behind."""
    driver = await start(cluster)
    driver.faults.add(Fault(code="INTERNAL", times=1))
    cluster.claim("a", "late", node="n2")
    await driver.wait_until(lambda: len(driver.made("CreateVolume", running=False)) == 1)
    cluster.objects.edit("Node", "n2", change=lambda node: node["metadata"].update(labels={ZONE: "z-9"}))
    await cluster.until(lambda: len(driver.made("CreateVolume")) == 2, limit=30)
    assert asked(driver)[1] == (["z-1", "z-3", "z-9"], ["z-9", "z-1", "z-3"])


async def test_missing_labels_are_read_again_p19_topology_4(cluster: Cluster) -> None:
    """topology-12-R3, topology-13-14: it heals when the label comes, without a restart."""
    cluster.objects.edit("Node", "n2", change=lambda node: node["metadata"].update(labels={"other": "x"}))
    driver = await start(cluster)
    cluster.claim("a", "late", node="n2")
    await trio.sleep(10)
    assert driver.made("CreateVolume") == []
    assert cluster.selected("a") == "n2"
    assert any(f"selected node n2 lacks the label {ZONE}" in line for line in cluster.events("a"))
    cluster.objects.edit("Node", "n2", change=lambda node: node["metadata"].update(labels={ZONE: "z-2"}))
    await cluster.until(lambda: cluster.is_bound("a"), limit=60)


@pytest.mark.parametrize("attaches", [False, True], ids=["does-not-attach", "attaches"])
async def test_attachments_are_watched_for_drivers_that_attach_p19_topology_6(cluster: Cluster, attaches: bool) -> None:
    more = ("PUBLISH_UNPUBLISH_VOLUME",) if attaches else ()
    await start(cluster, Config(name=DRIVER, plugin=PLUGIN, controller=(*CONTROLLER_CAPABILITIES, *more)))
    assert bool(cluster.server.calls.of(kind="VolumeAttachment")) == attaches


async def test_no_node_is_read_for_a_claim(cluster: Cluster) -> None:
    """topology.md 13."""
    await start(cluster)
    for number in range(10):
        cluster.claim(f"a-{number}", "late", node="n1")
        cluster.claim(f"b-{number}", "now")
    await cluster.until(lambda: cluster.is_bound(*cluster.claims()), limit=60)
    assert {call.verb for call in cluster.server.calls if call.kind in ("Node", "CSINode")} == {"list", "watch"}


async def test_topology_6_ordinals_walk_through_the_zones(cluster: Cluster) -> None:
    driver = await start(cluster)
    for number in range(6):
        cluster.claim(f"data-web-{number}", "now")
        await cluster.until(lambda number=number: cluster.is_bound(f"data-web-{number}"), limit=10)
    first = [preferred[0] for _, preferred in asked(driver)]
    assert first == ["z-1", "z-2", "z-3", "z-1", "z-2", "z-3"]


async def test_immediate_topology_can_be_switched_off(cluster: Cluster) -> None:
    """topology.md 13."""
    driver = await cluster.driver(ZONED)
    cluster.provisioner(cluster.settings(ZONED, provisioning=ProvisioningSettings(immediate_topology=False)))
    cluster.claim("a", "now")
    await cluster.until(lambda: cluster.is_bound("a"), limit=30)
    [call] = driver.made("CreateVolume")
    assert call.request.accessibility_requirements is None


async def test_exhausted_storage_is_final(cluster: Cluster) -> None:
    """topology.md 13."""
    driver = await start(cluster)
    driver.faults.add(Fault(code="RESOURCE_EXHAUSTED", times=None))
    cluster.claim("a", "now")
    await cluster.until(lambda: len(driver.made("CreateVolume", running=False)) == 2)
    cluster.objects.delete(CLAIM, "a", "default")
    await trio.sleep(1000)
    assert len(driver.made("CreateVolume")) == 2


def test_csinodes_of_v1_only() -> None:
    """topology.md 13."""
    assert api_info(CSINode).resource.api_version == "storage.k8s.io/v1"


async def test_e9_more_topologies_than_a_claim_can_carry(cluster: Cluster) -> None:
    """64,009 of them: they are counted, not made, and other claims do not wait for them."""
    values = [str(number) for number in range(253)]
    expressions = [{"key": key, "values": values} for key in (ZONE, "acme.test/rack")]
    cluster.storage_class("wide", DRIVER, late=False, allowedTopologies=[{"matchLabelExpressions": expressions}])
    driver = await start(cluster)
    cluster.claim("a", "wide")
    cluster.claim("b", "now")
    await cluster.until(lambda: cluster.is_bound("b"))
    await cluster.until(lambda: any("ProvisioningFailed" in line for line in cluster.events("a")))
    [failed] = [line for line in cluster.events("a") if "ProvisioningFailed" in line]
    assert "allowedTopologies of StorageClass wide make more than 10000 topologies" in failed
    assert len(asked(driver)) == 1
