"""The edges of a process's time on the real control plane: a stop while nothing answers, a leader that was frozen."""

import signal
import time

import pytest
import trio

from tests.faults.gateway import Gateway
from tests.journeys.real import Real
from tests.journeys.world import Rule

pytestmark = pytest.mark.cluster

SAVES = "^POST /api/v1/persistentvolumes"


def _as_leader(world: Real) -> tuple[str, str]:
    return "--leader-election", f"--leader-election-namespace={world.plane.provisioner[0]}"


async def _unsaved(world: Real, gate: Gateway, *names: str) -> trio.Event:
    """All are made, and wait to be saved until the event is set."""
    accept = gate.refuse(SAVES)
    for name in names:
        await world.claim(name)

    async def waiting() -> bool:
        return world.log().count("Could not save the PersistentVolume") == len(names)

    await world.wait("all saves wait", waiting)
    return accept


async def test_a_stop_while_the_api_server_is_away_waits_for_it(real_world: Real) -> None:
    world = real_world
    world.rules(Rule(delay=2.0))
    await world.storage_class()
    await world.claim("data")
    await world.start()
    await world.asked("CreateVolume")
    world.plane.kill_apiserver()
    world.send(signal.SIGTERM)
    await trio.sleep(5)
    await trio.to_thread.run_sync(world.plane.start_apiserver)
    assert await world.ended() == 0
    assert "is not written" not in world.log()
    await world.bound("data")
    assert len(world.made()) == 1


@pytest.mark.parametrize("election", [False, True], ids=["alone", "leader"])
async def test_a_stop_while_the_api_server_is_frozen_ends_in_time_and_says_what_is_left(
    real_world: Real, gate: Gateway, election: bool
) -> None:
    world = real_world
    await world.storage_class()
    await world.start("--shutdown-grace-period=9s", *(_as_leader(world) if election else ()))
    await _unsaved(world, gate, "data")
    world.plane.freeze_apiserver()
    try:
        since = time.monotonic()
        assert await world.stop() == 0
        took = time.monotonic() - since
    finally:
        world.plane.thaw_apiserver()
    assert 6.5 < took < 10
    [volume_id] = world.volumes()
    [line] = [line for line in world.log().splitlines() if "is not written" in line]
    assert volume_id in line
    assert f"{world.api.ns}/data" in line


async def test_an_undo_has_its_time_with_an_election(real_world: Real) -> None:
    world = real_world
    world.rules(Rule(times=1, capacity=1), Rule("DeleteVolume", delay=4.0))
    await world.storage_class()
    await world.claim("data")
    await world.start(*_as_leader(world))
    await world.bound("data")
    assert "may be left over" not in world.log()
    assert len(world.made()) == 2
    assert await world.stop() == 0


async def test_a_leader_that_was_frozen_past_its_lease_writes_nothing(real_world: Real, gate: Gateway) -> None:
    world = real_world
    names = [f"data-{number}" for number in range(60)]
    await world.storage_class()
    await world.start(*_as_leader(world))
    accept = await _unsaved(world, gate, *names)
    world.send(signal.SIGSTOP)
    await trio.sleep(20)
    accept.set()
    world.send(signal.SIGCONT)
    assert await world.ended() == 1
    assert await world.own_volumes() == {}
    assert len(world.volumes()) == len(names)
    await world.start()
    await world.bound(*names)
    assert len(world.made()) == len(names)
