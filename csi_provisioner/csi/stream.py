"""One call on an HTTP/2 connection, as grpclib is told about it; a part of `channel`."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import trio
from grpclib import __version__ as grpclib_version
from grpclib import protocol
from h2.errors import ErrorCodes
from h2.exceptions import TooManyStreamsError

from csi_provisioner import __version__
from csi_provisioner.csi import answer
from csi_provisioner.csi.engine import Engine
from csi_provisioner.traces import traces

_AGENT = f"csi-provisioner/{__version__} grpc-python-grpclib/{grpclib_version}"


class _Beginning:
    """h2 as one stream sees it: asked before each frame of a request, of which a driver acts on the last. Right before,
    for grpclib waits in between: for a free stream, for the peer's windows."""

    def __init__(self, h2: Engine, begin: Callable[[], None]) -> None:
        self._h2 = h2
        self._begin = begin

    def __getattr__(self, name: str) -> Any:
        if name in ("send_headers", "send_data"):
            self._begin()
        return getattr(self._h2, name)


class Stream(protocol.Stream):
    """One call. Gathers what comes until it is over, so that its task wakes up once."""

    def __init__(self, connection: protocol.Connection, h2: Engine, transport: Any, begin: Callable[[], None]) -> None:
        super().__init__(connection, cast(Any, _Beginning(h2, begin)), transport)
        self._h2, self._begin = h2, begin
        self._sending: trio.CancelScope | None = None
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

    async def send(
        self, headers: list[tuple[bytes, bytes]], message: bytes, processor: protocol.EventsProcessor
    ) -> None:
        """Waits for what the peer does not take yet: another stream, more bytes."""
        with trio.CancelScope() as self._sending:
            self._release = await self.send_request(cast(Any, headers), _processor=processor)
            await self.send_data(message, end_stream=True)

    def sent_at_once(
        self, headers: list[tuple[bytes, bytes]], message: bytes, processor: protocol.EventsProcessor
    ) -> bool:
        """In one write, where there is nothing to wait for: each one wakes the driver."""
        if not (self.connection.write_ready.is_set() and self._h2.fits(len(message))):
            return False
        self._begin()
        try:
            number = self._h2.ask(headers, message)
        except TooManyStreamsError:
            return False
        self.init_stream(number, self.connection)
        self._release = processor.register(self)
        self._transport.write(self._h2.data_to_send())
        return True

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
        self._stop_sending()  # an answer may come before all of the request has gone

    def __terminated__(self, reason: str) -> None:
        self.break_off(reason)

    def break_off(self, reason: str, *, lost: bool = True, taken: bool = True) -> None:
        if not self.over.is_set():
            self.broken, self.lost, self.taken = reason, lost, taken
            self.over.set()
            self._stop_sending()

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()


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


def headers(method: str, timeout: float) -> list[tuple[bytes, bytes]]:
    fields = [*_CONSTANT, (b":path", method.encode()), (b"grpc-timeout", _timeout(timeout)), *_TRAILING]
    if (parent := traces.parent()) is not None:
        fields.append((b"traceparent", parent.encode()))
    return fields


_CONSTANT = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost")]
_TRAILING = [(b"te", b"trailers"), (b"content-type", b"application/grpc"), (b"user-agent", _AGENT.encode())]


def _timeout(seconds: float) -> bytes:
    """At most eight digits; rounded up, so that the driver does not give up before we do.

    In whole milliseconds, less what has passed since the call began, so that all calls have the same text.
    """
    milliseconds = max(1, math.ceil(seconds * 1000 - 0.01))
    text = f"{milliseconds}m" if milliseconds < 10**8 else f"{min(milliseconds // 1000, 10**8 - 1)}S"
    return text.encode()
