"""The driver's process dies or leaves under load, on the real control plane: what ran is no failure."""

import pytest
import trio

from tests.journeys.objects import CLAIM, EVENT, VOLUME_EVENT
from tests.journeys.real import Real
from tests.journeys.world import Rule

pytestmark = pytest.mark.cluster

MANY = [f"data-{number}" for number in range(50)]
OTHERS = MANY[:10]


async def warnings(world: Real) -> set[str]:
    """Which objects the provisioner has warned of."""
    events = [*await world.all(EVENT), *await world.all(VOLUME_EVENT)]
    return {
        event["involvedObject"]["name"]
        for event in events
        if event["type"] == "Warning" and event.get("source", {}).get("component", "").startswith(world.driver)
    }


async def test_fifty_creations_and_fifty_deletions_in_flight_are_no_failures(real_world: Real) -> None:
    world = real_world
    await world.storage_class()
    for name in MANY:
        await world.claim(name)
    for rpc in ("CreateVolume", "DeleteVolume"):
        world.rules(Rule(rpc, delay=60.0))
        if rpc == "CreateVolume":
            await world.start()
        else:
            await world.delete(CLAIM, *MANY)
        await world.asked(rpc, lambda calls: len(calls) == len(MANY))
        await world.stop_driver()
        world.rules()
        await trio.sleep(2)
        await world.start_driver()
        if rpc == "CreateVolume":
            await world.bound(*MANY)
            assert len(world.made()) == len(MANY)
        else:
            await world.nothing_left()
        assert len(world.calls(rpc)) == 2 * len(MANY)
    assert await world.stop() == 0
    assert await warnings(world) == set()
    assert "Failed, will be tried again" not in world.log()


async def test_a_claim_that_kills_the_driver_backs_off_and_the_others_are_served(real_world: Real) -> None:
    world = real_world
    world.rules(Rule(match="/killer$", fatal=True))
    await world.storage_class()
    for name in ("killer", *OTHERS):
        await world.claim(name)

    async def restarts() -> None:
        while True:
            await world.driver_ended()
            await trio.sleep(0.5)
            await world.start_driver()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(restarts)
        await world.start("--retry-interval-start=1s")
        await world.bound(*OTHERS)
        failed = await world.event("killer", "ProvisioningFailed", lambda event: event.get("count", 1) >= 3)
        nursery.cancel_scope.cancel()
    assert "attempt 3; next try in 4 s" in failed["message"]
    asked = [call for call in world.calls("CreateVolume") if "killer" in call.parameters.values()]
    assert len(asked) <= 5
    assert await warnings(world) == {"killer"}


async def test_a_driver_that_is_replaced_ends_what_it_has_taken(real_world: Real) -> None:
    world = real_world
    world.rules(Rule(match="/data-", delay=4.0))
    await world.storage_class()
    for name in OTHERS:
        await world.claim(name)
    await world.start()
    await world.asked("CreateVolume", lambda calls: len(calls) == len(OTHERS))
    await world.replace_driver(grace=30)
    await world.claim("later")
    await world.bound("later")
    await world.bound(*OTHERS)
    assert len(world.calls("CreateVolume")) == len(world.made()) == len(OTHERS) + 1
    assert await warnings(world) == set()
