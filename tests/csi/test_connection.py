"""The connection's life: first connect, loss, return (process.md 4.2, 4.4; design.md 4, "driver restarts")."""

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from h2.settings import SettingCodes
from hyperframe.frame import AltSvcFrame, PingFrame, SettingsFrame

from csi_provisioner.csi import channel
from csi_provisioner.csi.channel import AT_ONCE
from csi_provisioner.csi.errors import CallError
from csi_provisioner.model.codes import Code
from tests.csi.peer import HEADERS, Call, answer_empty, answer_nothing, listening, peer
from tests.csi.test_channel import LIMIT, Link, linked


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


async def cut(call: Call) -> None:
    await call.connection.stream.aclose()


async def cut_in_the_answer(call: Call) -> None:
    await call.send_headers(HEADERS)
    await call.send_data(b"\0\0\0\0\x05ab")
    await call.connection.stream.aclose()


async def garbage(call: Call) -> None:
    await call.connection.send_bytes(bytes(9))  # data for stream 0


async def goodbye_and_cut(call: Call) -> None:
    await call.connection.say_goodbye()
    await cut(call)


@pytest.mark.parametrize("end", [cut, cut_in_the_answer, garbage, goodbye_and_cut])
async def test_a_connection_that_ends_in_a_call_fails_the_call(
    tmp_path: Path, end: Callable[[Call], Awaitable[None]]
) -> None:
    """process.md 4.4."""
    async with linked(tmp_path, end) as (other, link):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(link.fail)
        with pytest.raises(CallError) as caught:
            await link.delete()
        assert caught.value.code == Code.UNAVAILABLE
        assert link.lost == len(other.connections)
        other.answer = answer_empty
        await link.delete()
        assert link.lost == len(other.connections) - 1


@pytest.mark.parametrize("error", [0, 7, 8])
async def test_a_stream_that_is_reset_is_unavailable_and_the_connection_stays(tmp_path: Path, error: int) -> None:
    async with linked(tmp_path, lambda call: call.reset(error)) as (other, link):
        assert (await link.fail()).code == Code.UNAVAILABLE
        other.answer = answer_empty
        await link.delete()
        assert (link.lost, len(other.connections)) == (0, 1)


async def test_an_answer_without_a_status_is_unavailable(tmp_path: Path) -> None:
    async def no_trailers(call: Call) -> None:
        await call.send_headers(HEADERS)
        await call.send_data(b"\0\0\0\0\0", end=True)

    async with linked(tmp_path, no_trailers) as (_, link):
        error = await link.fail()
    assert (error.code, error.message) == (Code.UNAVAILABLE, "the answer broke off: it ended without a status")


@pytest.mark.parametrize("politely", [True, False])
async def test_a_loss_while_idle_is_noticed_once(tmp_path: Path, politely: bool) -> None:
    """process.md 4.4."""
    async with linked(tmp_path) as (other, link):
        await link.delete()
        (connection,) = other.connections
        await (connection.say_goodbye() if politely else connection.stream.aclose())
        await trio.sleep(3600)
        assert link.lost == 1


async def test_an_idle_connection_is_not_a_lost_one(tmp_path: Path) -> None:
    """process.md 4.4."""
    async with linked(tmp_path) as (other, link):
        await link.delete()
        await trio.sleep(24 * 3600)
        await link.delete()
    assert (link.lost, len(other.connections)) == (0, 1)


async def test_leaving_is_not_a_loss(tmp_path: Path) -> None:
    async with peer(tmp_path / "csi.sock") as other:
        link = Link(other.path)
        async with link.channel:
            await link.delete()
        await trio.sleep(1)
        assert link.lost == 0


async def test_a_driver_that_comes_back_is_found_by_the_next_call(tmp_path: Path) -> None:
    async with linked(tmp_path) as (other, link):
        for times in range(1, 4):
            await link.delete()
            other.stop()
            await trio.sleep(1)
            assert link.lost == times
            assert (await link.fail()).code == Code.UNAVAILABLE
            await other.start()
        await link.delete()


async def test_frames_of_extensions_are_ignored(tmp_path: Path) -> None:
    async def with_extras(call: Call) -> None:
        await call.connection.send_bytes(b"\0\0\2\xee\0\0\0\0\0xx")  # a frame of an unknown type
        await call.send_headers([(":status", "103")])
        await call.answer()

    async with linked(tmp_path, with_extras) as (_, link):
        await link.delete()
        assert link.lost == 0


@pytest.mark.parametrize("stream", [0, 1])
async def test_an_offer_of_another_service_is_ignored(tmp_path: Path, stream: int) -> None:
    async def offer(call: Call) -> None:
        origin = b"" if stream else b"localhost"
        await call.connection.send_bytes(AltSvcFrame(stream, origin=origin, field=b'h2=":1"').serialize())
        await call.answer()

    async with linked(tmp_path, offer) as (_, link):
        await link.delete()
        assert link.lost == 0


PING = PingFrame(0, opaque_data=b"x" * 8).serialize()


async def test_small_frames_by_the_thousand_let_others_have_their_turns(tmp_path: Path) -> None:
    """All that a socket holds at once would be a second of the event loop."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async def flood(call: Call) -> None:
        await call.connection.send_bytes(PING * 9_000)
        await call.answer()

    async with linked(tmp_path, flood) as (_, link):
        await link.channel.wait_connected()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await link.delete()
            nursery.cancel_scope.cancel()
    assert turns > 9_000 * len(PING) / AT_ONCE


async def test_a_driver_that_wants_answers_and_reads_none_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "UNREAD", 16 * 1024)
    with trio.socket.from_stdlib_socket(socket.socket(socket.AF_UNIX)) as deaf:
        await deaf.bind(str(tmp_path / "csi.sock"))
        deaf.listen()
        link = Link(tmp_path / "csi.sock")
        async with link.channel, trio.open_nursery() as nursery:
            nursery.start_soon(link.fail)
            accepted, _ = await deaf.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            with accepted, pytest.raises(trio.BrokenResourceError):
                await trio.SocketStream(accepted).send_all(SettingsFrame(0).serialize() + PING * 100_000)


async def test_a_missing_socket_is_unavailable(tmp_path: Path) -> None:
    link = Link(tmp_path / "none.sock")
    async with link.channel:
        error = await link.fail()
    assert error.code == Code.UNAVAILABLE
    assert str(tmp_path / "none.sock") in error.message
    assert "No such file" in error.message
    assert link.lost == 0


async def test_a_socket_nobody_listens_on_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(path))
    left_over.close()
    link = Link(path)
    async with link.channel:
        error = await link.fail()
    assert error.code == Code.UNAVAILABLE
    assert "refused" in error.message


async def test_connecting_is_tried_every_second(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """process.md 4.2."""
    async with peer(tmp_path / "csi.sock") as other:
        other.stop()
        other.path.unlink()
        link = Link(other.path)
        async with link.channel, trio.open_nursery() as nursery:
            started = trio.current_time()
            nursery.start_soon(link.channel.wait_connected)
            await trio.sleep(24.5)
            said = capsys.readouterr().err
            assert said.count("Still connecting") == 2
            assert said.count("No such file or directory") == 3  # the first time at once
            await other.start()
        assert trio.current_time() - started == pytest.approx(25)
        assert link.lost == 0


async def test_what_does_not_speak_http_2_is_told_once_with_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def other_program(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.receive_some()

    link = Link(path := tmp_path / "csi.sock")
    bare = trio.socket.socket(socket.AF_UNIX)
    await bare.bind(str(path))
    bare.listen()
    async with link.channel, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, other_program, [trio.SocketListener(bare)])
        with trio.move_on_after(8):
            await link.channel.wait_connected()
        nursery.cancel_scope.cancel()
    [line] = capsys.readouterr().err.splitlines()
    assert "does not speak HTTP/2 as it should: Received overlong frame" in line
    assert "another program's?" in line


async def test_a_driver_that_breaks_the_protocol_is_told_of_with_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with linked(tmp_path, garbage) as (_, link):
        error = await link.fail()
    assert "(Protocol error: a frame of kind 0 for stream 0)" in error.message
    [line] = [line for line in capsys.readouterr().err.splitlines() if "broke the HTTP/2 protocol" in line]
    assert "a frame of kind 0 for stream 0" in line


async def test_a_driver_that_hangs_up_before_it_speaks_is_not_connected(tmp_path: Path) -> None:
    """process.md 4.2."""
    path = tmp_path / "csi.sock"
    with listening(path) as listener:
        link = Link(path)
        async with link.channel, trio.open_nursery() as nursery:
            nursery.start_soon(_unavailable, link)
            connection, _ = await listener.accept()
            connection.close()
    assert link.lost == 0


async def test_a_socket_that_accepts_and_says_nothing_is_a_timeout(tmp_path: Path) -> None:
    """process.md 4.2."""
    path = tmp_path / "csi.sock"
    with listening(path):
        link = Link(path)
        async with link.channel:
            started = trio.current_time()
            assert (await link.fail()).code == Code.DEADLINE_EXCEEDED
            assert trio.current_time() - started == pytest.approx(LIMIT)


async def test_a_request_stuck_in_the_windows_of_a_lost_driver_is_unavailable(tmp_path: Path) -> None:
    async with linked(tmp_path, answer_nothing) as (other, link):
        await link.channel.wait_connected()
        (connection,) = other.connections
        connection.opens_windows = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_unavailable, link, "v" * 300_000)
            await trio.sleep(1)
            await connection.stream.aclose()


async def test_calls_that_wait_for_a_stream_of_a_lost_driver_are_unavailable(tmp_path: Path) -> None:
    async with peer(tmp_path / "csi.sock", answer_nothing) as other:
        other.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}
        link = Link(other.path)
        async with link.channel, trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(_unavailable, link)
            await trio.sleep(1)
            assert len(other.calls) == 2
            (connection,) = other.connections
            await connection.stream.aclose()
            started = trio.current_time()
        assert trio.current_time() == started


async def _unavailable(link: Link, volume: str = "v") -> None:
    with pytest.raises(CallError) as caught:
        await link.delete(volume)
    assert caught.value.code == Code.UNAVAILABLE
