"""A driver that ends its connection politely: what runs ends in peace, what was never begun is asked anew, and calls
wait until who answers on the next connection is known (process.md 4.4; HTTP/2 6.8)."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from h2.settings import SettingCodes

from csi_provisioner.csi import channel
from csi_provisioner.csi.driver import Driver
from csi_provisioner.csi.errors import CallError
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from csi_provisioner.settings import CsiSettings
from tests.csi.peer import HEADERS, OK, Call, Peer, answer_empty, answer_nothing, peer
from tests.csi.test_channel import LIMIT, METHOD, Link, linked


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


async def slowly(call: Call) -> None:
    await trio.sleep(5)
    await call.answer()


def by_connection(other: Peer) -> list[list[int]]:
    """Numbers of the calls that each connection got."""
    return [sorted(call.number for call in other.calls if call.connection is one) for one in other.connections]


async def test_running_calls_end_in_peace_and_new_ones_take_a_new_connection(tmp_path: Path) -> None:
    async with linked(tmp_path, slowly) as (other, link):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(link.delete)
            await trio.sleep(1)
            await other.connections[0].say_goodbye()
            await trio.sleep(1)
            nursery.start_soon(link.delete)
        assert by_connection(other) == [[1, 3, 5], [1]]
        assert (link.lost, link.channel.left_politely) == (1, True)
        assert [label for _, label, _ in link.metrics.calls] == ["OK"] * 4


async def test_an_answer_in_pieces_is_read_to_its_end(tmp_path: Path) -> None:
    """Whatever comes after the goodbye, in one read with it or later."""

    async def around_a_goodbye(call: Call) -> None:
        http2 = call.connection.h2
        http2.send_headers(call.number, HEADERS)
        before = http2.data_to_send()
        http2.send_data(call.number, b"\0\0\0\0\x04")
        http2.ping(b"12345678")
        after = http2.data_to_send()
        goodbye = bytes.fromhex("0000080700000000007fffffff00000000")
        await call.connection.send_bytes(before + goodbye + after)
        await trio.sleep(1)
        await call.send_data(b"\x0a\x02ab")
        await call.send_headers(OK, end=True)

    async with linked(tmp_path, around_a_goodbye) as (_, link):
        answer = await link.channel.call(METHOD, csi.CreateVolumeRequest(), csi.GetPluginInfoResponse, timeout=LIMIT)
        assert answer.name == "ab"


async def test_a_running_call_ends_at_its_own_deadline_at_the_latest(tmp_path: Path) -> None:
    async with linked(tmp_path, answer_nothing) as (other, link), trio.open_nursery() as nursery:
        started = trio.current_time()
        nursery.start_soon(_ends, link, Code.DEADLINE_EXCEEDED, False)
        await trio.sleep(1)
        await other.connections[0].say_goodbye()
        await other.calls[0].reset_by_client.wait()  # and the driver is told
        assert trio.current_time() - started == pytest.approx(LIMIT)


async def test_a_running_call_can_be_cancelled_and_the_driver_is_told(tmp_path: Path) -> None:
    async with linked(tmp_path, answer_nothing) as (other, link), trio.open_nursery() as nursery:
        nursery.start_soon(link.delete)
        await trio.sleep(1)
        await other.connections[0].say_goodbye()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(1):
            await other.calls[0].reset_by_client.wait()


async def test_running_calls_whose_old_connection_is_cut_are_lost(tmp_path: Path) -> None:
    async with linked(tmp_path, answer_nothing) as (other, link), trio.open_nursery() as nursery:
        nursery.start_soon(_ends, link, Code.UNAVAILABLE, True)
        await trio.sleep(1)
        await other.connections[0].say_goodbye()
        other.answer = answer_empty
        await trio.sleep(1)
        await link.delete()
        await other.connections[0].stream.aclose()
        await trio.sleep(1)
        assert link.lost == 1
        await link.delete()
        assert by_connection(other) == [[1], [1, 3]]


@pytest.mark.parametrize("first", [2**31 - 1, None], ids=["announced", "at once"])
async def test_calls_above_the_last_that_was_taken_are_sent_again(tmp_path: Path, first: int | None) -> None:
    """As grpc-go ends a connection of the largest age: all are welcome, and then up to here."""

    async def taken(call: Call) -> None:
        if call.connection is other.connections[0] and call.number > 3:
            await trio.sleep_forever()
        await slowly(call)

    async with linked(tmp_path, taken) as (other, link):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(link.delete)
            await trio.sleep(1)
            if first is not None:
                await other.connections[0].say_goodbye(first)
                await trio.sleep(1)
            await other.connections[0].say_goodbye(3)
        assert by_connection(other) == [[1, 3, 5, 7], [1, 3]]
        assert link.lost == 1
        assert [label for _, label, _ in link.metrics.calls] == ["OK"] * 4
        assert not any(call.reset_by_client.is_set() for call in other.calls)  # it knows of no such stream


async def test_calls_that_wait_for_their_turn_are_sent_on_the_new_connection(tmp_path: Path) -> None:
    async with peer(tmp_path / "csi.sock", slowly) as other:
        other.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}
        link = Link(other.path)
        async with link.channel, trio.open_nursery() as nursery:
            await link.channel.wait_connected()
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(6):
                nursery.start_soon(link.delete)
            await trio.sleep(4.9)
            other.settings = {}
            await other.connections[0].say_goodbye()
        assert by_connection(other) == [[1, 3], [1, 3, 5, 7]]


async def test_a_request_stuck_in_the_windows_is_sent_to_its_end(tmp_path: Path) -> None:
    async with linked(tmp_path, answer_empty) as (other, link):
        await link.channel.wait_connected()
        other.connections[0].opens_windows = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.delete, "v" * 300_000)
            await trio.sleep(1)
            await other.connections[0].say_goodbye()
            await trio.sleep(1)
            http2 = other.connections[0].h2
            http2.increment_flow_control_window(400_000)
            http2.increment_flow_control_window(400_000, 1)
            await other.connections[0].flush()
        assert by_connection(other) == [[1]]


async def test_a_driver_that_takes_no_call_is_not_asked_without_end(tmp_path: Path) -> None:
    async def takes_none(call: Call) -> None:
        await call.connection.say_goodbye(0)

    async with linked(tmp_path, takes_none) as (other, link):
        await _ends(link, Code.UNAVAILABLE, True)
        assert len(other.calls) == 2


async def test_a_stream_that_was_refused_is_sent_again_once(tmp_path: Path) -> None:
    async def refuses_the_first(call: Call) -> None:
        await (call.reset(7) if call.number == 1 else call.answer())

    async with linked(tmp_path, refuses_the_first) as (other, link):
        await link.delete()
        assert (len(other.calls), link.lost) == (2, 0)
        other.answer = lambda call: call.reset(7)
        await _ends(link, Code.UNAVAILABLE, False)
        assert len(other.calls) == 4


async def test_a_connection_whose_stream_numbers_are_used_up_ends_in_peace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel.Http2, "HIGHEST_ALLOWED_STREAM_ID", 5)
    async with linked(tmp_path, slowly) as (other, link):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(link.delete)
        assert by_connection(other) == [[1, 3, 5], [1, 3]]


@pytest.mark.parametrize("busy", [True, False])
async def test_the_old_connection_is_closed_once_nothing_runs_on_it(tmp_path: Path, busy: bool) -> None:
    async with linked(tmp_path, slowly) as (other, link), trio.open_nursery() as nursery:
        await link.channel.wait_connected()
        started = trio.current_time()
        if busy:
            nursery.start_soon(link.delete)
            await trio.sleep(1)
        (old,) = other.connections
        await old.say_goodbye()
        await old.closed.wait()
        assert trio.current_time() - started == pytest.approx(5 if busy else 0)


# ---- what says that a call was lost


async def cut(call: Call) -> None:
    await call.connection.stream.aclose()


async def cut_in_the_answer(call: Call) -> None:
    await call.send_headers(HEADERS)
    await call.send_data(b"\0\0\0\0\x05ab")
    await cut(call)


async def cut_after_the_status(call: Call) -> None:
    await call.refuse(Code.UNAVAILABLE, "busy")
    await cut(call)


async def garbage(call: Call) -> None:
    await call.connection.send_bytes(bytes(9))


async def no_status(call: Call) -> None:
    await call.send_headers(HEADERS, end=True)


LOST = {
    "cut": (cut, True),
    "cut in the answer": (cut_in_the_answer, True),
    "a breach of the protocol": (garbage, True),
    "the driver's own Unavailable": (lambda call: call.refuse(Code.UNAVAILABLE, "busy"), False),
    "its status, and then the end": (cut_after_the_status, False),
    "a web server's": (lambda call: call.send_headers([(":status", "503")], end=True), False),
    "a stream that is reset": (lambda call: call.reset(8), False),
    "an answer without a status": (no_status, False),
}


@pytest.mark.parametrize(("end", "lost"), LOST.values(), ids=LOST)
async def test_lost_is_what_ended_with_its_connection(
    tmp_path: Path, end: Callable[[Call], Awaitable[None]], lost: bool
) -> None:
    async with linked(tmp_path, end) as (_, link):
        await _ends(link, Code.UNAVAILABLE, lost)
    assert len(link.metrics.calls) == 1  # counted once, as what it is


async def test_a_call_that_finds_no_driver_is_lost(tmp_path: Path) -> None:
    link = Link(tmp_path / "none.sock")
    async with link.channel:
        await _ends(link, Code.UNAVAILABLE, True)


async def _ends(link: Link, code: Code, lost: bool) -> None:
    with pytest.raises(CallError) as caught:
        await link.delete()
    assert (caught.value.code, caught.value.lost) == (code, lost)


# ---- calls wait until the new connection is met


async def test_calls_wait_until_the_connection_is_met_but_for_those_that_meet_it(tmp_path: Path) -> None:
    async with linked(tmp_path) as (other, link), trio.open_nursery() as nursery:
        driver = Driver(link.channel, CsiSettings(address=str(other.path), timeout=LIMIT))
        link.channel.hold()
        link.channel.hold()  # also when it is said again, as for a connection that ends before it is met
        nursery.start_soon(driver.delete_volume, csi.DeleteVolumeRequest(volume_id="v"))
        nursery.start_soon(driver.get_capacity, csi.GetCapacityRequest())
        await trio.sleep(5)
        await driver.probe_until_ready()
        await driver.read_capabilities()
        met = ["Probe", "GetPluginCapabilities", "ControllerGetCapabilities"]
        assert [call.method for call in other.calls] == met
        driver.met()
        await trio.sleep(1)
        assert sorted(call.method for call in other.calls[3:]) == ["DeleteVolume", "GetCapacity"]
        assert other.calls[3].headers["grpc-timeout"] == "10000m"  # what was waited is not the driver's fault


async def test_a_call_that_waits_in_vain_was_not_asked(tmp_path: Path) -> None:
    async with linked(tmp_path) as (other, link):
        link.channel.hold()
        started = trio.current_time()
        await _ends(link, Code.UNAVAILABLE, True)
        assert trio.current_time() - started == pytest.approx(LIMIT)
        assert other.calls == []


async def test_a_waiting_call_can_be_cancelled(tmp_path: Path) -> None:
    async with linked(tmp_path) as (other, link):
        link.channel.hold()
        with trio.move_on_after(1) as scope:
            await link.delete()
        assert scope.cancelled_caught
        link.channel.release()
        await link.delete()
        assert len(other.calls) == 1
