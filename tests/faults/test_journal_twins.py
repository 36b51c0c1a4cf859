"""Two processes of one name: each in a network of its own, where no local socket keeps them apart (design.md 6)."""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from tests.faults.gateway import Gateway
from tests.faults.test_crashes import bound_once
from tests.faults.test_journal import settled
from tests.faults.test_journal_long import SHORT
from tests.faults.test_leaders import LEADS, in_a_container, reads, running
from tests.journeys.real import Real
from tests.journeys.test_journal import TOLD, keeping
from tests.journeys.world import Rule

NEW_NETWORK = 0x40000000


@contextmanager
def network(name: str) -> Iterator[str]:
    """One with nothing but loopback."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def listening(network: str) -> socket.socket:
    """A socket of this process on the other network's loopback: it stays where it was made."""
    made: list[socket.socket] = []

    def make() -> None:
        with Path(f"/run/netns/{network}").open() as place:
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), NEW_NETWORK) == 0:
                made.append(socket.create_server(("127.0.0.1", 0)))

    thread = threading.Thread(target=make)  # which ends with its network
    thread.start()
    thread.join()
    [found] = made
    return found


@asynccontextmanager
async def reached_from(gate: Gateway, network: str) -> AsyncIterator[str]:
    """The gateway's address there."""
    with listening(network) as there:
        there.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(there))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.serve_at, listener)
            yield f"http://127.0.0.1:{there.getsockname()[1]}"
            nursery.cancel_scope.cancel()


@pytest.mark.cluster
@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
async def test_of_two_of_one_name_the_older_ends_and_the_newer_goes_on(
    real_world: Real, gate: Gateway, tmp_path: Path
) -> None:
    world, container = real_world, in_a_container(tmp_path)
    flags = keeping(world, *SHORT)
    await world.storage_class()
    world.rules(Rule("CreateVolume", delay=3600.0, done=True, times=1))
    with network(world.api.unique("a")) as first, network(world.api.unique("b")) as second:

        async def start(place: str, log: Path) -> trio.Process:
            world.wrapper = ("ip", "netns", "exec", place, *container)
            return await world.another(log, *flags)

        async with reached_from(gate, first) as one, reached_from(gate, second) as other:
            plane, logs = world.plane, [tmp_path / "older.log", tmp_path / "newer.log"]
            world.kubeconfig = plane.kubeconfig("provisioner", server=one, file=f"{first}.kubeconfig")
            async with running(await start(first, logs[0])) as older:
                await reads(world, logs[0], LEADS)
                await world.claim("data")
                await world.asked("CreateVolume")
                world.kubeconfig = plane.kubeconfig("provisioner", server=other, file=f"{second}.kubeconfig")
                async with running(await start(second, logs[1])) as newer:
                    await reads(world, logs[1], LEADS)
                    with trio.fail_after(30):
                        assert await older.wait() == 1
                    await reads(world, logs[0], "Another one leads under our name")
                    await bound_once(world, "data")
                    await settled(world)
                    assert newer.returncode is None
                    assert TOLD not in await trio.Path(logs[1]).read_text()
