"""No volume is made or deleted after the lease's own end: asked before each frame (design.md 3 rule 9)."""

import fcntl
import termios
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from h2.settings import SettingCodes

from csi_provisioner.csi.channel import Channel
from csi_provisioner.csi.errors import CallError
from csi_provisioner.model import csi
from tests.csi.counted import Counted
from tests.csi.peer import Call, Peer, answer_empty, answer_nothing, peer

REFUSED = "UNAVAILABLE not sent: the lease has run out, another process may lead"
CHANGING = ("CreateVolume", "DeleteVolume")
ASKING = ("GetCapacity", "ControllerGetCapabilities", "ValidateVolumeCapabilities")


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


class Leader:
    """Its lease is over when a test says so."""

    def __init__(self, path: Path) -> None:
        self.leads = True
        self.refused: list[str] = []
        self.channel = Channel(str(path), on_lost=lambda: None, metrics=Counted(), may_begin=lambda: self.leads)

    async def call(self, method: str = "DeleteVolume", size: int = 1) -> None:
        request = csi.DeleteVolumeRequest(volume_id="v" * size)
        try:
            await self.channel.call(f"/csi.v1.Controller/{method}", request, csi.DeleteVolumeResponse, timeout=600)
        except CallError as error:
            self.refused.append(f"{error.code.name} {error.message}")


@asynccontextmanager
async def led(
    folder: Path, answer: Callable[[Call], Awaitable[None]] = answer_empty, **settings: int
) -> AsyncIterator[tuple[Peer, Leader, trio.Nursery]]:
    async with peer(folder / "csi.sock", answer) as other:
        other.settings = {SettingCodes[name]: value for name, value in settings.items()}
        leader = Leader(other.path)
        async with leader.channel, trio.open_nursery() as nursery:
            yield other, leader, nursery
            nursery.cancel_scope.cancel()


def _only(refused: list[str], count: int) -> bool:
    return len(refused) == count and set(refused) <= {REFUSED}


@pytest.mark.parametrize("method", CHANGING + ASKING)
async def test_only_what_changes_volumes_is_held_back(tmp_path: Path, method: str) -> None:
    async with led(tmp_path) as (other, leader, _):
        await leader.call(method)
        leader.leads = False
        await leader.call(method)
        leader.leads = True
        await leader.call(method)
    assert len(other.calls) == (2 if method in CHANGING else 3)
    assert _only(leader.refused, 1 if method in CHANGING else 0)


async def test_after_the_wait_for_a_connection(tmp_path: Path) -> None:
    async with led(tmp_path) as (other, leader, nursery):
        other.stop()
        silent = trio.socket.socket(trio.socket.AF_UNIX)
        other.path.unlink()
        await silent.bind(str(other.path))
        silent.listen()  # takes connections, and says nothing yet
        nursery.start_soon(leader.call)
        await trio.testing.wait_all_tasks_blocked(0.01)
        leader.leads = False
        accepted, _ = await silent.accept()
        with silent, accepted:
            await accepted.send(b"\0\0\0\4\0\0\0\0\0")  # HTTP/2's settings
            await trio.sleep(1)
        assert _only(leader.refused, 1)


async def test_after_the_wait_for_a_stream(tmp_path: Path) -> None:
    async with led(tmp_path, answer_nothing, MAX_CONCURRENT_STREAMS=1) as (other, leader, nursery):
        nursery.start_soon(leader.call)
        await trio.sleep(1)
        for _ in range(50):
            nursery.start_soon(leader.call)
        await trio.sleep(1)
        leader.leads = False
        await other.calls[0].answer()
        await trio.sleep(1)
        assert _only(leader.refused, 50)
    assert len(other.calls) == 1


async def test_after_the_wait_for_a_window(tmp_path: Path) -> None:
    """Half of it has gone: the driver is told that the rest will not come."""
    async with led(tmp_path) as (other, leader, nursery):
        await leader.call()
        connection = other.connections[0]
        connection.opens_windows = False
        nursery.start_soon(leader.call, "DeleteVolume", 100_000)
        await trio.sleep(1)
        leader.leads = False
        [stuck] = [call for call in connection._calls.values() if call not in other.calls]
        connection.h2.increment_flow_control_window(200_000)
        connection.h2.increment_flow_control_window(200_000, stuck.number)
        await connection.flush()
        await trio.sleep(1)
        assert _only(leader.refused, 1)
        await stuck.reset_by_client.wait()
    assert len(other.calls) == 1


async def test_nothing_waits_in_our_own_buffers(tmp_path: Path) -> None:
    """A driver that does not read: what the kernel had not taken when the lease ended is not sent."""
    path = tmp_path / "csi.sock"
    with trio.socket.socket(trio.socket.AF_UNIX) as silent:
        await silent.bind(str(path))
        silent.listen()
        leader = Leader(path)
        async with leader.channel, trio.open_nursery() as nursery:
            nursery.start_soon(leader.channel.wait_connected)
            accepted, _ = await silent.accept()
            with accepted:
                # settings: streams and their windows without end; and the same for the connection's window
                await accepted.send(b"\0\0\x06\4\0\0\0\0\0" + b"\0\4\x7f\xff\xff\xff")
                await accepted.send(b"\0\0\4\x08\0\0\0\0\0" + b"\x40\0\0\0")
                await trio.sleep(1)
                for _ in range(100):
                    nursery.start_soon(leader.call, "DeleteVolume", 8000)
                await trio.sleep(1)
                leader.leads = False
                taken = array("i", [0])
                fcntl.ioctl(accepted.fileno(), termios.FIONREAD, taken)
                came = 0
                with trio.move_on_after(1):
                    while data := await accepted.recv(1 << 20):
                        came += len(data)
                assert taken[0] > 50_000
                assert came - taken[0] < 17_000  # the frame that was half sent, and resets of those that will not come
                nursery.cancel_scope.cancel()
