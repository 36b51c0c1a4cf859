"""Unary gRPC calls on the driver's Unix socket: the one file that knows of asyncio.

Trio callers come in by `call`; trio-asyncio's loop lives as long as the channel. Every failure leaves as a `CallError`
(design.md 3, rule 7). What to ask and what an answer means is `driver`'s. Spec: process.md 4.

Built on grpclib's protocol layer and not on its `Channel` (design.md 1). The deadline is a Trio scope, so it also holds
while connecting and follows a test's clock.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar, cast

import betterproto2
import trio
import trio_asyncio  # type: ignore[import-untyped]
from anyio import AsyncContextManagerMixin
from grpclib.config import Configuration
from grpclib.protocol import AbstractHandler, Connection, EventsProcessor, H2Protocol
from grpclib.protocol import Stream as AnyStream
from h2.errors import ErrorCodes
from h2.events import (
    AlternativeServiceAvailable,
    ConnectionTerminated,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    StreamReset,
    UnknownFrameReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from csi_provisioner.advice import advice
from csi_provisioner.csi import answer, wire
from csi_provisioner.csi.engine import Engine as Http2  # or `http2.Http2`: h2 itself
from csi_provisioner.csi.errors import CallError, NotTakenError
from csi_provisioner.csi.http2 import ALL_STREAMS, GOODBYE, HTTP2
from csi_provisioner.csi.redaction import redact, scrubbed
from csi_provisioner.csi.socket import trouble
from csi_provisioner.csi.stream import Stream, headers
from csi_provisioner.logs import log
from csi_provisioner.model.codes import Code, label
from csi_provisioner.traces import traces

ResponseT = TypeVar("ResponseT", bound=betterproto2.Message)

# Seconds between attempts of `wait_connected` (process.md 4.2), and between its log lines.
RETRY_PAUSE = 1.0
STILL_CONNECTING = 10.0

# Bytes of an answer that is read at once: up to 15 ms. The largest take most of a second, and a hundred of them would
# cost the lease; they are read in a thread, one at a time, since the interpreter runs no two.
SHORT = 4096

# Bytes that are read between two steps of the loop: of the smallest frames 1,800, which take 50 ms.
AT_ONCE = 16 * 1024
# Bytes that a driver may leave unread: a hundred requests at once, and acknowledgements of all that it sends.
UNREAD = 8 * 1024 * 1024

# Two processes that ask for these at once could make a volume twice, or delete one that is in use.
CHANGING = frozenset({"/csi.v1.Controller/CreateVolume", "/csi.v1.Controller/DeleteVolume"})


class CallMetrics(Protocol):
    """What the channel counts; `metrics.Metrics` in the process."""

    def csi_call(self, method: str, code_label: str, seconds: float, migrated: bool | None) -> None: ...


class Channel(AsyncContextManagerMixin):
    """The driver behind one socket. Connects lazily, on the next call; never in the background.

    `on_lost` is called once for every connection that was up and takes no more calls, however it ended and whether or
    not a call was running, except by leaving the context; `left_politely` says then whether the driver still answers
    what it has taken. It runs between two steps of the loop and must not block. What changes volumes is only sent while
    `may_begin` says so.
    """

    def __init__(
        self,
        path: str,
        *,
        on_lost: Callable[[], None],
        metrics: CallMetrics,
        may_begin: Callable[[], bool] = lambda: True,
    ) -> None:
        # What keeps us from being connected, for people.
        self.trouble = ""
        self.left_politely = False
        self._open = trio.Event()
        self._open.set()
        self._path = path
        self._on_lost = on_lost
        self._metrics = metrics
        self._may_begin = may_begin
        self._connection: _Connection | None = None
        # Calls that find no connection wait for the first of them to make one.
        self._connecting = trio.Lock()
        self._reader = trio.CapacityLimiter(1)

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator["Channel"]:
        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(_log_defect)
            self._loop = loop
            try:
                yield self
            finally:
                # First forgotten, then closed: our own closing is no loss to be told of.
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
        meets: bool = False,
    ) -> ResponseT:
        """Ask and wait at most `timeout` seconds, after at most as long for a connection that was met; `meets` is how
        one is. Cancelled, it ends at once and the driver is told."""
        verbose = log.v_enabled(5)
        if verbose:
            log.v(5, "GRPC call", method=method, request=redact(request))
        started = trio.current_time()
        code_label = label(Code.CANCELED)  # unless it ends in one of the other ways
        try:
            with traces.span(method[1:], remote=True):
                response = await self._ask(method, request, response_type, timeout, meets)
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

    def hold(self) -> None:
        """From now on calls wait for `release`, but for those by which the next connection is met."""
        # Calls that wait already hold the event that `release` will set: it must not be replaced.
        if self._open.is_set():
            self._open = trio.Event()

    def release(self) -> None:
        self._open.set()

    async def wait_connected(self) -> None:
        """Return once the driver speaks HTTP/2 on the socket; try about every second, for as long as it takes."""
        told = ""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._log_connecting)
            while self._connection is None:
                try:
                    await self._connect()
                except OSError as error:
                    self.trouble = trouble(self._path, error)
                    if self.trouble != told:
                        told = self.trouble
                        log.warning("No connection to the CSI driver yet", err=told, advice=advice(told))
                    await trio.sleep(RETRY_PAUSE)
            nursery.cancel_scope.cancel()

    async def _log_connecting(self) -> None:
        while True:
            await trio.sleep(STILL_CONNECTING)
            log.warning("Still connecting to the CSI driver", err=self.trouble)

    async def _ask(
        self, method: str, request: betterproto2.Message, response_type: type[ResponseT], limit: float, meets: bool
    ) -> ResponseT:
        message = answer.framed(wire.encode(request))
        try:
            try:
                return await self._exchange(method, message, response_type, limit, meets)
            except NotTakenError:
                # Once more and no more often: a driver that takes nothing would be asked without a pause.
                return await self._exchange(method, message, response_type, limit, meets)
        except CallError as error:
            reason = scrubbed(error.message, request)
            raise CallError(error.code, reason, method, not_grpc=error.not_grpc, lost=error.lost) from error.__cause__
        except OSError as error:
            reason = f"cannot connect to {self._path}: {error}"
            raise CallError(Code.UNAVAILABLE, reason, method, lost=True) from error

    async def _exchange(
        self, method: str, message: bytes, response_type: type[ResponseT], limit: float, meets: bool
    ) -> ResponseT:
        def begin() -> None:
            if method in CHANGING and not self._may_begin():
                raise CallError(Code.UNAVAILABLE, "not sent: the lease has run out, another process may lead")

        if not (meets or self._open.is_set()):
            with trio.move_on_after(limit):
                while not self._open.is_set():
                    await self._open.wait()
            if not self._open.is_set():
                raise CallError(Code.UNAVAILABLE, "the driver is away, it was not asked", lost=True)
        received: bytes | None = None
        with trio.move_on_after(limit):
            connection = self._connection or await self._connect()
            received = await connection.exchange(method, message, begin)
            return await self._read(received, response_type)
        # Of one that came and was not read nobody knows what it said: as uncertain as none.
        text = "no answer" if received is None else f"the answer of {len(received)} bytes came, and was not read"
        raise CallError(Code.DEADLINE_EXCEEDED, f"{text} within {limit:g} s")

    async def _read(self, received: bytes, response_type: type[ResponseT]) -> ResponseT:
        if len(received) <= SHORT:
            return answer.decode(received, response_type)
        try:
            # A thread that nobody waits for any more keeps the next one waiting until it has ended.
            return await trio.to_thread.run_sync(
                answer.decode, received, response_type, limiter=self._reader, abandon_on_cancel=True
            )
        except RuntimeError:  # the machine gives no thread: better late than not at all
            return answer.decode(received, response_type)

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
                raise ConnectionResetError(connection.trouble)
            self._connection = connection
            return connection

    def _lost(self, connection: "_Connection", politely: bool) -> None:
        # One that ended before it was up is a failed attempt to connect, not a loss.
        if connection is self._connection:
            self._connection = None
            self.left_politely = politely
            self._on_lost()


class _Connection(H2Protocol, AbstractHandler):
    """grpclib's protocol on one socket, and its own handler: grpclib tells a handler when the connection ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[["_Connection", bool], None]) -> None:
        super().__init__(self, Configuration(), HTTP2)
        self._loop = loop
        self._on_lost: Callable[[_Connection, bool], None] | None = on_lost
        self._streams: set[Stream] = set()
        # Of them those that wait for the peer to take more of their requests.
        self._waiting: set[Stream] = set()
        # The driver's settings have come, or the connection has ended.
        self.settled = trio.Event()
        # No call can be begun on it any more.
        self.lost = False
        self.trouble = "the driver closed the connection before it spoke HTTP/2"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As grpclib does it, without pings and with what HTTP/2 wants to be ignored, where grpclib would fail."""
        self._h2 = Http2()
        self._h2.initiate_connection()
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(0)  # what may begin goes to the kernel at once, or is asked about again
        cast(Any, self._transport).max_size = AT_ONCE
        self.connection = Connection(cast(Any, self._h2), self._transport, config=self.config)
        self.connection.flush()
        self.processor = EventsProcessor(self, self.connection)
        handlers = cast(dict[type, Callable[[Any], None]], self.processor.processors)
        # grpclib raises for an event that it has no handler for, and for it a GOAWAY ends all calls at once.
        for ignored in (UnknownFrameReceived, InformationalResponseReceived, AlternativeServiceAvailable):
            handlers[ignored] = lambda event: None
        handlers[ConnectionTerminated] = lambda event: self._leave(event.last_stream_id, GOODBYE)
        # grpclib tells every stream; a peer does this once a call, of a hundred streams.
        handlers[WindowUpdated] = lambda event: self._window_updated()
        settings_changed, stream_reset = handlers[RemoteSettingsChanged], handlers[StreamReset]

        def settings_came(event: RemoteSettingsChanged) -> None:
            settings_changed(event)
            self.connection.stream_close_waiter.set()  # it may take more streams now
            self.settled.set()

        def reset(event: StreamReset) -> None:
            stream = self.processor.streams.get(event.stream_id)
            if isinstance(stream, Stream):
                taken = event.error_code != ErrorCodes.REFUSED_STREAM
                stream.break_off(f"the stream was reset, error code {event.error_code}", lost=False, taken=taken)
            stream_reset(event)

        handlers[RemoteSettingsChanged], handlers[StreamReset] = settings_came, reset

    def _window_updated(self) -> None:
        for stream in self._waiting:
            stream.window_updated.set()

    def data_received(self, data: bytes) -> None:
        # As grpclib does it, which keeps what was wrong to itself.
        try:
            for event in self.connection.feed(data):
                self.processor.process(event)
            self.connection.flush()
        except Exception as error:  # whatever a driver sends may end the connection, never the process
            self._breach(str(error) if isinstance(error, ProtocolError) else repr(error))
        if self._transport.get_write_buffer_size() > UNREAD:
            self._breach(f"it sends on, and leaves more than {UNREAD} bytes unread")

    def _breach(self, what: str) -> None:
        self.trouble = f"it does not speak HTTP/2 as it should: {what}"
        if self.settled.is_set():  # else who connects tells of it, once
            log.error("The CSI driver broke the HTTP/2 protocol", err=what)
        self.processor.close(f"Protocol error: {what}")
        self._transport.abort()  # what it does not read would keep the socket open

    async def exchange(self, method: str, request: bytes, begin: Callable[[], None]) -> bytes:
        """Send one message, receive one. What `begin` raises keeps it from being sent."""
        await trio.lowlevel.checkpoint_if_cancelled()  # there is no time left to tell the driver of
        head = headers(method, trio.current_effective_deadline() - trio.current_time())
        stream = Stream(self.connection, self._h2, self._transport, begin)
        self._streams.add(stream)
        try:
            if not stream.sent_at_once(head, request, self.processor):
                await self._send(stream, head, request)
            await stream.over.wait()
        except ProtocolError as error:
            if not stream.over.is_set():
                # Nothing can be begun on this connection any more: its stream numbers are used up.
                self._leave(ALL_STREAMS, str(error))
        finally:
            self._streams.discard(stream)
            stream.leave()
            self._close_when_done()
        if stream.broken is not None and trio.current_time() >= trio.current_effective_deadline():
            # A driver resets a stream whose time is up, perhaps before the scope that bounds us has its turn.
            await trio.sleep_forever()
        if not stream.taken:
            text = f"the driver did not take the call: {stream.broken}"
            raise NotTakenError(Code.UNAVAILABLE, text, lost=stream.lost)
        return answer.read(stream.headers, stream.received, stream.trailers, stream.broken, lost=stream.lost)

    async def _send(self, stream: Stream, head: list[tuple[bytes, bytes]], request: bytes) -> None:
        """Trio runs grpclib's sending. When it has to wait (for the peer's windows), it does so by this loop."""
        token = trio_asyncio.current_loop.set(self._loop)
        self._waiting.add(stream)
        try:
            await trio_asyncio.allow_asyncio(stream.send, head, request, self.processor)
        finally:
            self._waiting.discard(stream)
            trio_asyncio.current_loop.reset(token)

    def _leave(self, last: int, reason: str) -> None:
        """No call is begun here any more. Streams up to `last` end in peace, above it nothing was begun."""
        self.lost = self._h2.leaving = True
        self.settled.set()
        for stream in self._streams:
            if stream.id is None or stream.id > last:
                stream.break_off(reason, taken=False)
        self._report_lost(politely=True)
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._h2.leaving and not self._streams:
            self._transport.close()

    def _report_lost(self, *, politely: bool) -> None:
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost(self, politely)

    def close_quietly(self) -> None:
        self._on_lost = None
        if hasattr(self, "processor"):
            self.processor.close("Channel closed")

    def accept(self, stream: AnyStream, headers: Any, release_stream: Callable[[], None]) -> None:
        """Only a server is asked for streams."""

    def cancel(self, stream: AnyStream) -> None:
        """A reset reaches the call by its stream."""

    def close(self) -> None:
        # Called for a breach of the protocol and again when its socket has closed.
        self.lost = True
        self.settled.set()
        for stream in self._streams:
            stream.give_up_waiting()
        self._report_lost(politely=False)


def _log_defect(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio could not hand to a caller; trio-asyncio's own handler would end the process."""
    log.error("Unexpected error on the CSI connection", what=context.get("message"), err=repr(context.get("exception")))
