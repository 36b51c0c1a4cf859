"""Unary gRPC calls on the driver's Unix socket: the one file that knows of asyncio, and with `answer` of HTTP/2.

Trio callers come in by `call`; trio-asyncio's loop lives as long as the channel. Every failure leaves as a `CallError`
(design.md 3, rule 7). What to ask and what an answer means is `driver`'s. Spec: process.md 4.

Built on grpclib's protocol layer and not on its `Channel`, which takes no authority, does not bound a message before it
has it in memory, loses the numbers of unknown status codes, says nothing of a connection lost while idle, and costs
twice as much. The deadline is a Trio scope, so it also holds while connecting and follows a test's clock.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import betterproto2
import trio
import trio_asyncio  # type: ignore[import-untyped]
from anyio import AsyncContextManagerMixin
from grpclib.config import Configuration
from grpclib.metadata import USER_AGENT
from grpclib.protocol import AbstractHandler, Buffer, Connection, EventsProcessor, H2Protocol, Stream
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import InformationalResponseReceived, RemoteSettingsChanged, UnknownFrameReceived
from h2.exceptions import ProtocolError

from csi_provisioner import __version__
from csi_provisioner.csi import answer, wire
from csi_provisioner.csi.errors import CallError
from csi_provisioner.csi.redaction import redact, scrubbed
from csi_provisioner.csi.socket import told
from csi_provisioner.logs import log
from csi_provisioner.model.codes import Code, label

ResponseT = TypeVar("ResponseT", bound=betterproto2.Message)

RETRY_PAUSE = 1.0
"""Seconds between attempts of `wait_connected` (process.md 4.2)."""
STILL_CONNECTING = 10.0
"""Seconds between its log lines."""

_HTTP2 = H2Configuration(
    client_side=True,
    # Never fails, whatever bytes a driver puts into a message; `answer` makes text of them.
    header_encoding="latin-1",
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)


class _Http2(H2Connection):
    """A status comes in headers, and with it whatever a driver has to say. More than they may hold would end the
    connection, and all calls on it. The most that h2 takes in one piece: 64 frames of 16 KiB."""

    DEFAULT_MAX_HEADER_LIST_SIZE = 1024 * 1024


CHANGING = frozenset({"/csi.v1.Controller/CreateVolume", "/csi.v1.Controller/DeleteVolume"})

_AGENT = f"csi-provisioner/{__version__} {USER_AGENT}"


class CallMetrics(Protocol):
    """What the channel counts; `metrics.Metrics` in the process."""

    def csi_call(self, method: str, code_label: str, seconds: float, migrated: bool | None) -> None: ...


class Channel(AsyncContextManagerMixin):
    """The driver behind one socket. Connects when first needed and again after a loss, never on its own accord.

    `on_lost` is called once for every connection that was up and ended, however it ended and whether or not a call was
    running, except by leaving the context. It runs between two steps of the loop and must not block. What changes
    volumes is only sent while `may_begin` says so.
    """

    def __init__(
        self,
        path: str,
        *,
        on_lost: Callable[[], None],
        metrics: CallMetrics,
        may_begin: Callable[[], bool] = lambda: True,
    ) -> None:
        self._told = self.trouble = ""
        """What keeps us from being connected, for people."""
        self._path = path
        self._on_lost = on_lost
        self._metrics = metrics
        self._may_begin = may_begin
        self._connection: _Connection | None = None
        self._connecting = trio.Lock()

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator["Channel"]:
        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(_log_defect)
            self._loop = loop
            try:
                yield self
            finally:
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.close_quietly()

    async def call(
        self,
        method: str,
        request: betterproto2.Message,
        response_type: type[ResponseT],
        *,
        timeout: float,  # noqa: ASYNC109 -- a scope of the caller's could not be told to the driver
        migrated: bool | None = None,
    ) -> ResponseT:
        """Ask and wait at most `timeout` seconds. Cancelled, it ends at once and the driver is told."""
        verbose = log.v_enabled(5)
        if verbose:
            log.v(5, "GRPC call", method=method, request=redact(request))
        started = trio.current_time()
        code_label = label(Code.CANCELED)  # unless it ends in one of the other ways
        try:
            response = await self._ask(method, request, response_type, timeout)
            code_label = label(Code.OK)
        except CallError as error:
            code_label = error.label
            if verbose:
                log.v(5, "GRPC response", method=method, response="{}", err=str(error))
            raise
        finally:
            self._metrics.csi_call(method, code_label, trio.current_time() - started, migrated)
        if verbose:
            log.v(5, "GRPC response", method=method, response=redact(response), err=None)
        return response

    async def wait_connected(self) -> None:
        """Return once the driver speaks HTTP/2 on the socket; try about every second, for as long as it takes."""
        if self._connection is not None:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._log_connecting)
            while not await self._try_connect():  # noqa: ASYNC110 -- a socket that appears tells nobody
                await trio.sleep(RETRY_PAUSE)
            nursery.cancel_scope.cancel()

    async def _try_connect(self) -> bool:
        try:
            await self._connect()
        except OSError as error:
            self.trouble = self._told = told(self._path, error, self._told)
            return False
        self._told = ""
        return True

    async def _log_connecting(self) -> None:
        while True:
            await trio.sleep(STILL_CONNECTING)
            log.warning("Still connecting to the CSI driver", err=self.trouble)

    async def _ask(
        self, method: str, request: betterproto2.Message, response_type: type[ResponseT], limit: float
    ) -> ResponseT:
        def begin() -> None:
            if method in CHANGING and not self._may_begin():
                text = "not sent: the lease has run out, another process may lead"
                raise CallError(Code.UNAVAILABLE, text, method)

        try:
            with trio.move_on_after(limit):
                connection = self._connection or await self._connect()
                received = await connection.exchange(method, answer.framed(wire.encode(request)), begin)
                return answer.decode(received, response_type)
        except answer.StatusError as error:
            message = scrubbed(error.message, request)
            raise CallError(error.code, message, method, not_grpc=error.not_grpc) from error.__cause__
        except OSError as error:
            raise CallError(Code.UNAVAILABLE, f"cannot connect to {self._path}: {error}", method) from error
        raise CallError(Code.DEADLINE_EXCEEDED, f"no answer within {limit:g} s", method)

    async def _connect(self) -> "_Connection":
        async with self._connecting:
            if self._connection is not None:
                return self._connection
            connection = _Connection(self._loop, self._lost)
            try:
                await self._loop.run_aio_coroutine(self._loop.create_unix_connection(lambda: connection, self._path))
                self.trouble = f"socket {self._path}: it takes connections but says nothing"
                await connection.settled.wait()
            except BaseException:
                connection.close_quietly()
                raise
            if connection.lost:
                raise ConnectionResetError("the driver closed the connection before it spoke HTTP/2")
            self._connection = connection
            return connection

    def _lost(self, connection: "_Connection") -> None:
        # One that ended before it was up is a failed attempt to connect, not a loss.
        if connection is self._connection:
            self._connection = None
            self._on_lost()


class _Connection(H2Protocol, AbstractHandler):
    """grpclib's protocol on one socket, and its own handler: grpclib tells a handler when the connection ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[["_Connection"], None]) -> None:
        super().__init__(self, Configuration(), _HTTP2)
        self._loop = loop
        self._on_lost: Callable[[_Connection], None] | None = on_lost
        self._streams: set[_Stream] = set()
        self.settled = trio.Event()
        """The driver's settings have come, or the connection has ended."""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As grpclib does it, without pings and with what HTTP/2 wants to be ignored, where grpclib would fail."""
        self._h2 = _Http2(config=_HTTP2)
        self._h2.initiate_connection()
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(0)  # what may begin goes to the kernel at once, or is asked about again
        self.connection = Connection(self._h2, self._transport, config=self.config)
        self.connection.flush()
        self.processor = EventsProcessor(self, self.connection)
        handlers = cast(dict[type, Callable[[Any], None]], self.processor.processors)
        handlers[UnknownFrameReceived] = handlers[InformationalResponseReceived] = lambda event: None
        settings_changed = handlers[RemoteSettingsChanged]

        def settings_came(event: RemoteSettingsChanged) -> None:
            settings_changed(event)
            self.settled.set()

        handlers[RemoteSettingsChanged] = settings_came

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception as error:
            # Whatever a driver sends may end the connection, never the process.
            log.error("The CSI driver broke the HTTP/2 protocol", err=repr(error))
            self.processor.close("Protocol error")

    async def exchange(self, method: str, request: bytes, begin: Callable[[], None]) -> bytes:
        """Send one message, receive one. What `begin` raises keeps it from being sent."""
        await trio.lowlevel.checkpoint_if_cancelled()  # there is no time left to tell the driver of
        headers = _headers(method, trio.current_effective_deadline() - trio.current_time())
        stream = _Stream(self.connection, cast(H2Connection, _Beginning(self._h2, begin)), self._transport)
        self._streams.add(stream)
        # Trio runs grpclib's sending. Should it have to wait (for the peer's windows), it does so by this loop.
        token = trio_asyncio.current_loop.set(self._loop)
        try:
            with stream.sending:
                await trio_asyncio.allow_asyncio(stream.send, headers, request, self.processor)
            await stream.over.wait()
        except ProtocolError as error:
            if not stream.over.is_set():
                # Nothing can be begun on this connection any more: its stream numbers are used up.
                self.processor.close(str(error))
        finally:
            trio_asyncio.current_loop.reset(token)
            self._streams.discard(stream)
            stream.leave()
        if stream.broken is not None and trio.current_time() >= trio.current_effective_deadline():
            # A driver resets a stream whose time is up, perhaps before the scope that bounds us has its turn.
            await trio.sleep_forever()
        return answer.read(stream.headers, stream.received, stream.trailers, stream.broken)

    def close_quietly(self) -> None:
        self._on_lost = None
        if hasattr(self, "processor"):
            self.processor.close("Channel closed")

    def accept(self, stream: Stream, headers: Any, release_stream: Callable[[], None]) -> None:
        """Only a server is asked for streams."""

    def cancel(self, stream: Stream) -> None:
        """A reset reaches the call by its stream."""

    def close(self) -> None:
        # Called for a GOAWAY and again when its socket has closed.
        self.lost = True
        self.settled.set()
        for stream in self._streams:
            stream.give_up_waiting()
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost(self)


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


class _Stream(Stream):
    """One call. Gathers what comes until it is over, so that its task wakes up once."""

    def __init__(self, connection: Connection, h2: H2Connection, transport: asyncio.Transport) -> None:
        super().__init__(connection, h2, transport)
        self.sending = trio.CancelScope()
        self.over = trio.Event()
        self.received = bytearray()
        self.broken: str | None = None
        """Why nothing more will come, if it ended before its status did."""
        self._release: Callable[[], None] | None = None

    def init_stream(self, stream_id: int, connection: Connection) -> None:
        self.id = stream_id
        self.buffer = _Body(self, partial(connection.ack, stream_id))

    async def send(self, headers: list[tuple[str, str]], message: bytes, processor: EventsProcessor) -> None:
        self._release = await self.send_request(headers, _processor=processor)
        await self.send_data(message, end_stream=True)

    def leave(self) -> None:
        """Let go of it; the driver is told if it is still at work."""
        if self._release is not None:
            if self.closable:
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
        if not self.over.is_set():
            self.broken = reason
            self.over.set()
            self.sending.cancel()


class _Body(Buffer):
    """In place of grpclib's, which acknowledges bytes when they are read: here at once, and dropped when too many."""

    def __init__(self, stream: _Stream, acknowledge: Callable[[int], None]) -> None:
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


def _headers(method: str, timeout: float) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("grpc-timeout", _timeout(timeout)),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", _AGENT),
    ]


def _timeout(seconds: float) -> str:
    """At most eight digits; rounded up, so that the driver does not give up before we do.

    In whole milliseconds, less what has passed since the call began, so that the header compression sees the same text.
    """
    milliseconds = max(1, math.ceil(seconds * 1000 - 0.01))
    return f"{milliseconds}m" if milliseconds < 10**8 else f"{min(milliseconds // 1000, 10**8 - 1)}S"


def _log_defect(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio could not hand to a caller; trio-asyncio's own handler would end the process."""
    log.error("Unexpected error on the CSI connection", what=context.get("message"), err=repr(context.get("exception")))
