"""Claims that get a volume and give it back, and those that are left alone."""

from tests.cluster.controlplane import free_ports
from tests.faults.scrape import metric
from tests.journeys.objects import CLAIM, SELECTED_NODE, STORAGE_PROVISIONER, VOLUME, VOLUME_FINALIZER, finalizers
from tests.journeys.world import Rule, World


async def test_a_claim_is_bound_and_gives_its_volume_back(world: World) -> None:
    [port] = free_ports(1)
    await world.start(f"--http-endpoint=127.0.0.1:{port}")
    await world.storage_class()
    claim = await world.claim("data")
    volume = await world.bound("data")
    name = volume["metadata"]["name"]
    assert name == f"pvc-{claim['metadata']['uid']}"
    assert world.volumes() == {volume["spec"]["csi"]["volumeHandle"]: name}
    assert VOLUME_FINALIZER in finalizers(volume)
    await world.event("data", "ProvisioningSucceeded")
    reasons = [event["reason"] for event in await world.events("data")]
    assert reasons == ["ProvisioningSucceeded"]
    await world.delete(CLAIM, "data")
    await world.gone(VOLUME, name)
    assert world.volumes() == {}
    assert (len(world.calls("CreateVolume")), len(world.calls("DeleteVolume"))) == (1, 1)
    for wait in ("claim_to_volume", "overhead", "bind_wait", "release_to_gone"):
        assert await metric(port, f"csi_provisioner_{wait}_seconds_count") == 1
        assert 0 <= (await metric(port, f"csi_provisioner_{wait}_seconds_sum") or 0.0) < 10
    assert await metric(port, "csi_provisioner_pending_claims") is None


async def test_many_claims_at_once(world: World) -> None:
    names = [f"data-{number}" for number in range(30)]
    await world.storage_class()
    for name in names:
        await world.claim(name)
    await world.start()
    await world.bound(*names)
    assert len(world.volumes()) == len(await world.own_volumes()) == len(names)
    await world.delete(CLAIM, *names)
    await world.nothing_left()
    assert len(world.calls("CreateVolume")) == len(world.calls("DeleteVolume")) == len(names)


async def test_late_binding_waits_for_a_node(world: World) -> None:
    await world.start()
    late = await world.storage_class("late", volumeBindingMode="WaitForFirstConsumer")
    await world.storage_class()
    await world.claim("waits", late)
    await world.claim("data")
    await world.bound("data")
    assert len(world.calls("CreateVolume")) == 1
    await world.patch(CLAIM, "waits", {"metadata": {"annotations": {SELECTED_NODE: "node-1"}}})
    await world.bound("waits")
    await world.delete(CLAIM, "waits", "data")
    await world.nothing_left()


async def test_a_retained_volume_stays_without_our_finalizer(world: World) -> None:
    await world.start()
    await world.storage_class(reclaimPolicy="Retain")
    await world.claim("data")
    name = (await world.bound("data"))["metadata"]["name"]
    await world.until(VOLUME, name, lambda volume: VOLUME_FINALIZER not in finalizers(volume))
    await world.delete(CLAIM, "data")
    await world.until(VOLUME, name, lambda volume: volume["status"]["phase"] == "Released")
    await world.claim("next")
    await world.bound("next")
    assert len(world.volumes()) == 2
    assert world.calls("DeleteVolume") == []


async def test_the_volume_object_deleted_before_its_claim(world: World) -> None:
    await world.start()
    await world.storage_class()
    await world.claim("data")
    name = (await world.bound("data"))["metadata"]["name"]
    await world.delete(VOLUME, name)
    await world.until(VOLUME, name, lambda volume: bool(volume["metadata"].get("deletionTimestamp")))
    await world.claim("other")
    await world.bound("other")
    assert len(world.volumes()) == 2
    await world.delete(CLAIM, "data")
    await world.gone(VOLUME, name)
    assert len(world.volumes()) == 1
    assert len(world.calls("DeleteVolume")) == 1


async def test_claims_of_other_provisioners_are_left_alone(world: World) -> None:
    await world.start()
    foreign = await world.storage_class("foreign", provisioner="other.csi.example.com")
    await world.storage_class()
    before = await world.claim("theirs", foreign)
    await world.claim("ours")
    await world.bound("ours")
    await world.event("ours", "ProvisioningSucceeded")
    assert len(world.calls("CreateVolume")) == 1
    assert await world.events("theirs") == []
    theirs = await world.get(CLAIM, "theirs")
    assert theirs is not None
    assert finalizers(theirs) == finalizers(before)


async def test_a_class_that_comes_late(world: World) -> None:
    await world.start()
    await world.claim("data")
    annotations = {STORAGE_PROVISIONER: world.driver}
    await world.patch(CLAIM, "data", {"metadata": {"annotations": annotations}})
    other = await world.storage_class("other")
    await world.claim("first", other)
    await world.bound("first")
    assert len(world.calls("CreateVolume")) == 1
    await world.storage_class()
    await world.bound("data")
    assert len(world.volumes()) == 2


async def test_failures_are_told_with_their_number_and_end_in_a_volume(world: World) -> None:
    world.rules(Rule(match="/data$", times=3, error="INTERNAL"))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.bound("data")
    assert len(world.calls("CreateVolume")) == 4
    failed = await world.event("data", "ProvisioningFailed", lambda event: event["count"] == 3)
    assert "attempt 3" in failed["message"]
    assert len(await world.events("data", "ProvisioningFailed")) == 1
    await world.event("data", "ProvisioningSucceeded")


async def test_a_claim_deleted_while_its_volume_may_be_made(world: World) -> None:
    """The driver says it timed out, having made the volume: it is asked until that is certain, then reclaimed."""
    world.rules(Rule(match="/data$", error="DEADLINE_EXCEEDED", done=True))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.asked("CreateVolume")
    await world.delete(CLAIM, "data")
    await world.gone(CLAIM, "data")
    seen = len(world.calls("CreateVolume"))
    await world.asked("CreateVolume", lambda calls: len(calls) > seen + 1)
    assert len(world.volumes()) == 1
    assert world.calls("DeleteVolume") == []
    world.rules()
    await world.asked("DeleteVolume")
    await world.nothing_left()
    assert len(world.calls("DeleteVolume")) == 1
