"""What failures ask of the driver: first the segment that had no room, then the class, and that not too often."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from csi_provisioner.capacity.freshness import Freshness
from csi_provisioner.capacity.objects import Pair
from sandbox.driver import Fault
from tests.capacity.objects import DRIVER, Z1, Z2
from tests.capacity.publishing import SETTINGS, ZONE, start
from tests.embedded import VIRTUAL, Cluster, embedded

ZONES = 8


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
async def cluster(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with embedded(tmp_path) as made:
        made.objects.create("Namespace", {"metadata": {"name": "ns1"}})
        for number in range(ZONES):
            made.node(f"n{number}", DRIVER, zone=f"z-{number}")
        made.storage_class("fast", DRIVER)
        made.storage_class("now", DRIVER, late=False)
        yield made


async def test_a_class_whose_claims_fail_is_asked_for_four_times_a_poll_interval(cluster: Cluster) -> None:
    driver = await start(cluster)
    driver.faults.add(Fault(code="INTERNAL", times=None))
    before = len(driver.made("GetCapacity"))
    for number in range(8):
        cluster.claim(f"claim-{number}", "fast", node="n1")
    began = trio.current_time()
    await trio.sleep(119)
    assert len(driver.made("CreateVolume")) > 50
    # Two polls, and four looks in each of the two minutes.
    assert len(driver.made("GetCapacity")) - before <= ZONES * (2 + 4 * 2)
    assert trio.current_time() - began == 119


async def test_what_a_failure_has_changed_is_asked_within_a_quarter_of_the_interval(cluster: Cluster) -> None:
    driver = await start(cluster)
    driver.faults.add(Fault(code="INTERNAL", times=2))
    before = len(driver.made("GetCapacity"))
    cluster.claim("claim", "fast", node="n1")
    await trio.sleep(0.5)
    assert len(driver.made("GetCapacity")) == before + ZONES  # at once
    await trio.sleep(1)
    assert len(driver.made("CreateVolume")) == 2
    assert len(driver.made("GetCapacity")) == before + ZONES
    await trio.sleep(16)
    assert len(driver.made("GetCapacity")) >= before + 2 * ZONES


async def test_the_segment_without_room_is_asked_first(cluster: Cluster) -> None:
    """One worker with all pairs of the class before it."""
    driver = await start(cluster, replace(SETTINGS, threads=1))
    driver.faults.add(Fault(rpc="GetCapacity", delay=2.0, times=None))
    driver.faults.add(Fault(code="RESOURCE_EXHAUSTED", times=2))
    before = len(driver.made("GetCapacity"))

    def asked() -> list[str]:
        calls = driver.made("GetCapacity")[before:]
        return [call.request.accessible_topology.segments[ZONE] for call in calls]

    cluster.claim("a", "fast", node="n7")
    await trio.sleep(5)
    # The rest of the class is in the queue, in any order.
    number = next(number for number in range(ZONES) if f"z-{number}" not in asked())
    cluster.claim("b", "fast", node=f"n{number}")
    await trio.sleep(5)
    assert asked()[0] == "z-7"
    assert asked()[3] == f"z-{number}"


async def test_a_claim_without_a_node_has_no_segment_to_ask_first(cluster: Cluster) -> None:
    driver = await start(cluster, replace(SETTINGS, immediate_binding=True))
    driver.faults.add(Fault(code="RESOURCE_EXHAUSTED", times=1))
    before = len(driver.made("GetCapacity"))
    cluster.claim("a", "now")
    await trio.sleep(0.5)
    assert len(driver.made("GetCapacity")) == before + ZONES


async def test_the_age_is_that_of_the_pair_that_waits_longest_for_an_answer() -> None:
    """A new pair counts from when it is wanted, one that is gone does not count."""
    freshness, old, new = Freshness(15.0), Pair(Z1, "fast"), Pair(Z2, "fast")
    assert freshness.age([]) == 0
    freshness.keep([old])
    await trio.sleep(10)
    assert freshness.age([old]) == pytest.approx(10)
    freshness.answered(old)
    await trio.sleep(5)
    assert freshness.age([old, new]) == pytest.approx(5)
    await trio.sleep(5)
    freshness.answered(old)
    assert freshness.age([old, new]) == pytest.approx(5)
    assert freshness.age([old]) == pytest.approx(0)
