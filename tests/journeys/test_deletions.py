"""Volumes that are to go, and what holds them."""

from tests.journeys.objects import (
    ATTACHMENT,
    CLAIM,
    VOLUME,
    VOLUME_FINALIZER,
    attachment,
    finalizers,
    phase,
    static_volume,
)
from tests.journeys.world import Rule, World


async def test_a_deletion_that_fails_is_told_and_tried_again(world: World) -> None:
    world.rules(Rule("DeleteVolume", error="INTERNAL", times=2))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    name = (await world.bound("data"))["metadata"]["name"]
    await world.delete(CLAIM, "data")
    failed = await world.event(name, "VolumeFailedDelete", lambda event: event["count"] == 2)
    assert "attempt 2" in failed["message"]
    await world.gone(VOLUME, name)
    assert [call.code for call in world.calls("DeleteVolume")] == ["INTERNAL", "INTERNAL", "OK"]
    await world.nothing_left()


async def test_an_attached_volume_waits_for_its_detachment(world: World) -> None:
    await world.stop_driver()
    await world.start_driver(controller=("CREATE_DELETE_VOLUME", "PUBLISH_UNPUBLISH_VOLUME"))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    name = (await world.bound("data"))["metadata"]["name"]
    attached = world.api.unique("attached")
    await world.create(ATTACHMENT, attachment(attached, name))
    await world.delete(CLAIM, "data")
    waits = await world.event(name, "VolumeDelete")
    assert "node-1" in waits["message"]
    volume = await world.get(VOLUME, name)
    assert volume is not None
    assert VOLUME_FINALIZER in finalizers(volume)
    assert phase(volume) == "Released"
    assert world.calls("DeleteVolume") == []
    await world.delete(ATTACHMENT, attached)
    await world.nothing_left()


async def test_a_static_volume_of_the_driver_is_deleted_too(world: World) -> None:
    await world.start()
    name = world.api.unique("static")
    await world.create(VOLUME, static_volume(name, "", world.driver, "made-by-hand"))
    await world.claim("data", storageClassName="", volumeName=name)
    await world.bound("data")
    await world.until(VOLUME, name, lambda volume: len(finalizers(volume)) == 2)
    assert world.calls("CreateVolume") == []
    await world.delete(CLAIM, "data")
    await world.gone(VOLUME, name)
    assert [call.volume_id for call in world.calls("DeleteVolume")] == ["made-by-hand"]
