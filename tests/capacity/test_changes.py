"""Capacity.md 5 to 10 with the whole program: what follows when segments, classes, objects and volumes change."""

from typing import Any

import pytest
import trio
from msgspec.structs import replace

from csi_provisioner.settings import RetrySettings
from sandbox.api.faults import Fault as Refusal
from sandbox.driver import Driver, Fault
from tests.capacity.objects import DRIVER, LABELS
from tests.capacity.publishing import CONFIG, KIND, SETTINGS, ZONE, exists, made, start
from tests.embedded import VIRTUAL, Cluster

FAST = ("z-1", "fast")
HOUR = replace(SETTINGS, poll_interval=3600.0)


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
async def driver(cluster: Cluster) -> Driver:
    """One zone and one class, published; nothing is polled."""
    cluster.node("n1", DRIVER, zone="z-1")
    cluster.storage_class("fast", DRIVER)
    driver = await start(cluster, HOUR)
    assert set(made(cluster)) == {FAST}
    driver.calls.clear()
    cluster.server.calls.clear()
    return driver


def edit(cluster: Cluster, kind: str, name: str, namespace: str = "", **metadata: Any) -> None:
    cluster.objects.edit(kind, name, namespace, change=lambda obj: obj["metadata"].update(metadata))


# ---- objects


async def test_an_object_that_somebody_deletes_is_made_again(cluster: Cluster, driver: Driver) -> None:
    """capacity.md 9."""
    before = made(cluster)[FAST]["metadata"]["name"]
    cluster.objects.delete(KIND, before, "ns1")
    await trio.sleep(5)
    assert made(cluster)[FAST]["metadata"]["name"] != before
    assert cluster.counts(KIND) == {"create": 1}


async def test_an_object_made_anew_with_another_size_is_put_right(cluster: Cluster, driver: Driver) -> None:
    """Adopted, and put right by the next look at the pair: here another one of the object that is gone.
    capacity.md 9."""
    before = made(cluster)[FAST]["metadata"]["name"]
    cluster.server.faults.stall_watches(KIND)
    cluster.objects.delete(KIND, before, "ns1")
    exists(cluster, before, *FAST, capacity="1Gi")
    cluster.server.faults.resume_watches()
    await trio.sleep(5)
    obj = made(cluster)[FAST]
    assert (obj["metadata"]["name"], obj["capacity"]) == (before, "10Gi")
    assert cluster.counts(KIND) == {"patch": 1}


async def test_an_object_that_lost_our_labels_is_replaced(cluster: Cluster, driver: Driver) -> None:
    """capacity.md 9."""
    before = made(cluster)[FAST]["metadata"]["name"]
    edit(cluster, KIND, before, "ns1", labels={})
    await trio.sleep(5)
    assert len(cluster.objects.all(KIND)) == 2
    assert cluster.counts(KIND) == {"create": 1}


async def test_what_somebody_changed_is_put_right_by_the_poll(cluster: Cluster) -> None:
    """capacity.md 9."""
    cluster.node("n1", DRIVER, zone="z-1")
    cluster.storage_class("fast", DRIVER)
    await start(cluster, SETTINGS, settled=10)
    name = made(cluster)[FAST]["metadata"]["name"]
    cluster.objects.edit(KIND, name, "ns1", change=lambda obj: obj.update(capacity="7Gi"))
    await trio.sleep(45)
    assert made(cluster)[FAST]["capacity"] == "7Gi"
    await trio.sleep(10)
    assert made(cluster)[FAST]["capacity"] == "10Gi"
    assert cluster.counts(KIND) == {"create": 1, "patch": 1}


async def test_polling_writes_nothing_while_nothing_changes(cluster: Cluster) -> None:
    """capacity.md 7."""
    cluster.node("n1", DRIVER, zone="z-1")
    cluster.storage_class("fast", DRIVER)
    driver = await start(cluster, SETTINGS, settled=630)
    assert len(driver.made("GetCapacity")) == 11  # at once, and each minute
    assert cluster.counts(KIND) == {"create": 1}


async def test_versions_of_before_the_watch_has_come_are_no_conflict(cluster: Cluster, driver: Driver) -> None:
    """The watch lags: what we wrote ourselves is known all the same, and no second object is made. capacity.md 15.6."""
    cluster.server.faults.stall_watches(KIND)
    cluster.node("n2", DRIVER, zone="z-2")
    await trio.sleep(5)
    for size, claim in ((1 << 30, "a"), (2 << 30, "b")):
        cluster.claim(claim, "fast", size=str(size), node="n2")
        await cluster.until(lambda claim=claim: cluster.is_bound(claim))
        await trio.sleep(5)
    assert cluster.counts(KIND) == {"create": 1, "patch": 2}
    assert made(cluster)["z-2", "fast"]["capacity"] == "17Gi"
    cluster.server.faults.resume_watches()
    await trio.sleep(5)
    assert cluster.counts(KIND) == {"create": 1, "patch": 2}


async def test_an_object_that_went_before_the_watch_showed_it_is_made_again(cluster: Cluster, driver: Driver) -> None:
    """capacity.md 15.6."""
    cluster.server.faults.stall_watches(KIND)
    cluster.node("n2", DRIVER, zone="z-2")
    await trio.sleep(5)
    first = made(cluster)["z-2", "fast"]["metadata"]["name"]
    cluster.objects.delete(KIND, first, "ns1")
    cluster.objects.storage.compact()
    cluster.server.faults.cut_watches(KIND)
    cluster.server.faults.resume_watches()
    await trio.sleep(60)
    cluster.claim("a", "fast", node="n2")  # the next look at the pair
    await cluster.until(lambda: cluster.is_bound("a"))
    await trio.sleep(5)
    assert ("z-2", "fast") in made(cluster)
    assert cluster.counts(KIND) == {"create": 2}


# ---- segments and classes


async def test_segments_follow_the_nodes(cluster: Cluster, driver: Driver) -> None:
    """capacity.md 15.9."""
    cluster.node("n2", DRIVER, zone="z-2")
    await trio.sleep(5)
    assert set(made(cluster)) == {FAST, ("z-2", "fast")}
    edit(cluster, "Node", "n2", labels={"acme.test/zone": "z-3"})
    await trio.sleep(5)
    assert set(made(cluster)) == {FAST, ("z-3", "fast")}
    cluster.objects.delete("Node", "n2")
    await trio.sleep(5)
    assert set(made(cluster)) == {FAST}
    assert cluster.counts(KIND) == {"create": 2, "delete": 2}


async def test_a_burst_of_nodes_is_looked_at_once(cluster: Cluster, driver: Driver) -> None:
    """capacity.md 5."""
    for number in range(200):
        cluster.node(f"burst-{number}", DRIVER, zone="z-2")
        edit(cluster, "Node", f"burst-{number}", annotations={"kubelet": "was here"})
        await trio.lowlevel.checkpoint()
    await trio.sleep(5)
    assert cluster.counts(KIND) == {"create": 1}
    assert len(driver.made("GetCapacity")) == 1  # old pairs are not asked for again


async def test_immediate_classes_do_not_end_the_round(cluster: Cluster, driver: Driver) -> None:
    """capacity.md 15.1."""
    cluster.storage_class("a-first", DRIVER, late=False)
    cluster.storage_class("z-last", DRIVER)
    cluster.storage_class("other", "other.acme.test")
    cluster.node("n2", DRIVER, zone="z-2")
    await trio.sleep(5)
    assert set(made(cluster)) == {(zone, name) for zone in ("z-1", "z-2") for name in ("fast", "z-last")}


async def test_objects_go_with_their_class(cluster: Cluster, driver: Driver) -> None:
    """capacity.md 6."""
    cluster.objects.delete("StorageClass", "fast")
    await trio.sleep(5)
    assert made(cluster) == {}
    assert cluster.counts(KIND) == {"delete": 1}


# ---- volumes


async def test_a_volume_refreshes_the_pairs_it_touches(cluster: Cluster, driver: Driver) -> None:
    """Only the segment the volume lies in, when it is made and when it is deleted.
    capacity.md 15.4, capacity.md 15.8."""
    cluster.node("n2", DRIVER, zone="z-2")
    await trio.sleep(5)
    driver.calls.clear()
    cluster.claim("a", "fast", node="n2", size="3Gi", volumeMode="Block")
    await cluster.until(lambda: cluster.is_bound("a"))
    await trio.sleep(5)
    assert [call.request.accessible_topology.segments for call in driver.made("GetCapacity")] == [{ZONE: "z-2"}]
    assert made(cluster)["z-2", "fast"]["capacity"] == "17Gi"
    cluster.objects.delete("PersistentVolumeClaim", "a", "default")
    await cluster.until(lambda: not driver.state.volumes)
    await trio.sleep(5)
    assert [call.request.accessible_topology.segments for call in driver.made("GetCapacity")] == [{ZONE: "z-2"}] * 2
    assert made(cluster)["z-2", "fast"]["capacity"] == "20Gi"


@pytest.mark.parametrize(
    ("node", "calls"), [("n1", ["z-1", "z-2"]), ("nowhere", ["z-1", "z-2"])], ids=["exhausted", "node-is-gone"]
)
async def test_a_failure_refreshes_the_pairs_of_the_class(
    cluster: Cluster, driver: Driver, node: str, calls: list[str]
) -> None:
    """capacity.md 10."""
    cluster.node("n2", DRIVER, zone="z-2")
    cluster.storage_class("other", DRIVER)
    await trio.sleep(5)
    driver.calls.clear()
    driver.faults.add(Fault(code="RESOURCE_EXHAUSTED"))
    cluster.claim("a", "fast", node=node)
    await trio.sleep(5)
    asked = driver.made("GetCapacity")
    assert sorted(call.request.accessible_topology.segments[ZONE] for call in asked) == calls


async def test_a_try_that_changed_nothing_refreshes_nothing(cluster: Cluster, driver: Driver) -> None:
    """capacity.md 10."""
    cluster.objects.create("CSINode", {"metadata": {"name": "bare"}, "spec": {"drivers": []}})
    await trio.sleep(5)
    driver.calls.clear()
    cluster.claim("a", "fast", node="bare")
    await trio.sleep(5)
    assert any(line.startswith("ProvisioningFailed") for line in cluster.events("a"))
    assert driver.made("GetCapacity") == []


# ---- trouble


async def test_a_driver_that_does_not_know_is_asked_again(cluster: Cluster) -> None:
    """With backoff for ever; the object there is stays as it is, and nobody gets an event. capacity.md 11."""
    cluster.node("n", DRIVER, zone="z-1")
    cluster.storage_class("fast", DRIVER)
    exists(cluster, "a", *FAST, capacity="1Gi")
    driver = await cluster.driver(CONFIG)
    driver.faults.add(Fault(rpc="GetCapacity", code="UNIMPLEMENTED", times=3))
    cluster.provisioner(cluster.settings(CONFIG, capacity=HOUR, retries=RetrySettings(start=1.0)))
    await trio.sleep(5)
    assert len(driver.made("GetCapacity")) == 3  # at 0, 1 and 3 s
    assert cluster.counts(KIND) == {}
    await trio.sleep(10)
    assert len(driver.made("GetCapacity")) == 4
    assert cluster.counts(KIND) == {"patch": 1}
    assert cluster.objects.all("Event") == []


async def test_get_capacity_has_a_deadline_p19_request_11(cluster: Cluster) -> None:
    """capacity.md 15.11."""
    cluster.node("n", DRIVER, zone="z-1")
    cluster.storage_class("fast", DRIVER)
    driver = await cluster.driver(CONFIG)
    driver.faults.add(Fault(rpc="GetCapacity", hang=True, times=1))
    cluster.provisioner(cluster.settings(CONFIG, capacity=HOUR))
    await trio.sleep(20)
    assert [(call.code, call.cancelled) for call in driver.made("GetCapacity")] == [(None, True), ("OK", False)]
    assert all(call.deadline is not None and call.deadline <= 10 for call in driver.made("GetCapacity"))
    assert set(made(cluster)) == {FAST}


async def test_parameters_are_not_logged(cluster: Cluster, driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """capacity.md 15.7."""
    driver.faults.add(Fault(rpc="GetCapacity", code="INTERNAL", times=1))
    cluster.storage_class("other", DRIVER, parameters={"password": "hunter2"})
    await trio.sleep(20)
    assert ("z-1", "other") in made(cluster)
    log = capsys.readouterr().err
    assert "GetCapacity" in log
    assert "hunter2" not in log


async def test_what_was_deleted_while_nobody_watched_is_made_again(cluster: Cluster, driver: Driver) -> None:
    """The list afterwards does not have them: as good as the events that were missed. capacity.md 15.14."""
    cluster.node("n2", DRIVER, zone="z-2")
    cluster.storage_class("other", DRIVER)
    await trio.sleep(5)
    before = {key: obj["metadata"]["name"] for key, obj in made(cluster).items()}
    assert len(before) == 4
    cluster.server.faults.stall_watches()
    cluster.objects.delete("StorageClass", "other")
    cluster.objects.delete("CSINode", "n2")
    cluster.objects.delete(KIND, before[FAST], "ns1")
    cluster.objects.storage.compact()
    cluster.server.faults.cut_watches()
    cluster.server.faults.resume_watches()
    await trio.sleep(120)
    assert set(made(cluster)) == {FAST}
    assert made(cluster)[FAST]["metadata"]["name"] != before[FAST]


@pytest.mark.parametrize("code", [403, 409, 422, 500])
async def test_refused_writes_are_tried_again(cluster: Cluster, code: int) -> None:
    """capacity.md 11."""
    cluster.node("n", DRIVER, zone="z-1")
    cluster.storage_class("fast", DRIVER)
    exists(cluster, "old", "z-1", "gone")
    cluster.server.faults.add(Refusal(verb="create", kind=KIND, code=code, skip=1, times=2))  # the start asks first
    cluster.server.faults.add(Refusal(verb="delete", kind=KIND, code=code, times=2))
    await start(cluster, HOUR)
    assert set(made(cluster)) == {FAST}
    assert [len(cluster.server.calls.of(verb, KIND)) for verb in ("create", "delete")] == [1 + 3, 3]


async def test_a_404_that_does_not_name_the_object_is_no_end_of_it(cluster: Cluster) -> None:
    cluster.node("n", DRIVER, zone="z-1")
    cluster.storage_class("fast", DRIVER)
    exists(cluster, "old", "z-1", "gone")
    page = Refusal(verb="delete", kind=KIND, code=404, page="404 page not found\n", times=2)
    cluster.server.faults.add(page)
    await start(cluster, HOUR)
    assert set(made(cluster)) == {FAST}
    assert page.hits == 2


async def test_many_segments_and_classes_settle_with_one_write_each(cluster: Cluster) -> None:
    for number in range(30):
        cluster.node(f"node-{number}", DRIVER, zone=f"zone-{number}")
    for number in range(10):
        cluster.storage_class(f"class-{number}", DRIVER)
    driver = await start(cluster, replace(HOUR, threads=10), settled=0)
    await cluster.until(lambda: len(cluster.objects.all(KIND)) == 300)
    await trio.sleep(600)
    assert cluster.counts(KIND) == {"create": 300}
    assert len(driver.made("GetCapacity")) == 300
    assert all(obj["metadata"]["labels"] == LABELS for obj in cluster.objects.all(KIND))
