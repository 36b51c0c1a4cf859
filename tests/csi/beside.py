"""The engine beside h2: both do the same, and whatever they answer is compared."""

from collections.abc import Callable
from typing import Any

from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import ProtocolError
from h2.settings import ChangedSetting
from hyperframe.flags import Flags
from hyperframe.frame import Frame

from csi_provisioner.csi.engine import Engine
from csi_provisioner.csi.http2 import Http2
from csi_provisioner.csi.stream import headers

FIELDS = headers("/csi.v1.Controller/CreateVolume", 10.0)
SETTINGS, OPEN_WIDE = bytes.fromhex("000000040000000000"), bytes.fromhex("0000040800000000003fffffff")


class Reference(Http2):
    """h2 that forgets streams when they are over, and is not kept waiting for the rest of a frame that is too long."""

    def _receive_frame(self, frame: Frame) -> list[Event]:
        try:
            return super()._receive_frame(frame)
        finally:
            self._open_streams(1)

    def reset_stream(self, stream_id: int, error_code: ErrorCodes | int = 0) -> None:
        super().reset_stream(stream_id, error_code)
        self._open_streams(1)

    def send_data(self, *args: Any, **kwargs: Any) -> None:
        super().send_data(*args, **kwargs)
        self._open_streams(1)

    def receive_data(self, data: Any) -> list[Event]:
        events = super().receive_data(data)
        rest = self.incoming_buffer._data
        size = int.from_bytes(rest[:3], "big")
        if len(rest) >= 9 and size > self.max_inbound_frame_size:
            super().receive_data(bytes(size))
        return events


class Both:
    def __init__(self, *, settled: bool = True) -> None:
        self.ours, self.theirs = Engine(), Reference()
        self.over = False
        self.does(lambda http2: http2.initiate_connection())
        if settled:
            self.receive(SETTINGS + OPEN_WIDE)

    def does(self, act: Callable[[Any], Any]) -> Any:
        """What both answer."""
        found = _outcome(act, self.ours)
        assert found == _outcome(act, self.theirs)
        return found["answer"]

    def receive(self, *pieces: bytes) -> Any:
        """The events; or of the error that ended it the class and the code."""
        found: Any = []
        for piece in pieces:
            found = self.does(lambda http2, piece=piece: http2.receive_data(piece))
            self.over = isinstance(found, tuple)
            if self.over:
                break
        return found

    def ask(self, size: int = 0) -> Any:
        return self.does(lambda http2: http2.ask(FIELDS, bytes(size)) if http2.fits(size) else None)


def _outcome(act: Callable[[Any], Any], http2: Any) -> dict[str, Any]:
    try:
        answer = _plain(act(http2))
    except ProtocolError as error:
        answer = (type(error), error.error_code)
    found = {"answer": answer, "bytes": http2.data_to_send(), "state": http2.state_machine.state}
    if found["state"] is ConnectionState.CLOSED:  # nobody asks it for more
        return found
    return found | {
        "streams": {number: http2.local_flow_control_window(number) for number in http2.streams},
        "window": http2.outbound_flow_control_window,
        "frame": http2.max_outbound_frame_size,
        "next": http2.get_next_available_stream_id(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Flags):
        return sorted(value)
    if isinstance(value, Event | ChangedSetting | Frame):
        return type(value).__name__, _plain(vars(value))
    return value


def frame(kind: int, flags: int, number: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + body


def settings_frame(*pairs: tuple[int, int]) -> bytes:
    return frame(4, 0, 0, b"".join(code.to_bytes(2, "big") + value.to_bytes(4, "big") for code, value in pairs))


def increment(number: int, by: int) -> bytes:
    return frame(8, 0, number, by.to_bytes(4, "big"))


ANSWER, GRPC, OK = b"\x88", b"\x88\x5f\x10application/grpc", b"\x40\x0bgrpc-status\x010"
LENGTH = b"\x0f\x0d"
BLOCKS = [
    ANSWER,
    GRPC,
    OK,
    b"\x88\xbe",
    b"\xbe",
    b"\xbf",
    b"",
    b"\x08\x03103",  # informational
    b"\x88" + LENGTH + b"\x015",
    b"\x88" + LENGTH + b"\x015" + LENGTH + b"\x0205",
    b"\x88" + LENGTH + b"\x015" + LENGTH + b"\x016",
    b"\x88" + LENGTH + b"\x01x",
    b"\x88" + LENGTH + b"\x7f\xf1\x26" + b"1" * 4976,
    b"\x3f\x09",  # a table of 40 bytes
    b"\x3f\xe1\x1f\x88",  # of 4096
    b"\x3f\xe1\xff\x03",  # too large a one
    b"\x88\x20",  # its size in the middle
    b"\x10\x01a\x01\xff",
    b"\xff\xff\xff",
    b"\x40",
    b"\x40\x01b\x7f\xbd\x1d" + b"v" * 3900,
    b"\xbe" * 300,
]
HEAD, DATA, END = frame(1, 4, 1, ANSWER), frame(0, 0, 1, b"12345"), frame(1, 5, 1, OK)
