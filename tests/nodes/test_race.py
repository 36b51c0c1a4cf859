"""Node-deployment.md 5, 6, 8 and 14 with the whole program on each node: the race for claims that any node may have."""

from itertools import pairwise

import pytest
import trio

from csi_provisioner.settings import RetrySettings
from sandbox.api.faults import Fault as Refusal
from sandbox.driver import GIB, Fault
from tests.embedded import VIRTUAL, Cluster
from tests.nodes.deployed import CLAIM, annotate, deploy, unselect, volumes
from tests.nodes.objects import DRIVER, SELECTED


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


async def test_the_first_wait_is_within_the_base_delay(cluster: Cluster) -> None:
    """node-deployment.md 6."""
    await deploy(cluster, "a", nodes={"base_delay": 20.0, "max_delay": 60.0})
    cluster.storage_class("fast", DRIVER, late=False)
    await trio.sleep(1)
    begin = trio.current_time()
    for number in range(50):
        cluster.claim(f"c{number}", "fast")
    taken: dict[str, float] = {}
    while len(taken) < 50:
        await trio.sleep(0.1)
        for name in cluster.claims():
            if cluster.selected(name):
                taken.setdefault(name, trio.current_time() - begin)
    assert max(taken.values()) <= 20.2
    assert 7 <= sum(taken.values()) / 50 <= 13  # drawn evenly


async def test_waiting_claims_hold_no_worker(cluster: Cluster) -> None:
    """Two workers, a hundred claims that wait: one that is ours is served at once."""
    slow = {"base_delay": 1000.0, "max_delay": 1000.0}
    await deploy(cluster, "a", nodes=slow, retries=RetrySettings(workers=2))
    cluster.storage_class("fast", DRIVER, late=False)
    for number in range(100):
        cluster.claim(f"c{number}", "fast")
    await trio.sleep(0.5)
    cluster.claim("mine", "fast", node="a")
    await cluster.until(lambda: cluster.is_bound("mine"), limit=2)


async def test_a_claim_that_somebody_changes_meanwhile_is_tried_again_later(cluster: Cluster) -> None:
    """A conflict draws the next, longer delay; nothing is written over. node-deployment.md 5."""
    await deploy(cluster, "a", nodes={"base_delay": 1.0, "max_delay": 4.0})
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.server.faults.add(Refusal(verb="update", kind=CLAIM, code=409, times=3))
    cluster.claim("data", "fast")
    await cluster.until(lambda: cluster.is_bound("data"), limit=1 + 2 + 4 + 4)
    writes = [call for call in cluster.server.calls.of("update", CLAIM) if call.name == "data"]
    assert [call.code for call in writes] == [409, 409, 409, 200]
    waits = [after.at - before.at for before, after in pairwise(writes)]
    assert 1 <= waits[0] <= 2.1
    assert all(3 <= wait <= 4.1 for wait in waits[1:])
    assert not any(line.startswith("ProvisioningFailed") for line in cluster.events("data"))


async def test_a_claim_that_cannot_be_written_gets_an_event_and_is_tried_again(cluster: Cluster) -> None:
    """node-deployment.md 5."""
    await deploy(cluster, "a", nodes={"base_delay": 1.0})
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.server.faults.add(Refusal(verb="update", kind=CLAIM, code=403, times=2))
    cluster.claim("data", "fast")
    await cluster.until(lambda: cluster.is_bound("data"), limit=10)
    await trio.sleep(5)
    [failed] = [line for line in cluster.events("data") if line.startswith("ProvisioningFailed")]
    assert "node check failed: selecting node a for claim default/data failed" in failed
    assert "(attempt 2; next try in 2 s)" in failed


async def test_a_404_that_does_not_name_the_claim_does_not_end_the_race(cluster: Cluster) -> None:
    await deploy(cluster, "a", nodes={"base_delay": 1.0})
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.server.faults.add(Refusal(verb="update", kind=CLAIM, code=404, page="404 page not found\n", times=2))
    cluster.claim("data", "fast")
    await cluster.until(lambda: cluster.is_bound("data"), limit=10)


async def test_an_update_while_the_claim_is_worked_on_is_not_lost(cluster: Cluster) -> None:
    """The scheduler or a controller of the user gives the claim to this node while it looks for room.
    node-deployment.md 15.3."""
    driver = await deploy(cluster, "a", nodes={"base_delay": 1.0})
    driver.faults.add(Fault(rpc="GetCapacity", delay=8.0))
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.claim("data", "fast")
    await driver.wait_until(lambda: bool(driver.made("GetCapacity")))
    annotate(cluster, "data", SELECTED, "a")
    await cluster.until(lambda: cluster.is_bound("data"), limit=30)


async def test_claims_that_go_are_not_waited_for(cluster: Cluster) -> None:
    """node-deployment.md 5."""
    driver = await deploy(cluster, "a", nodes={"base_delay": 5.0})
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.claim("data", "fast")
    await trio.sleep(0.01)
    cluster.objects.delete(CLAIM, "data", "default")
    await trio.sleep(1)
    cluster.claim("data", "fast")  # another claim under its name
    await cluster.until(lambda: cluster.is_bound("data"), limit=10)
    assert len(driver.made("CreateVolume")) == 1
    assert [call.code for call in cluster.server.calls.of("update", CLAIM)].count(200) == 1


async def test_exhausted_sends_the_claim_back_into_the_race(cluster: Cluster) -> None:
    """Driver a says there is room, but there is none; b takes the claim in the end. node-deployment.md 8."""
    quick = {"base_delay": 1.0, "max_delay": 8.0}
    first = await deploy(cluster, "a", nodes=quick)
    first.faults.add(Fault(code="RESOURCE_EXHAUSTED", times=None))
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.claim("data", "fast")
    await cluster.until(lambda: len(first.made("CreateVolume")) >= 2)
    await deploy(cluster, "b", nodes={"base_delay": 0.0})
    await cluster.until(lambda: cluster.is_bound("data"), limit=200)
    assert volumes(cluster) == {"data": "b"}
    await cluster.until(lambda: any("ResourceExhausted" in line for line in cluster.events("data")))


async def test_a_driver_that_is_away_is_said_with_the_claim(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = await deploy(cluster, "a")
    driver.faults.add(Fault(rpc="GetCapacity", code="UNAVAILABLE", times=1))
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.claim("data", "fast")
    await cluster.until(lambda: cluster.is_bound("data"), limit=100)
    assert 'err="claim default/data: GetCapacity: rpc error: code = Unavailable' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "soonest"), [(2, 20.0), (50, 0.0)], ids=["had-no-room-and-stays-slow", "was-beaten-and-is-as-new"]
)
async def test_a_node_without_room_waits_long_for_a_claim_that_comes_back(
    cluster: Cluster, size: int, soonest: float
) -> None:
    """Who found no room keeps its long wait, also after another node had the claim; who only came late does not.
    node-deployment.md 14."""
    driver = await deploy(cluster, "a", size * GIB)
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.claim("data", "fast", size="5Gi")
    await trio.sleep(30 if soonest else 0.01)
    annotate(cluster, "data", SELECTED, "b")
    await trio.sleep(1)
    looks = len(driver.made("GetCapacity"))
    unselect(cluster, "data")
    begin = trio.current_time()
    await driver.wait_until(lambda: len(driver.made("GetCapacity")) > looks)
    assert soonest < trio.current_time() - begin <= soonest + 20.1


@pytest.mark.parametrize("count", [3])
async def test_only_nodes_with_room_take_claims_and_each_once(cluster: Cluster, count: int) -> None:
    """a has 2Gi, b and c have 50Gi: a asks and leaves the claim, b or c takes it, once. node-deployment.md 14."""
    drivers = {name: await deploy(cluster, name, size * GIB) for name, size in (("a", 2), ("b", 50), ("c", 50))}
    assert len(drivers) == count
    cluster.storage_class("fast", DRIVER, late=False)
    for number in range(30):  # so many that each node is the first for some
        cluster.claim(f"data-db-{number}", "fast", size="3Gi")
    await cluster.until(lambda: cluster.is_bound(*cluster.claims()), limit=200)
    assert set(volumes(cluster).values()) == {"b", "c"}
    assert drivers["a"].made("GetCapacity")
    assert not drivers["a"].made("CreateVolume")
    assert sum(len(driver.made("CreateVolume")) for driver in drivers.values()) == 30
    assert all(len(driver.made("NodeGetInfo")) == 1 for driver in drivers.values())


async def test_many_nodes_race_for_many_claims(cluster: Cluster) -> None:
    """Each volume is made exactly once, in one driver; each claim is written by one node.

    A slow API server lets several nodes see the same claim free: the version they write it under decides.
    """
    cluster.server.faults.add(Refusal(verb="update", kind=CLAIM, delay=2.0, times=None))
    names = [f"node-{number}" for number in range(8)]
    drivers = [await deploy(cluster, name) for name in names]
    cluster.storage_class("fast", DRIVER, late=False)
    await trio.sleep(5)
    for number in range(40):
        cluster.claim(f"data-{number}", "fast", size="1Gi")
    await cluster.until(lambda: cluster.is_bound(*cluster.claims()), limit=400)
    made = [volume.name for driver in drivers for volume in driver.state.volumes.values()]
    assert len(made) == len(set(made)) == 40
    assert sum(len(driver.made("CreateVolume")) for driver in drivers) == 40
    assert len(volumes(cluster)) == 40
    assert all(cluster.selected(name) == node for name, node in volumes(cluster).items())
    assert len(cluster.server.calls.of("update", CLAIM, code=200)) == 40
    assert len(cluster.server.calls.of("update", CLAIM, code=409)) > 10
    assert len(set(volumes(cluster).values())) > 4  # spread by chance


async def test_claims_that_went_while_nobody_watched_are_left(cluster: Cluster) -> None:
    """node-deployment.md 15.5."""
    driver = await deploy(cluster, "a", nodes={"base_delay": 200.0, "max_delay": 200.0})
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.claim("data", "fast")
    await trio.sleep(0.01)
    cluster.server.faults.stall_watches(CLAIM)
    cluster.objects.delete(CLAIM, "data", "default")
    cluster.objects.storage.compact()
    cluster.server.faults.cut_watches(CLAIM)
    cluster.server.faults.resume_watches()
    await cluster.rest(300)
    assert driver.made("GetCapacity") == []
    assert "update" not in {call.verb for call in cluster.server.calls.of(kind=CLAIM)}


async def test_exhausted_storage_is_final(cluster: Cluster) -> None:
    """No further call for a claim that is gone, on whichever node it was tried. node-deployment.md 15.8."""
    drivers = [await deploy(cluster, name, nodes={"base_delay": 1.0}) for name in ("a", "b")]
    for driver in drivers:
        driver.faults.add(Fault(code="RESOURCE_EXHAUSTED", times=None))
    cluster.storage_class("fast", DRIVER, late=False)
    cluster.claim("data", "fast")
    await cluster.until(lambda: sum(len(driver.made("CreateVolume")) for driver in drivers) >= 3)
    cluster.objects.delete(CLAIM, "data", "default")
    await trio.sleep(1)
    calls = sum(len(driver.made("CreateVolume")) for driver in drivers)
    await trio.sleep(1000)
    assert sum(len(driver.made("CreateVolume")) for driver in drivers) == calls
