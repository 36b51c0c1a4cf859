"""One call on an HTTP/2 connection, and what h2 and grpclib are told about both; a part of `channel`."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import trio
from grpclib import protocol
from grpclib.metadata import USER_AGENT
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated
from h2.exceptions import NoAvailableStreamIDError
from hpack import NeverIndexedHeaderTuple

from csi_provisioner import __version__
from csi_provisioner.csi import answer
from csi_provisioner.traces import traces

HTTP2 = H2Configuration(
    client_side=True,
    # Never fails, whatever bytes a driver puts into a message; `answer` makes text of them.
    header_encoding="latin-1",
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)


# The largest number that HTTP/2 has for a stream: a GOAWAY with it ends none.
ALL_STREAMS = 2**31 - 1
GOODBYE = "it has ended the connection politely"


class Http2(H2Connection):
    """A status comes in headers, and with it whatever a driver has to say. More than they may hold would end the
    connection, and all calls on it. The most that h2 takes in one piece: 64 frames of 16 KiB."""

    DEFAULT_MAX_HEADER_LIST_SIZE = 1024 * 1024
    # The driver takes no more calls here: none may be begun, also not by one that waited for its turn.
    leaving = False

    def get_next_available_stream_id(self) -> int:
        if self.leaving:
            raise NoAvailableStreamIDError(GOODBYE)
        return super().get_next_available_stream_id()

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        """For h2 whatever follows is a breach; but a driver still answers what it has taken (RFC 9113, 6.8)."""
        event = ConnectionTerminated()
        event.last_stream_id = frame.last_stream_id
        return [], [event]


_AGENT = f"csi-provisioner/{__version__} {USER_AGENT}"


class _Beginning:
    """h2 as one stream sees it: asked before each frame of a request, of which a driver acts on the last. Right before,
    for grpclib waits in between: for a free stream, for the peer's windows."""

    def __init__(self, h2: H2Connection, begin: Callable[[], None]) -> None:
        self._h2 = h2
        self._begin = begin

    def __getattr__(self, name: str) -> Any:
        if name in ("send_headers", "send_data"):
            self._begin()
        return getattr(self._h2, name)


class Stream(protocol.Stream):
    """One call. Gathers what comes until it is over, so that its task wakes up once."""

    def __init__(
        self, connection: protocol.Connection, h2: H2Connection, transport: Any, begin: Callable[[], None]
    ) -> None:
        super().__init__(connection, cast(H2Connection, _Beginning(h2, begin)), transport)
        self.sending = trio.CancelScope()
        self.over = trio.Event()
        self.received = bytearray()
        # Why nothing more will come, if it ended before its status did.
        self.broken: str | None = None
        # It broke off with its connection, not alone.
        self.lost = False
        # The driver may have begun with it.
        self.taken = True
        self._release: Callable[[], None] | None = None

    def init_stream(self, stream_id: int, connection: protocol.Connection) -> None:
        self.id = stream_id
        self.buffer = _Body(self, partial(connection.ack, stream_id))

    async def send(self, headers: list[tuple[str, str]], message: bytes, processor: protocol.EventsProcessor) -> None:
        self._release = await self.send_request(headers, _processor=processor)
        await self.send_data(message, end_stream=True)

    def leave(self) -> None:
        """Let go of it; the driver is told if it is still at work."""
        if self._release is not None:
            if self.taken and self.closable:
                self.reset_nowait(ErrorCodes.CANCEL)
            self._release()

    def give_up_waiting(self) -> None:
        """The connection has ended. grpclib tells the streams it knows, but not one that waits for its turn."""
        if self._release is None:
            self.__terminated__("Connection lost")

    def __ended__(self) -> None:
        self.over.set()
        self.sending.cancel()  # an answer may come before all of the request has gone

    def __terminated__(self, reason: str) -> None:
        self.break_off(reason)

    def break_off(self, reason: str, *, lost: bool = True, taken: bool = True) -> None:
        if not self.over.is_set():
            self.broken, self.lost, self.taken = reason, lost, taken
            self.over.set()
            self.sending.cancel()


class _Body(protocol.Buffer):
    """In place of grpclib's, which acknowledges bytes when they are read: here at once, and dropped when too many."""

    def __init__(self, stream: Stream, acknowledge: Callable[[int], None]) -> None:
        self._stream = stream
        self._acknowledge = acknowledge

    def add(self, data: bytes, ack_size: int) -> None:
        self._acknowledge(ack_size)
        stream = self._stream
        if not answer.too_large(stream.received):
            stream.received += data
            if answer.too_large(stream.received):
                stream.over.set()

    def unacked_size(self) -> int:
        return 0


def headers(method: str, timeout: float) -> list[tuple[str, str]]:
    parent = traces.parent()
    fields: list[tuple[str, str]] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("grpc-timeout", _timeout(timeout)),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", _AGENT),
    ]
    # Another one for each call: it must not take the others' places in the table of the header compression.
    if parent is not None:
        fields.append(cast(tuple[str, str], NeverIndexedHeaderTuple("traceparent", parent)))
    return fields


def _timeout(seconds: float) -> str:
    """At most eight digits; rounded up, so that the driver does not give up before we do.

    In whole milliseconds, less what has passed since the call began, so that the header compression sees the same text.
    """
    milliseconds = max(1, math.ceil(seconds * 1000 - 0.01))
    return f"{milliseconds}m" if milliseconds < 10**8 else f"{min(milliseconds // 1000, 10**8 - 1)}S"
