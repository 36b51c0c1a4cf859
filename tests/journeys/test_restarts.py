"""The driver and the provisioner come and go; work that is open is finished by whoever comes next."""

from tests.journeys.objects import CLAIM, STORAGE_PROVISIONER, from_claim
from tests.journeys.world import Rule, World

LOAD = [f"data-{number}" for number in range(20)]


async def test_open_work_is_taken_up_after_a_restart(world: World) -> None:
    names = LOAD[:3]
    world.rules(Rule(error="ABORTED"))
    await world.start()
    await world.storage_class()
    for name in names:
        await world.claim(name)
    await world.asked("CreateVolume", lambda calls: len({call.name for call in calls}) == len(names))
    assert await world.stop() == 0
    world.rules()
    await world.start()
    await world.bound(*names)
    assert await world.stop() == 0
    await world.delete(CLAIM, *names)
    await world.gone(CLAIM, *names)
    assert len(world.volumes()) == len(names)
    await world.start()
    await world.nothing_left()
    assert len(world.calls("DeleteVolume")) == len(names)


async def test_a_driver_that_crashes_under_load(world: World) -> None:
    world.rules(Rule(delay=0.3))
    await world.start()
    await world.storage_class()
    for name in LOAD:
        await world.claim(name)
    await world.asked("CreateVolume", lambda calls: len(calls) > len(LOAD) // 2)
    await world.stop_driver()
    world.rules()
    await world.start_driver()
    await world.bound(*LOAD)
    assert len(world.volumes()) == len(await world.own_volumes()) == len(LOAD)
    world.rules(Rule("DeleteVolume", delay=0.3))
    await world.delete(CLAIM, *LOAD)
    await world.asked("DeleteVolume", lambda calls: len(calls) > len(LOAD) // 2)
    await world.stop_driver()
    world.rules()
    await world.start_driver()
    await world.nothing_left()


async def test_a_driver_that_comes_back_able_to_clone(world: World) -> None:
    await world.stop_driver()
    await world.start_driver(controller=["CREATE_DELETE_VOLUME"])
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.bound("data")
    await world.claim("copy", **from_claim("data"))
    await world.event("copy", "ProvisioningFailed", lambda event: "CLONE_VOLUME" in event["message"])
    await world.stop_driver()
    await world.start_driver(controller=["CREATE_DELETE_VOLUME", "CLONE_VOLUME"])
    await world.bound("copy")
    await world.delete(CLAIM, "copy", "data")
    await world.nothing_left()


async def test_another_driver_on_the_socket_ends_the_process(world: World) -> None:
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.bound("data")
    await world.stop_driver()
    await world.start_driver(name="another.csi.example.com")
    assert await world.ended() == 1
    assert "another.csi.example.com" in world.log()
    assert len(world.volumes()) == 1


async def test_a_stop_lets_a_running_creation_end(world: World) -> None:
    world.rules(Rule(delay=1.0))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.claim("later")
    await world.asked("CreateVolume", lambda calls: len(calls) == 2)
    assert await world.stop() == 0
    assert [call.code for call in world.calls("CreateVolume")] == ["OK", "OK"]
    await world.bound("data", "later")


async def test_a_stop_while_the_driver_is_away(world: World) -> None:
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.bound("data")
    await world.stop_driver()
    await world.claim("later")
    await world.until(CLAIM, "later", lambda claim: STORAGE_PROVISIONER in claim["metadata"].get("annotations", {}))
    assert await world.stop() == 0
    await world.start_driver()
    await world.start()
    await world.bound("later")
    assert len(world.volumes()) == 2
