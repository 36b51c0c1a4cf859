"""Who leads next, on the real control plane."""

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest
import trio

from tests.journeys.real import Real

pytestmark = pytest.mark.cluster

LEADS = "Became leader"


def in_a_container(folder: Path) -> tuple[str, ...]:
    """A command that mounts what a kubelet mounts into a container; its last part is new at every start."""
    roots, mounted = folder / "pods" / str(uuid4()) / "containers" / "csi-provisioner", folder / "termination-log"
    roots.mkdir(parents=True)
    mounted.touch()
    log = "log=$1/$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')"
    mount = f'{log}; touch "$log"; mount --bind "$log" "$2"; shift 2; exec "$@"'
    return "unshare", "-m", "sh", "-ec", mount, "sh", str(roots), str(mounted)


def as_leader(world: Real) -> tuple[str, str]:
    return "--leader-election", f"--leader-election-namespace={world.plane.provisioner[0]}"


async def reads(world: Real, log: Path, text: str, times: int = 1) -> str:
    """The time of the line with the text, of so many."""
    found: list[str] = []

    async def there() -> bool:
        lines = (await trio.Path(log).read_text()).splitlines()
        found[:] = [line for line in lines if text in line]
        return len(found) >= times

    await world.wait(f"{text!r} in {log.name}", there)
    return found[times - 1].split()[1]


def seconds(earlier: str, later: str) -> float:
    def of(clock: str) -> float:
        hours, minutes, rest = clock.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(rest)

    return (of(later) - of(earlier)) % 86400


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount as the kubelet makes it needs root")
async def test_a_container_that_was_killed_leads_again_at_once(real_world: Real, tmp_path: Path) -> None:
    world = real_world
    world.wrapper = in_a_container(tmp_path)
    election = as_leader(world)

    async def leads(again: int) -> None:
        async def yes() -> bool:
            return world.log().count(LEADS) == again

        await world.wait("the process leads", yes)

    await world.storage_class()
    await world.start(*election)
    await leads(1)
    await world.kill()
    since = time.monotonic()
    await world.start(*election)
    await leads(2)
    # The interpreter's start is in it; the lease would have lasted for 15 seconds.
    assert time.monotonic() - since < 5
    await world.claim("data")
    await world.bound("data")
    assert "taking a random one" not in world.log()


@asynccontextmanager
async def running(process: trio.Process) -> AsyncIterator[trio.Process]:
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_standby_leads_within_a_second_of_the_release(real_world: Real, tmp_path: Path) -> None:
    world = real_world
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    await world.storage_class()
    async with running(await world.another(logs[0], *as_leader(world))) as first:
        await reads(world, logs[0], LEADS)
        async with running(await world.another(logs[1], *as_leader(world))):
            await reads(world, logs[1], "The lease has a holder")
            await trio.sleep(3)
            first.send_signal(signal.SIGTERM)
            assert await first.wait() == 0
            released = await reads(world, logs[0], "Gave the lease back")
            assert seconds(released, await reads(world, logs[1], LEADS)) < 1
            await world.claim("data")
            await world.bound("data")


async def test_a_standby_with_a_driver_leads_when_the_leader_has_lost_its_own(real_world: Real, tmp_path: Path) -> None:
    world = real_world
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    await world.storage_class()
    async with (
        world.another_driver(tmp_path / "other") as other,
        running(await world.another(logs[0], *as_leader(world))) as first,
    ):
        await reads(world, logs[0], LEADS)
        async with running(await world.another(logs[1], *as_leader(world), driver=other)):
            await reads(world, logs[1], "The lease has a holder")
            await world.stop_driver()
            lost = await reads(world, logs[0], "Lost connection to CSI driver")
            await world.claim("data")
            assert seconds(lost, await reads(world, logs[1], LEADS)) < 17
            await world.bound("data")
            assert len(other.calls("CreateVolume")) == 1
            assert world.made() == []
            events = await world.events("data", "DriverUnavailable")
            assert [event["type"] for event in events] == ["Warning"]
            assert first.returncode is None, "it lives on, and stands by"
            # Nobody leads without a driver, and then the first one that has its driver again.
            await other.kill()
            await reads(world, logs[1], "Gave the lease back")
            await trio.sleep(5)
            assert (await trio.Path(logs[0]).read_text()).count(LEADS) == 1
            await world.start_driver()
            await reads(world, logs[0], LEADS, times=2)
            await world.claim("late")
            await world.bound("late")
