"""What the engine and h2 say, case by case: of breaches, and of what is none."""

import operator
from typing import Any

import pytest
from h2.exceptions import (
    DenialOfServiceError,
    FlowControlError,
    FrameDataMissingError,
    FrameTooLargeError,
    InvalidBodyLengthError,
    InvalidSettingsValueError,
    NoSuchStreamError,
    ProtocolError,
    StreamClosedError,
)

from tests.csi.beside import ANSWER, BLOCKS, DATA, END, FIELDS, HEAD, LENGTH, Both, frame, increment, settings_frame

BREACHES: dict[str, tuple[bytes, type[ProtocolError], int]] = {
    "a frame that is too long": (frame(0, 0, 1, bytes(16_385)), FrameTooLargeError, 6),
    "a frame of a stream on none": (frame(0, 0, 0), ProtocolError, 1),
    "a frame of the connection on a stream": (frame(6, 0, 1, bytes(8)), ProtocolError, 1),
    "a ping of seven bytes": (frame(6, 0, 0, bytes(7)), FrameDataMissingError, 6),
    "a reset of five bytes": (frame(3, 0, 1, bytes(5)), FrameDataMissingError, 6),
    "settings that end in the middle": (frame(4, 0, 0, bytes(7)), FrameDataMissingError, 6),
    "a goodbye that is cut short": (frame(7, 0, 0, bytes(7)), FrameDataMissingError, 6),
    "settings acknowledged with some": (frame(4, 1, 0, bytes(6)), ProtocolError, 1),
    "padding longer than its frame": (frame(0, 8, 1, b"\5abc"), ProtocolError, 1),
    "headers padded to nothing": (frame(1, 12, 1, b""), FrameDataMissingError, 6),
    "a header block that means nothing": (frame(1, 4, 1, b"\xff\xff\xff"), ProtocolError, 1),
    "header fields without end": (
        frame(1, 4, 1, BLOCKS[-2]) + frame(1, 5, 1, b"\xbe" * 300),
        DenialOfServiceError,
        11,
    ),
    "continuations without end": (frame(1, 0, 1, ANSWER) + frame(9, 0, 1) * 64, ProtocolError, 1),
    "a continuation of another stream": (frame(1, 0, 1) + frame(9, 4, 3), ProtocolError, 1),
    "a continuation of nothing": (frame(9, 4, 1), ProtocolError, 1),
    "a continuation on a stream that has ended": (HEAD + END + frame(9, 4, 1), StreamClosedError, 5),
    "a ping within a header block": (frame(1, 0, 1) + frame(6, 0, 0, bytes(8)), ProtocolError, 1),
    "an unknown frame within a header block": (frame(1, 0, 1) + frame(99, 0, 0), ProtocolError, 1),
    "a window of the connection that overflows": (increment(0, 2**31 - 1), FlowControlError, 3),
    "a window opened by nothing": (increment(0, 0), ProtocolError, 1),
    "a window of a stream that is idle": (increment(3, 1), NoSuchStreamError, 1),
    "all windows opened too far": (
        increment(1, 2**31 - 65_536) + settings_frame((4, 65_537 + 5)),
        FlowControlError,
        3,
    ),
    "a wish to push": (settings_frame((2, 1)), InvalidSettingsValueError, 1),
    "a window of 2 GiB": (settings_frame((4, 2**31)), InvalidSettingsValueError, 3),
    "frames that are too small": (settings_frame((5, 16_383)), InvalidSettingsValueError, 1),
    "frames that are too large": (settings_frame((5, 2**24)), InvalidSettingsValueError, 1),
    "a push": (frame(5, 4, 1, b"\0\0\0\2" + ANSWER), ProtocolError, 1),
    "a push of an odd number": (frame(5, 4, 1, b"\0\0\0\3" + ANSWER), ProtocolError, 1),
    "a stream that the driver opens": (frame(1, 4, 2, ANSWER), ProtocolError, 1),
    "headers on a stream that is idle": (frame(1, 4, 3, ANSWER), ProtocolError, 1),
    "data on a stream that is idle": (frame(0, 0, 3), NoSuchStreamError, 1),
    "data before headers": (DATA, ProtocolError, 1),
    "more data than the window": (HEAD + frame(0, 0, 1, bytes(16_384)) * 4, FlowControlError, 3),
    "headers on a stream that has ended": (HEAD + END + HEAD, StreamClosedError, 5),
    "trailers that end nothing": (HEAD + HEAD, ProtocolError, 1),
    "an interim answer after the answer": (HEAD + frame(1, 4, 1, BLOCKS[7]), ProtocolError, 1),
    "more than was announced": (frame(1, 4, 1, BLOCKS[8]) + DATA + frame(0, 0, 1, b"6"), InvalidBodyLengthError, 1),
    "less than was announced": (frame(1, 4, 1, BLOCKS[8]) + frame(0, 1, 1, b"1234"), InvalidBodyLengthError, 1),
    "a stream that depends on itself": (frame(2, 0, 1, b"\0\0\0\1\0"), ProtocolError, 1),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_ends_the_connection(breach: str) -> None:
    data, error, code = BREACHES[breach]
    both = Both()
    both.ask(5)
    assert both.receive(data) == (error, code)


INTERIM, HEAD_OF_FIVE = frame(1, 4, 1, BLOCKS[7]), frame(1, 4, 1, BLOCKS[8])
OPEN, END_OF_REQUEST = ("send_headers", 1, FIELDS), ("send_data", 1, b"12345", True)
OTHER = [("send_headers", 3, FIELDS), ("reset_stream", 3, 8)]
EARLY = [OPEN, frame(1, 5, 1, ANSWER)]
FULL = frame(0, 0, 1, bytes(16_384))
Step = bytes | tuple[Any, ...]
# What both do in turn, and the last answer: the names of its events, an error, or nothing.
COURSES: dict[str, tuple[list[Step], Any]] = {
    "an answer": ([OPEN, END_OF_REQUEST, HEAD, DATA + END], "DataReceived TrailersReceived StreamEnded"),
    "an interim answer": (
        [OPEN, END_OF_REQUEST, INTERIM + INTERIM + HEAD],
        "InformationalResponseReceived " * 2 + "ResponseReceived",
    ),
    "an interim answer that ends it": ([OPEN, END_OF_REQUEST, frame(1, 5, 1, BLOCKS[7])], (ProtocolError, 1)),
    "an answer before the request has gone": ([*EARLY, END_OF_REQUEST, increment(1, 9)], ""),
    "and then data": ([*EARLY, DATA], "StreamReset"),
    "and then headers": ([*EARLY, END], "StreamReset"),
    "and then an interim answer": ([*EARLY, INTERIM], (ProtocolError, 1)),
    "and then the rest, and headers": ([*EARLY, END_OF_REQUEST, END], (StreamClosedError, 5)),
    "and then the rest, and data": ([*EARLY, END_OF_REQUEST, DATA], ""),
    "and then a reset": ([*EARLY, frame(3, 0, 1, bytes(4))], "StreamReset"),
    "and then a window": ([*EARLY, increment(1, 9)], "WindowUpdated"),
    "headers with a priority": (
        [OPEN, frame(1, 0x25, 1, b"\x80\0\0\3\xff" + ANSWER)],
        "ResponseReceived StreamEnded PriorityUpdated",
    ),
    "headers in pieces with a priority": (
        [
            OPEN,
            frame(1, 0x29, 1, b"\1\0\0\0\3\xff\x88\0") + frame(9, 0, 1, b"\x5f\x10applica"),
            frame(9, 4, 1, b"tion/grpc"),
        ],
        "ResponseReceived StreamEnded PriorityUpdated",
    ),
    "as many bytes as announced": (
        [OPEN, HEAD_OF_FIVE + frame(0, 0, 1, b"12") + frame(0, 1, 1, b"345")],
        "ResponseReceived DataReceived DataReceived StreamEnded",
    ),
    "padding is no part of them": (
        [OPEN, HEAD_OF_FIVE + frame(0, 9, 1, b"\x0212345\0\0")],
        "ResponseReceived DataReceived StreamEnded",
    ),
    "trailers that announce nothing": ([OPEN, HEAD_OF_FIVE, END], "TrailersReceived StreamEnded"),
    "an interim answer announces too": (
        [OPEN, frame(1, 4, 1, BLOCKS[7] + LENGTH + b"\x015") + HEAD + DATA + DATA],
        "InformationalResponseReceived ResponseReceived DataReceived DataReceived",
    ),
    "a stream's window that is used up": (
        [OPEN, *OTHER, HEAD, FULL * 3, ("acknowledge_received_data", 40_000, 3), FULL],
        (FlowControlError, 3),
    ),
    "a stream's window that is opened": (
        [OPEN, HEAD, FULL * 3, ("acknowledge_received_data", 49_152, 1), FULL * 3],
        "DataReceived " * 3,
    ),
    "a window of an early answer": (
        [OPEN, HEAD + FULL * 3 + frame(0, 1, 1), ("acknowledge_received_data", 49_152, 1)],
        None,
    ),
    "a window below zero": (
        [OPEN, settings_frame((4, 10)), ("send_data", 1, b"12345"), settings_frame((4, 0)), END_OF_REQUEST],
        (FlowControlError, 3),
    ),
    "nothing fits always": (
        [
            OPEN,
            settings_frame((4, 10)),
            ("send_data", 1, b"12345"),
            settings_frame((4, 0)),
            ("send_data", 1, b"", True),
        ],
        None,
    ),
    "a request larger than a frame": ([OPEN, ("send_data", 1, bytes(16_385))], (FrameTooLargeError, 6)),
    "larger frames": ([OPEN, settings_frame((5, 20_000)), ("send_data", 1, bytes(16_385))], None),
    "a request after its stream was reset": ([OPEN, frame(3, 0, 1, bytes(4)), END_OF_REQUEST], (StreamClosedError, 5)),
    "an offer before the answer": ([OPEN, frame(10, 0, 1, b"\0\0f")], "AlternativeServiceAvailable"),
    "an offer of an origin on a stream": ([OPEN, frame(10, 0, 1, b"\0\1of")], ""),
    "an offer after the answer has begun": ([OPEN, HEAD, frame(10, 0, 1, b"\0\0f")], ""),
    "an offer of an origin": ([frame(10, 0, 0, b"\0\1of"), frame(0, 0, 1)], (NoSuchStreamError, 1)),
    "a priority": ([frame(2, 0, 1, b"\0\0\0\3\0")], "PriorityUpdated"),
    "settings of each kind": (
        [
            settings_frame((1, 0), (2, 0), (3, 7), (4, 9), (5, 17_000), (6, 5), (8, 1), (9, 9)),
            settings_frame((9, 8), (1, 4096)),
            OPEN,
        ],
        None,
    ),
    "a setting of neither yes nor no": ([settings_frame((8, 2))], (InvalidSettingsValueError, 1)),
    "a frame of a kind unknown": ([frame(238, 3, 5, b"xx")], "UnknownFrameReceived"),
}


@pytest.mark.parametrize("course", COURSES)
def test_a_course_of_things(course: str) -> None:
    steps, last = COURSES[course]
    both, found = Both(), None
    for step in steps:
        found = both.receive(step) if isinstance(step, bytes) else both.does(operator.methodcaller(*step))
    assert (" ".join(event[0] for event in found) if isinstance(found, list) else found) == (
        last.strip() if isinstance(last, str) else last
    )
