"""Killed with -9 while volumes are made, their claims deleted before the next start: nothing is left (design.md 6)."""

import signal

import pytest
import trio

from tests.faults.gateway import Gateway, Moment
from tests.faults.test_crashes import at_call, at_request, bound_once
from tests.journeys.objects import CLAIM, CLASS
from tests.journeys.real import Real
from tests.journeys.test_journal import QUICK, TOLD, keeping
from tests.journeys.world import Rule

pytestmark = pytest.mark.cluster

MOMENTS = ["before", "after"]
JOURNAL = "^PUT /apis/coordination.k8s.io/.*-journal-00"
WRITES = {
    "the journal's write": (JOURNAL, 0),
    "CreateVolume": ("", 0),
    "the PersistentVolume's write": ("^POST /api/v1/persistentvolumes", 0),
    "the entry's end": (JOURNAL, 1),
}


async def settled(world: Real) -> None:
    """The journal is empty."""

    async def empty() -> bool:
        return not await world.journal()

    await world.wait("no entry is left", empty)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("claim", ["lives", "is deleted", "is deleted with its class"])
async def test_whatever_a_kill_cuts_off_nothing_is_left(
    real_world: Real, gate: Gateway, write: str, moment: Moment, claim: str
) -> None:
    world = real_world
    await world.storage_class()
    request, skip = WRITES[write]
    if request:
        crash = at_request(world, gate, request, moment, skip=skip)
    else:
        crash = at_call(world, Rule("CreateVolume"), moment)
    await world.start(*keeping(world, *QUICK))
    await world.wait("the journal is taken over", lambda: _logged(world, "Took over the volume journal"))
    await world.claim("data")
    with trio.fail_after(30):
        await crash()
    if claim != "lives":
        await world.delete(CLAIM, "data")
        await world.gone(CLAIM, "data")
        if "class" in claim:
            await world.delete(CLASS, world.class_name)
    await world.start(*keeping(world, *QUICK))
    if claim == "lives":
        await bound_once(world, "data")
    else:
        await world.nothing_left()
    await settled(world)
    assert TOLD not in world.log()
    if claim == "lives":
        await bound_once(world, "data")
    else:
        await world.nothing_left()


async def _logged(world: Real, text: str) -> bool:
    return text in world.log()


async def test_a_hundred_volumes_that_a_kill_cut_off_are_all_deleted(real_world: Real) -> None:
    world = real_world
    await world.storage_class()
    world.rules(Rule("CreateVolume", delay=3600.0, done=True))
    names = [f"data-{number}" for number in range(100)]
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(world.claim, name)
    await world.start(*keeping(world))

    async def all_made() -> bool:
        return len(world.volumes()) == len(names)

    await world.wait("all volumes are made", all_made)
    await world.kill()
    assert len(await world.journal()) == len(names)
    await world.delete(CLAIM, *names)
    world.rules()
    await world.start(*keeping(world, *QUICK))
    await world.nothing_left()
    await settled(world)
    assert TOLD not in world.log()


async def test_a_leader_that_was_frozen_before_its_calls_asks_the_driver_for_nothing(
    real_world: Real, gate: Gateway
) -> None:
    """It has the answer of the journal's write when it wakes, and another one has led and judged in between."""
    world = real_world
    election = ("--leader-election", "--leader-election-lease-duration=4s", "--leader-election-renew-deadline=3s")
    flags = keeping(world, *election, "--leader-election-retry-period=1s", "--timeout=2s")
    names = [f"data-{number}" for number in range(60)]
    await world.storage_class()
    for name in names:
        await world.claim(name)
    answer = gate.hold(JOURNAL)
    await world.start(*flags)

    async def entered() -> bool:
        return bool(await world.journal())

    await world.wait("the first entries are there", entered)
    world.send(signal.SIGSTOP)
    frozen = world.let_go()
    try:
        answer.set()
        await world.delete(CLAIM, *names)
        await world.start(*flags)
        await settled(world)
        before = len(world.calls("CreateVolume"))
        frozen.send_signal(signal.SIGCONT)
        with trio.fail_after(30):
            assert await frozen.wait() == 1
        await trio.sleep(1)
        assert len(world.calls("CreateVolume")) == before
        await world.nothing_left()
        assert not await world.journal()
    finally:
        frozen.kill()
