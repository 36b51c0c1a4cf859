"""HTTP/1.1 to one API server: an httpx2 transport on the C parser of httptools, over Trio sockets and `trio.SSLStream`.

Done here: connections, a bounded pool of them, one exchange after another on each, and httpx2's exceptions out of it.
Not done here: proxies (httpx2's own transport does those), credentials, retries on an answer, content encodings,
request bodies that are not bytes. A request marked `extensions["stream"]` may hold its connection for minutes (a watch)
and is counted apart, so that watches never starve requests. `extensions["begin"]` is called just before the first bytes
of a request, each time that it is sent; what it raises keeps it from being sent. Why not httpx2's own transport:
design.md section 1.
"""

import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx2
import trio

from csi_provisioner.kube.connection import Connection, Unanswered, Wire, notice_silence, reason

T = TypeVar("T")
Begin = Callable[[], None] | None

# With one process per core and small answers, more connections than this only wait for one another (measured)
REQUESTS = 16
# A watch each for about ten kinds, and room for those that are being replaced
STREAMS = 64
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
WAITS: dict[type[httpx2.TransportError], str] = {
    httpx2.PoolTimeout: "waiting for a free connection",
    httpx2.ConnectTimeout: "connecting",
    httpx2.WriteTimeout: "sending the request",
    httpx2.ReadTimeout: "waiting for the answer",
}


class Body(httpx2.AsyncByteStream):
    """The rest of an answer, as it comes. Whoever does not read to the end closes it, which ends the connection."""

    def __init__(self, connection: Connection, release: Callable[[Connection], None], timeout: float | None) -> None:
        self._connection: Connection | None = connection
        self._release = release
        self._timeout = timeout

    def __aiter__(self) -> "Body":
        return self

    async def __anext__(self) -> bytes:
        connection = self._connection
        if connection is None:
            raise StopAsyncIteration
        try:
            while not connection.body and not connection.complete:
                await within(self._timeout, httpx2.ReadTimeout, connection.receive)
        except BaseException:
            self._end()
            raise
        chunk = b"".join(connection.body)
        connection.body.clear()
        if connection.complete:
            self._end()
            if not chunk:
                raise StopAsyncIteration
        return chunk

    def _end(self) -> None:
        if self._connection is not None:
            self._release(self._connection)
            self._connection = None

    async def aclose(self) -> None:
        self._end()


class Transport(httpx2.AsyncBaseTransport):
    """For one server: every request goes to `host` and `port`, whatever its URL says."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        requests: int = REQUESTS,
        streams: int = STREAMS,
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self._server_name = server_name or host
        self._most_kept = requests
        self._requests = trio.Semaphore(requests)
        self._streams = trio.Semaphore(streams)
        self._idle: list[Connection] = []  # the last used is used first: the others may grow old and be closed
        self._closed = False
        if tls is not None:
            tls.set_alpn_protocols(["http/1.1"])

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        limits: dict[str, float | None] = request.extensions.get("timeout", {})
        message = serialise(request)
        slots = self._streams if request.extensions.get("stream") else self._requests
        try:
            slots.acquire_nowait()
        except trio.WouldBlock:
            await within(limits.get("pool"), httpx2.PoolTimeout, slots.acquire)
        try:
            connection = await self._answered(request.method, message, limits, request.extensions.get("begin"))
        except BaseException:
            slots.release()
            raise

        def release(connection: Connection) -> None:
            slots.release()
            self._put_back(connection)

        stream: httpx2.AsyncByteStream
        if connection.complete:  # the usual case: the whole answer came in one piece
            stream = httpx2.ByteStream(b"".join(connection.body))
            release(connection)
        else:
            stream = Body(connection, release, limits.get("read"))
        return httpx2.Response(connection.status, headers=connection.headers, stream=stream)

    async def _answered(self, method: str, message: bytes, limits: dict[str, float | None], begin: Begin) -> Connection:
        """The connection on which the head of the answer has come."""
        kept = self._take()
        if kept is not None:
            try:
                return await ask(kept, method, message, limits, begin)
            except httpx2.WriteError:
                pass  # the server never had the whole request, so it has not acted on it
            except Unanswered:
                if method not in SAFE:
                    raise
        fresh = await within(limits.get("connect"), httpx2.ConnectTimeout, self._dial)
        return await ask(fresh, method, message, limits, begin)

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.quiet():
                return connection
            connection.close()
        return None

    def _put_back(self, connection: Connection) -> None:
        if connection.status == 401:
            # Perhaps it is our certificate that was refused, which is that of the handshake as long as a connection
            # lives: who asks again with another one does so on a new connection.
            connection.kept = False
            self._close_idle()
        whole = connection.complete and connection.kept
        if whole and not self._closed and len(self._idle) < self._most_kept:
            self._idle.append(connection)
        else:
            connection.close()

    async def _dial(self) -> Connection:
        if self._closed:
            raise httpx2.ConnectError("the client is closed")
        host, port = self._address
        try:
            transport = await trio.open_tcp_stream(host, port)
        except (OSError, UnicodeError) as error:  # the latter: not a name of a host at all
            raise httpx2.ConnectError(f"cannot connect to {host} port {port}: {reason(error)}") from error
        notice_silence(transport)
        wire = Wire(transport)
        if self._tls is None:
            return Connection(wire, wire)
        # https_compatible: a close without TLS's farewell is an end; whether the answer was whole is the parser's word
        secure = trio.SSLStream(wire, self._tls, server_hostname=self._server_name, https_compatible=True)
        try:
            await secure.do_handshake()
        except trio.BrokenResourceError as error:
            transport.socket.close()
            raise httpx2.ConnectError(f"TLS with {host} port {port} failed: {reason(error)}") from error
        except BaseException:
            transport.socket.close()
            raise
        return Connection(secure, wire)

    async def aclose(self) -> None:
        """Ends the idle connections; those in use end with their requests."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


class ProxyTransport(httpx2.AsyncHTTPTransport):
    """httpx2's own. What there is for tracing tells it when a request is sent."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        begin: Begin = request.extensions.get("begin")

        async def trace(event: str, _info: object) -> None:
            if begin is not None and event.endswith((".send_request_headers.started", ".send_request_body.started")):
                begin()

        request.extensions["trace"] = trace
        return await super().handle_async_request(request)


async def ask(
    connection: Connection, method: str, message: bytes, limits: dict[str, float | None], begin: Begin
) -> Connection:
    connection.expect(method)
    try:
        await within(limits.get("write"), httpx2.WriteTimeout, connection.send, message, begin)
        while not connection.status:
            await within(limits.get("read"), httpx2.ReadTimeout, connection.receive)
    except BaseException:
        connection.close()
        raise
    return connection


def serialise(request: httpx2.Request) -> bytes:
    fields = request.headers.raw
    target = request.extensions.get("target") or request.url.raw_path
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), target)]
    lines += [b"%b: %b" % field for field in fields]
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(fields):
        raise httpx2.LocalProtocolError("a header of the request holds a line break")
    return b"%b\r\n\r\n%b" % (head, request.read())


async def within(
    seconds: float | None, error: type[httpx2.TransportError], call: Callable[..., Awaitable[T]], *args: object
) -> T:
    if seconds is None:
        return await call(*args)
    with trio.move_on_after(seconds):
        return await call(*args)
    raise error(f"{WAITS[error]} took longer than {seconds:g} s")
