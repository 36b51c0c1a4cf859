"""The engine says of any bytes what h2 says of them: the same events, the same bytes back, the same error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio.testing
from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError, StreamClosedError, TooManyStreamsError
from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csi_provisioner.csi import channel, engine
from csi_provisioner.csi.engine import Engine
from csi_provisioner.csi.http2 import Http2
from csi_provisioner.model.codes import Code
from tests.csi.beside import (
    ANSWER,
    BLOCKS,
    DATA,
    END,
    FIELDS,
    HEAD,
    OPEN_WIDE,
    SETTINGS,
    Both,
    frame,
    increment,
    settings_frame,
)
from tests.csi.peer import Call
from tests.csi.test_channel import linked


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


numbers = st.sampled_from([1, 1, 1, 3, 3, 5, 7, 0, 2, 101, 2**31 - 1, 2**31 + 1])
bodies = st.one_of(
    st.sampled_from([b"", bytes(4), b"\0\0\0\5", b"\0\0\0\2\x88", bytes(5), bytes(6), bytes(8), bytes(12)]),
    st.sampled_from(BLOCKS),
    st.binary(max_size=12),
)
answers = st.builds(
    lambda number, block, end: frame(1, 4 | end, number, block), numbers, st.sampled_from(BLOCKS[:8]), st.booleans()
)
data_frames = st.builds(
    lambda number, size, end: frame(0, end, number, bytes(size)),
    numbers,
    st.sampled_from([0, 1, 5, 9000, 16384]),
    st.booleans(),
)
small = st.sampled_from(
    [
        SETTINGS,
        frame(4, 1, 0),
        frame(6, 0, 0, b"12345678"),
        frame(6, 1, 0, b"12345678"),
        frame(7, 0, 0, bytes(8) + b"bye"),
        settings_frame((3, 2), (4, 0), (9, 7)),
        settings_frame((1, 0), (4, 70_000), (5, 20_000)),
        settings_frame((1, 4096), (4, 2**31 - 1)),
        settings_frame((3, 0)),
        frame(10, 0, 0, b"\0\1af"),
        frame(10, 0, 3, b"\0\0f"),
    ]
)
windows = st.builds(increment, numbers, st.sampled_from([1, 1, 60_000, 2**31 - 1, 2**31 - 65_536, 0, 2**31]))
resets = st.builds(
    lambda number, code: frame(3, 0, number, code.to_bytes(4, "big")), numbers, st.sampled_from([0, 7, 8, 99])
)
any_frames = st.builds(frame, st.integers(0, 12), st.sampled_from([0, 1, 4, 5, 8, 12, 13, 32, 36, 45]), numbers, bodies)
padded = st.builds(
    lambda kind, flags, number, pad, body: frame(kind, flags | 8, number, bytes([pad]) + body + bytes(2)),
    st.sampled_from([0, 1, 5]),
    st.sampled_from([0, 1, 4, 5, 0x24, 0x25]),
    numbers,
    st.sampled_from([0, 1, 2, 3, 5, 8, 200]),
    bodies,
)
pieces = st.builds(
    lambda number, block, at, end: frame(1, end, number, block[:at]) + frame(9, 4, number, block[at:]),
    numbers,
    st.sampled_from(BLOCKS),
    st.integers(0, 5),
    st.booleans(),
)
sensible = st.one_of(answers, answers, data_frames, small, windows, resets, padded, pieces)
received = st.tuples(st.just("receive"), st.lists(st.one_of(sensible, sensible, sensible, any_frames), max_size=4))
done = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from([0, 5, 300, 17_000])),
    st.tuples(st.just("open"), st.just(0)),
    st.tuples(st.sampled_from(["send", "end", "reset", "ack"]), st.integers(0, 40_000)),
)
quick = settings(max_examples=120, suppress_health_check=list(HealthCheck))


@quick
@given(st.booleans(), st.lists(st.one_of(received, received, done), max_size=12), st.randoms(use_true_random=False))
def test_whatever_comes_in_whatever_pieces(settled: bool, steps: list[tuple[str, Any]], chance: Any) -> None:
    both = Both(settled=settled)
    if settled:
        both.ask(5)
    for what, value in steps:
        open_ = both.ours.streams
        numbers = [number for number in open_ if what not in ("send", "end") or not open_[number].sent]
        if what == "receive":
            both.receive(*_cut(b"".join(value), chance))
        elif what == "ask":
            both.ask(value)
        elif what == "open":
            both.does(lambda http2: http2.send_headers(http2.get_next_available_stream_id(), FIELDS))
        elif numbers:
            number = chance.choice(numbers)
            both.does(_on_a_stream(what, number, value))
            if what == "reset":
                both.does(_on_a_stream(what, number, value))
        if both.over:
            break


def _on_a_stream(what: str, number: int, value: int) -> Callable[[Any], Any]:
    match what:
        case "reset":
            return lambda http2: http2.reset_stream(number, value)
        case "ack":
            return lambda http2: http2.acknowledge_received_data(value, number)
        case _:
            return lambda http2: http2.send_data(number, bytes(value), end_stream=what == "end")


def _cut(data: bytes, chance: Any) -> list[bytes]:
    at = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(4)))
    return [data[begin:end] for begin, end in zip([0, *at], [*at, len(data)], strict=True)]


@quick
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3), st.randoms(use_true_random=False))
def test_calls_with_bytes_that_are_wrong(changes: list[tuple[int, int]], chance: Any) -> None:
    """A driver's side of three calls, and then some bytes are others."""
    both, encoder = Both(settled=False), Encoder()
    for _ in range(3):
        both.ask(5)
    said = SETTINGS + OPEN_WIDE
    for number in (1, 3, 5):
        said += increment(0, 5) + frame(6, 0, 0, b"abcdefgh")
        said += frame(1, 4, number, encoder.encode([(":status", "200"), ("content-type", "application/grpc")]))
        said += frame(0, 0, number, b"\0\0\0\0\2ab")
        said += frame(1, 5, number, encoder.encode([("grpc-status", "0"), ("grpc-message", "")]))
    wrong = bytearray(said)
    for at, value in changes:
        wrong[at % len(said)] = value
    both.receive(*_cut(bytes(wrong), chance))
    assert changes or (not both.over and not both.ours.streams)


STREAM_CLOSED = frame(3, 0, 1, b"\0\0\0\5")
LATE: dict[str, bytes] = {
    "headers": HEAD,
    "trailers": END,
    "an interim answer": frame(1, 4, 1, BLOCKS[7]),
    "a continuation": frame(9, 4, 1, ANSWER),
    "data": DATA,
}


@pytest.mark.parametrize("late", LATE)
def test_what_comes_for_a_stream_that_was_reset_is_refused_alone(late: str) -> None:
    both = Both()
    both.ask()
    both.does(lambda http2: http2.reset_stream(1, 8))
    both.ours.receive_data(LATE[late])
    both.theirs.receive_data(LATE[late])
    assert both.ours.data_to_send() == both.theirs.data_to_send() == STREAM_CLOSED
    both.ask()
    assert [event[0] for event in both.receive(frame(1, 4, 3, ANSWER))] == ["ResponseReceived"]


def test_dropped_data_opens_the_window_of_all_again() -> None:
    both = Both()
    both.ask()
    both.does(lambda http2: http2.reset_stream(1, 8))
    for _ in range(20):
        assert both.receive(frame(0, 0, 1, bytes(16_384))) == []


def test_a_window_of_one_stream_that_overflows_ends_that_stream() -> None:
    both = Both()
    both.ask(5)
    [[event, values]] = [list(event) for event in both.receive(increment(1, 2**31 - 1))]
    assert (event, values["error_code"], values["remote_reset"]) == ("StreamReset", 3, False)
    assert not both.ours.streams


def test_a_goodbye_ends_nothing() -> None:
    both = Both()
    both.ask(5)
    found = both.receive(frame(7, 0, 0, b"\0\0\0\1\0\0\0\0") + HEAD + DATA + END)
    assert [event[0] for event in found][::4] == ["ConnectionTerminated", "StreamEnded"]


def test_no_more_streams_are_opened_than_the_peer_takes() -> None:
    both = Both()
    both.receive(settings_frame((3, 2)))
    assert [both.ask(), both.ask()] == [1, 3]
    assert both.ask() == (TooManyStreamsError, 1)
    both.receive(HEAD + END)
    assert both.ask() == 5


def test_a_frame_that_is_too_long_is_refused_before_it_has_come() -> None:
    http2 = Engine()
    with pytest.raises(FrameTooLargeError):
        http2.receive_data(frame(0, 0, 1, bytes(16_385))[:9])


def test_streams_that_are_over_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_RESET", 3)
    http2 = Engine()
    for _ in range(5):
        http2.reset_stream(http2.ask(FIELDS, b""), 8)
    http2.data_to_send()
    assert not http2.streams
    http2.receive_data(frame(1, 4, 5, ANSWER))
    assert http2.data_to_send() == frame(3, 0, 5, b"\0\0\0\5")
    with pytest.raises(StreamClosedError):
        http2.receive_data(frame(1, 4, 3, ANSWER))


async def test_h2_itself_can_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "Http2", Http2)

    async def stubborn(call: Call) -> None:
        await (call.answer() if len(other.calls) > 1 else call.reset(ErrorCodes.CANCEL))

    async with linked(tmp_path, stubborn) as (other, link):
        assert (await link.fail()).code == Code.UNAVAILABLE
        await link.delete()
        await link.delete("v" * 100_000)
        await other.connections[0].say_goodbye()
        await link.delete()
    assert [len(call.request) > 100_000 for call in other.calls] == [False, False, True, False]
