"""Many kills and many changes of leaders in a row, with claims in the making: no volume is left, nobody is told of one.

The suite has a few; `KILLS=200 CHANGES=20` in the environment is what was lived once, `SEED=2` are other moments.
"""

import os
import random
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from tests.faults.test_journal import settled
from tests.faults.test_leaders import LEADS, reads, running
from tests.journeys.objects import CLAIM
from tests.journeys.real import Real
from tests.journeys.test_journal import QUICK, TOLD, keeping
from tests.journeys.world import Rule

pytestmark = pytest.mark.cluster

KILLS, CHANGES = int(os.environ.get("KILLS", "4")), int(os.environ.get("CHANGES", "2"))
SEED = int(os.environ.get("SEED", "1"))
SHORT = (
    "--leader-election",
    "--leader-election-lease-duration=6s",
    "--leader-election-renew-deadline=4s",
    "--leader-election-retry-period=1s",
    "--timeout=3s",
)
"""A hold of nine seconds."""
LOOKS = 20
"""Kills until a process may live, and all that is left is looked at: an entry is believed for ten minutes."""


class Load:
    """Claims that come, and go at random."""

    def __init__(self, world: Real, seed: int) -> None:
        self.living: set[str] = set()
        self.chance = random.Random(seed)
        self._world = world
        self._made = 0

    async def come(self, count: int) -> None:
        names = [f"data-{self._made + number}" for number in range(count)]
        self._made += count
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(self._world.claim, name)
        self.living.update(names)

    async def go(self, share: float) -> None:
        gone = {name for name in sorted(self.living) if self.chance.random() < share}
        self.living -= gone
        await self._world.delete(CLAIM, *sorted(gone))

    async def is_well(self) -> None:
        """Each living claim has one volume, and there is no other."""
        world = self._world

        async def well() -> bool:
            own = await world.own_volumes()
            names = sorted(volume["metadata"]["name"] for volume in own.values())
            return set(own) == self.living and sorted(world.volumes().values()) == names

        await world.wait("there are the volumes of the living claims and no others", well)
        await world.bound(*sorted(self.living))
        await settled(world)


async def test_kills_at_random_moments_leave_nothing(real_world: Real) -> None:
    world, load = real_world, Load(real_world, SEED)
    await world.storage_class()
    world.rules(Rule("CreateVolume", delay=0.2, done=True), Rule("DeleteVolume", delay=0.1))
    for number in range(1, KILLS + 1):
        taken = world.log().count("Took over the volume journal")
        await world.start(*keeping(world, *QUICK))
        await load.come(4)

        async def leads(before: int = taken) -> bool:
            return world.log().count("Took over the volume journal") > before

        await world.wait("the journal is taken over", leads)
        await trio.sleep(load.chance.uniform(0, 0.8))
        await world.kill()
        await load.go(0.5)
        if number % LOOKS == 0 or number == KILLS:
            await world.start(*keeping(world, *QUICK))
            await load.is_well()
            assert TOLD not in world.log()
            await world.kill()


CALM = (Rule("CreateVolume", delay=0.5, done=True), Rule("DeleteVolume", delay=0.1))
SLOW = Rule("CreateVolume", match=r"/data-\d*[05]$", delay=2.5, done=True)
"""Every fifth volume is made at once, and the driver says so only when the caller has long been told to stop."""
MANNERS = {
    "that let their calls end": (("--timeout=5s",), CALM, 60.0),
    # Without a second for what is under way; each term's entries wait for the last one's hold, and take turns then.
    "that cut their calls off": ((*SHORT, "--shutdown-grace-period=4s"), (SLOW, *CALM), 180.0),
}
"""Flags, rules of the driver, and the seconds in which all has to be settled."""


@pytest.mark.parametrize("manner", MANNERS)
async def test_changes_of_leaders_under_load_lose_nothing(real_world: Real, tmp_path: Path, manner: str) -> None:
    world, load = real_world, Load(real_world, 2)
    await world.storage_class()
    flags, rules, world.patience = MANNERS[manner]
    world.rules(*rules)
    flags = keeping(world, "--leader-election", *flags)
    logs = [tmp_path / f"{number}.log" for number in range(CHANGES + 2)]
    async with AsyncExitStack() as stack:
        leader = await stack.enter_async_context(running(await world.another(logs[0], *flags)))
        await reads(world, logs[0], LEADS)
        for number in range(1, CHANGES + 1):
            standby = await stack.enter_async_context(running(await world.another(logs[number], *flags)))
            await reads(world, logs[number], "The lease has a holder")
            await load.come(30)
            await trio.sleep(load.chance.uniform(0.1, 1.0))
            leader.send_signal(signal.SIGTERM)
            await load.go(0.5)
            assert await leader.wait() == 0
            await reads(world, logs[number], LEADS)
            leader = standby
        await load.is_well()
        for log in logs[: CHANGES + 1]:
            assert TOLD not in await trio.Path(log).read_text()
