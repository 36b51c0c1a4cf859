"""The API server fails in all the ways it can, on virtual time: nothing is made twice, nothing is left over."""

import pytest
import trio

from sandbox.api.faults import Fault
from tests.journeys.embedded import Embedded
from tests.journeys.objects import CLAIM, CLASS
from tests.journeys.world import Rule

OUTAGE = 600.0


async def bound_and_given_back(world: Embedded, *names: str) -> None:
    """Every claim has one volume, and gives it back."""
    await world.bound(*names)
    assert len(world.volumes()) == len(await world.own_volumes()) == len(names)
    await world.delete(CLAIM, *names)
    await world.nothing_left()


async def test_a_volume_object_that_cannot_be_saved_for_minutes(sandbox_world: Embedded) -> None:
    world = sandbox_world
    refused = world.server.faults.add(Fault(verb="create", kind="PersistentVolume", code=500, times=None))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.asked("CreateVolume")
    await trio.sleep(OUTAGE)
    assert refused.hits > 10
    world.server.faults.clear()
    await bound_and_given_back(world, "data")
    assert len(world.calls("CreateVolume")) == 1
    assert len(world.calls("DeleteVolume")) == 1


async def test_an_unsaved_volume_gets_a_last_try_when_the_process_stops(sandbox_world: Embedded) -> None:
    world = sandbox_world
    refused = world.server.faults.add(Fault(verb="create", kind="PersistentVolume", code=500, times=None))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.asked("CreateVolume")
    await trio.sleep(OUTAGE)
    tries = refused.hits
    world.server.faults.clear()  # the next try of its own would be half a minute away
    assert await world.stop() == 0
    assert refused.hits == tries
    await world.bound("data")
    assert len(world.volumes()) == 1


async def test_an_unsaved_volume_is_written_though_the_grace_is_used_up(sandbox_world: Embedded) -> None:
    world = sandbox_world
    refused = world.server.faults.add(Fault(verb="create", kind="PersistentVolume", code=500, times=None))
    await world.start("--shutdown-grace-period=5s", "--timeout=1h")
    await world.storage_class()
    await world.claim("data")
    await world.asked("CreateVolume")
    await trio.sleep(OUTAGE)
    tries = refused.hits
    world.rules(Rule(match="/endless$", delay=1800.0))
    await world.claim("endless")
    await world.asked("CreateVolume", lambda calls: len(calls) == 2)
    refused.times = tries  # taken from now on
    assert await world.stop() == 0
    await world.bound("data")


async def test_an_unsaved_volume_outlives_a_change_of_the_driver(sandbox_world: Embedded) -> None:
    world = sandbox_world
    refused = world.server.faults.add(Fault(verb="create", kind="PersistentVolume", code=500, times=None))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.asked("CreateVolume")
    await trio.sleep(OUTAGE)
    await world.stop_driver()
    await world.start_driver(controller=("CREATE_DELETE_VOLUME",))
    await trio.sleep(OUTAGE)
    assert refused.hits > 20
    world.server.faults.clear()
    await bound_and_given_back(world, "data")
    assert len(world.calls("CreateVolume")) == 1


async def test_a_volume_saved_by_an_answer_that_was_lost(sandbox_world: Embedded) -> None:
    world = sandbox_world
    world.server.faults.add(Fault(verb="create", kind="PersistentVolume", cut="after"))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await bound_and_given_back(world, "data")
    assert len(world.calls("CreateVolume")) == 1


async def test_a_stale_claim_cache_makes_no_second_volume(sandbox_world: Embedded) -> None:
    """design.md 3, rule 1: bound, deleted and reclaimed while the claim watch stands still."""
    world = sandbox_world
    world.rules(Rule(delay=1.0))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.asked("CreateVolume")
    world.server.faults.stall_watches("PersistentVolumeClaim")
    await world.bound("data")
    await world.delete(CLAIM, "data")
    await world.nothing_left()
    await world.delete(CLASS, world.class_name)  # made anew, it wakes up the claims that seem to wait for it
    await world.storage_class()
    await trio.sleep(30)
    assert len(world.calls("CreateVolume")) == 1
    world.server.faults.resume_watches()
    await world.claim("next")
    await bound_and_given_back(world, "next")
    assert len(world.calls("CreateVolume")) == 2


async def test_watches_that_are_cut_and_versions_that_are_gone(sandbox_world: Embedded) -> None:
    world = sandbox_world
    names = [f"data-{number}" for number in range(10)]
    await world.start()
    await world.storage_class()
    for name in names:
        await world.claim(name)
        world.server.faults.cut_watches()
        world.server.objects.storage.compact()
    world.server.faults.add(Fault(verb="watch", code=410, times=5))
    await bound_and_given_back(world, *names)
    assert len(world.calls("CreateVolume")) == len(names)


async def test_a_server_that_asks_for_patience(sandbox_world: Embedded) -> None:
    world = sandbox_world
    names = [f"data-{number}" for number in range(10)]
    for verb in ("list", "watch", "create", "patch", "delete"):
        world.server.faults.add(Fault(verb=verb, agent="csi-provisioner*", code=429, retry_after=2, times=5))
    await world.start()
    await world.storage_class()
    for name in names:
        await world.claim(name)
    await bound_and_given_back(world, *names)
    assert len(world.calls("CreateVolume")) == len(world.calls("DeleteVolume")) == len(names)


async def test_a_server_that_is_slow(sandbox_world: Embedded) -> None:
    world = sandbox_world
    world.server.faults.add(Fault(agent="csi-provisioner*", delay=20.0, times=None))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await bound_and_given_back(world, "data")
    assert len(world.calls("CreateVolume")) == len(world.calls("DeleteVolume")) == 1


@pytest.mark.parametrize("cut", ["before", "after", "answer"])
@pytest.mark.parametrize("verb", ["create", "delete", "patch"])
async def test_a_write_whose_connection_breaks(sandbox_world: Embedded, verb: str, cut: str) -> None:
    world = sandbox_world
    fault = Fault(verb=verb, kind="PersistentVolume", agent="csi-provisioner*")
    fault.cut = cut  # type: ignore[assignment]
    world.server.faults.add(fault)
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await bound_and_given_back(world, "data")
    assert fault.hits == 1
    assert len(world.calls("CreateVolume")) == len(world.calls("DeleteVolume")) == 1


async def test_a_server_that_is_away_while_the_driver_works(sandbox_world: Embedded) -> None:
    world = sandbox_world
    world.rules(Rule(delay=5.0))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.asked("CreateVolume")
    world.server.faults.add(Fault(agent="csi-provisioner*", cut="before", times=None))
    world.server.faults.cut_watches()
    await trio.sleep(OUTAGE)
    world.server.faults.clear()
    await bound_and_given_back(world, "data")
    assert len(world.calls("CreateVolume")) == len(world.calls("DeleteVolume")) == 1
