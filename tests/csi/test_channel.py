"""The channel against a peer that is told what to send, on virtual time (process.md 4; design.md 3 rule 7)."""

import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from h2.settings import SettingCodes

from csi_provisioner.csi.answer import LARGEST
from csi_provisioner.csi.channel import Channel
from csi_provisioner.csi.errors import CallError
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from tests.csi.counted import Counted
from tests.csi.peer import HEADERS, OK, Call, Peer, answer_empty, answer_nothing, peer

METHOD = "/csi.v1.Controller/DeleteVolume"
LIMIT = 10.0


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


def let_threads_work() -> None:
    """Without all time passing meanwhile."""
    trio.lowlevel.current_clock().autojump_threshold = math.inf  # type: ignore[attr-defined]


class Link:
    """A channel with what it reports."""

    def __init__(self, path: Path) -> None:
        self.lost = 0
        self.metrics = Counted()
        self.channel = Channel(str(path), on_lost=self._on_lost, metrics=self.metrics)

    def _on_lost(self) -> None:
        self.lost += 1

    async def delete(self, volume: str = "v", limit: float = LIMIT, migrated: bool | None = None) -> None:
        request = csi.DeleteVolumeRequest(volume_id=volume)
        await self.channel.call(METHOD, request, csi.DeleteVolumeResponse, timeout=limit, migrated=migrated)

    async def fail(self) -> CallError:
        with pytest.raises(CallError) as caught:
            await self.delete()
        return caught.value


@asynccontextmanager
async def linked(
    folder: Path, answer: Callable[[Call], Awaitable[None]] = answer_empty
) -> AsyncIterator[tuple[Peer, Link]]:
    async with peer(folder / "csi.sock", answer) as other:
        link = Link(other.path)
        async with link.channel:
            yield other, link


async def test_what_is_sent(tmp_path: Path) -> None:
    async with linked(tmp_path) as (other, link):
        await link.delete("vol-1")
    (call,) = other.calls
    assert call.headers.pop("user-agent").startswith("csi-provisioner/")
    assert call.headers == {
        ":method": "POST",
        ":scheme": "http",
        ":path": METHOD,
        ":authority": "localhost",
        "grpc-timeout": "10000m",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    assert call.request == b"\0\0\0\0\x07" + bytes(csi.DeleteVolumeRequest(volume_id="vol-1"))


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (10.0, "10000m"),
        (0.0001, "1m"),
        (1.5, "1500m"),
        (99_999.0, "99999000m"),
        (100_000.0, "100000S"),
        (1e12, "99999999S"),
    ],
)
async def test_the_driver_is_told_the_limit_in_at_most_eight_digits(tmp_path: Path, limit: float, said: str) -> None:
    """process.md 4.5."""
    async with linked(tmp_path) as (other, link):
        await link.delete(limit=limit)
    assert other.calls[0].headers["grpc-timeout"] == said


async def test_a_shorter_scope_of_the_caller_is_told_too(tmp_path: Path) -> None:
    """process.md 4.5."""
    async with linked(tmp_path, answer_nothing) as (other, link):
        with trio.move_on_after(2):
            await link.delete()
    assert other.calls[0].headers["grpc-timeout"] == "2000m"


async def test_no_answer_is_a_timeout(tmp_path: Path) -> None:
    """process.md 4.5."""
    async with linked(tmp_path, answer_nothing) as (other, link):
        started = trio.current_time()
        error = await link.fail()
        assert trio.current_time() - started == pytest.approx(LIMIT)
        assert (error.code, error.message) == (Code.DEADLINE_EXCEEDED, "no answer within 10 s")
        await other.calls[0].reset_by_client.wait()
        assert link.lost == 0


async def test_a_timeout_that_the_driver_reports_is_one(tmp_path: Path) -> None:
    """process.md 4.5."""
    async with linked(tmp_path, lambda call: call.refuse(4, "too slow")) as (_, link):
        error = await link.fail()
    assert (error.code, error.message) == (Code.DEADLINE_EXCEEDED, "too slow")


async def test_a_stream_reset_when_its_time_is_up_is_a_timeout(tmp_path: Path) -> None:
    """process.md 4.5."""

    async def reset_late(call: Call) -> None:
        await trio.sleep(LIMIT)
        await call.reset(8)

    async with linked(tmp_path, reset_late) as (_, link):
        assert (await link.fail()).code == Code.DEADLINE_EXCEEDED


async def test_a_call_that_begins_cancelled_only_ends(tmp_path: Path) -> None:
    """Its deadline is minus infinity, which no header can say."""
    async with linked(tmp_path) as (other, link):
        await link.delete()
        with trio.CancelScope() as scope:
            scope.cancel()
            await link.delete()
        assert scope.cancelled_caught
    assert len(other.calls) == 1


async def test_a_cancelled_call_ends_at_once_and_the_driver_is_told(tmp_path: Path) -> None:
    async with linked(tmp_path, answer_nothing) as (other, link):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.delete)
            await trio.testing.wait_all_tasks_blocked(0.001)
            started = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() == started
        await other.calls[0].reset_by_client.wait()
        assert link.metrics.calls == [(METHOD, "Canceled", None)]
        other.answer = answer_empty
        await link.delete()
        assert len(other.connections) == 1


async def test_a_hundred_calls_share_one_connection(tmp_path: Path) -> None:
    everybody = trio.Event()

    async def together(call: Call) -> None:
        if len(other.calls) == 100:
            everybody.set()
        await everybody.wait()
        await call.answer()

    async with linked(tmp_path, together) as (other, link), trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(link.delete)
    assert len(other.connections) == 1


async def test_a_driver_with_few_streams_is_not_asked_for_more(tmp_path: Path) -> None:
    busy: set[Call] = set()
    most = 0

    async def slowly(call: Call) -> None:
        nonlocal most
        busy.add(call)
        most = max(most, len(busy))
        await trio.sleep(0.1)
        busy.remove(call)
        await call.answer()

    async with peer(tmp_path / "csi.sock", slowly) as other:
        other.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 3}
        link = Link(other.path)
        async with link.channel, trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(link.delete)
    assert most == 3


async def test_calls_wait_for_a_stream_only_until_the_driver_takes_more(tmp_path: Path) -> None:
    all_asked = trio.Event()

    async def note(_call: Call) -> None:
        if len(other.calls) == 3:
            all_asked.set()
        await trio.sleep_forever()

    async with peer(tmp_path / "csi.sock", note) as other:
        other.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 1}
        link = Link(other.path)
        async with link.channel, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(link.delete)
            await trio.testing.wait_all_tasks_blocked(0.01)
            other.connections[0].h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 3})
            await other.connections[0].flush()
            with trio.move_on_after(LIMIT / 2):
                await all_asked.wait()
            nursery.cancel_scope.cancel()
    assert len(other.calls) == 3


async def test_a_request_larger_than_the_windows(tmp_path: Path) -> None:
    async with linked(tmp_path) as (other, link):
        await link.delete("v" * 300_000)
    assert len(other.calls[0].request) > 300_000


async def test_an_answer_before_all_of_the_request_has_gone(tmp_path: Path) -> None:
    async with linked(tmp_path, lambda call: call.refuse(8, "request too large")) as (other, link):
        await link.channel.wait_connected()
        other.connections[0].answers_early, other.connections[0].opens_windows = True, False
        with pytest.raises(CallError, match="request too large"):
            await link.delete("v" * 300_000)
        await other.calls[0].reset_by_client.wait()


async def test_an_answer_larger_than_the_windows(tmp_path: Path) -> None:
    message = b"\x0a" + b"\x80\x80\x80\x01" + b"x" * (1 << 21)  # field 1, which DeleteVolumeResponse does not have

    let_threads_work()
    async with linked(tmp_path, lambda call: call.answer(message)) as (_, link):
        await link.delete()


async def test_an_answer_too_large_is_refused_without_being_read(tmp_path: Path) -> None:
    """process.md 4.1."""

    async def huge(call: Call) -> None:
        await call.send_headers(HEADERS)
        await call.send_data(b"\0" + (LARGEST + 1).to_bytes(4, "big") + b"x" * 20_000)

    async with linked(tmp_path, huge) as (other, link):
        assert (await link.fail()).code == Code.RESOURCE_EXHAUSTED
        await other.calls[0].reset_by_client.wait()
        other.answer = answer_empty
        await link.delete()
        assert link.lost == 0


async def test_an_error_with_much_to_say_ends_no_other_call(tmp_path: Path) -> None:
    said = "a tool said no; " * 5_000 + "the end"

    async with linked(tmp_path, lambda call: call.refuse(8, said)) as (other, link):
        error = await link.fail()
        assert error.code == Code.RESOURCE_EXHAUSTED
        assert said.startswith(error.message.removesuffix("…"))
        assert (link.lost, len(other.connections)) == (0, 1)


async def test_a_call_is_counted_however_it_ends(tmp_path: Path) -> None:
    async with linked(tmp_path) as (other, link):
        await link.delete(migrated=True)
        other.answer = lambda call: call.refuse(8)
        await link.fail()
        other.answer = lambda call: call.refuse(99)
        await link.fail()
        other.answer = lambda call: call.send_headers([(":status", "418")], end=True)
        await link.fail()
        other.answer = answer_nothing
        await link.fail()
    assert link.metrics.calls == [
        (METHOD, "OK", True),
        (METHOD, "ResourceExhausted", None),
        (METHOD, "Code(99)", None),
        (METHOD, "unknown-non-grpc", None),
        (METHOD, "DeadlineExceeded", None),
    ]
    assert link.metrics.seconds[-1] == pytest.approx(LIMIT)


async def test_an_answer_counts_although_the_connection_ends_with_it(tmp_path: Path) -> None:
    async def last_words(call: Call) -> None:
        call.connection.h2.send_headers(1, HEADERS)
        call.connection.h2.send_data(1, b"\0\0\0\0\0")
        call.connection.h2.send_headers(1, OK, end_stream=True)
        await call.connection.say_goodbye()

    async with linked(tmp_path, last_words) as (_, link):
        await link.delete()
        assert link.lost == 1


async def answer_with_many_fields(call: Call) -> None:
    """Reading it takes a good part of a second."""
    await call.answer(b"\xf8\x07\x01" * 90_000)


async def test_a_long_answer_is_not_read_by_the_loop(tmp_path: Path) -> None:
    """A hundred of them at once would cost the lease."""
    let_threads_work()
    async with linked(tmp_path, answer_with_many_fields) as (_, link):
        loop, whole = time.thread_time(), time.process_time()
        await link.delete()
        assert time.thread_time() - loop < 0.5 * (time.process_time() - whole)


async def test_a_long_answer_is_read_also_where_no_thread_can_be_started(tmp_path: Path) -> None:
    let_threads_work()
    before = threading.stack_size(1 << 46)  # more than there is room for
    try:
        async with linked(tmp_path, answer_with_many_fields) as (_, link):
            await link.delete()
    finally:
        threading.stack_size(before)


async def test_reading_a_long_answer_counts_against_the_call_s_time(tmp_path: Path) -> None:
    """On this clock all of it passes as soon as the loop has nothing to do but to wait for the thread."""
    async with linked(tmp_path, answer_with_many_fields) as (_, link):
        error = await link.fail()
        assert error.code == Code.DEADLINE_EXCEEDED
        assert "the answer of 270000 bytes came, and was not read within 10 s" in str(error)
        assert link.metrics.seconds[-1] == pytest.approx(LIMIT)


async def test_a_call_that_is_cancelled_while_its_answer_is_read_ends_at_once_and_the_next_one_is_read(
    tmp_path: Path,
) -> None:
    let_threads_work()
    answered = 0

    async def answer(call: Call) -> None:
        nonlocal answered
        await answer_with_many_fields(call)
        answered += 1

    async with linked(tmp_path, answer) as (_, link):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.delete)
            nursery.start_soon(link.delete)  # and one that waits for its turn to be read
            while answered < 2 or not trio.testing.active_thread_count():
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert [label for _, label, _ in link.metrics.calls] == ["Canceled", "Canceled"]
        await link.delete()
        assert link.metrics.calls[-1][1] == "OK"
