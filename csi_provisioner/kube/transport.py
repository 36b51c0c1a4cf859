"""HTTP/1.1 to one API server: an httpx2 transport on the C parser of httptools, over Trio sockets and `trio.SSLStream`.

Done here: connections, also through a proxy, a bounded pool of them, one exchange after another on each, and httpx2's
exceptions out of it. Not done here: credentials, retries on an answer, content encodings, request bodies that are not
bytes. A request marked `extensions["stream"]` may hold its connection for minutes (a watch) and is counted apart, so
that watches never starve requests. `extensions["begin"]` is called just before the first bytes of a request, each time
that it is sent; what it raises keeps it from being sent. Why not httpx2's own transport: design.md section 1.
"""

import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import httpx2
import trio

from csi_provisioner.kube.connection import Connection, Open, Unanswered, open_socket, reason
from csi_provisioner.kube.proxy import authorization, endpoint
from csi_provisioner.kube.tls import Tls

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
    """For one server: every request goes to `host` and `port`, whatever its URL says, by way of `proxy`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: Tls | None = None,
        server_name: str = "",
        proxy: httpx2.URL | None = None,
        requests: int = REQUESTS,
        streams: int = STREAMS,
        open: Open = open_socket,
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._server_name = server_name or host
        self._proxy = proxy
        self._proxy_tls = Tls() if proxy is not None and proxy.scheme == "https" else None
        self._open = open
        self._most_kept = requests
        self._requests = trio.Semaphore(requests)
        self._streams = trio.Semaphore(streams)
        self._idle: list[Connection] = []  # the last used is used first: the others may grow old and be closed
        self._closed = False

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
        if self._tls is not None and self._tls.current() is not self._context:
            self._context = self._tls.context
            self._close_idle()
        while self._idle:
            connection = self._idle.pop()
            if connection.wire.quiet():
                return connection
            connection.close()
        return None

    def _put_back(self, connection: Connection) -> None:
        if connection.status == 401:
            # Perhaps it is our certificate that was refused, which is that of the handshake as long as a connection
            # lives: who asks again with another one does so on a new connection.
            connection.kept = False
            self._close_idle()
        trusted = getattr(connection.stream, "context", None) is self._context  # by those of the moment
        whole = connection.complete and connection.kept and trusted
        if whole and not self._closed and len(self._idle) < self._most_kept:
            self._idle.append(connection)
        else:
            connection.close()

    async def _dial(self) -> Connection:
        if self._closed:
            raise httpx2.ConnectError("the client is closed")
        host, port = self._address if self._proxy is None else endpoint(self._proxy)
        peer = f"{host} port {port}" if self._proxy is None else f"the proxy {host} port {port}"
        try:
            wire = await self._open(host, port)
        except (OSError, UnicodeError) as error:  # the latter: not a name of a host at all
            raise httpx2.ConnectError(f"cannot connect to {peer}: {reason(error)}") from error
        stream = cast(trio.abc.Stream, wire)
        try:
            if self._proxy is not None:
                if self._proxy_tls is not None:
                    stream = await self._proxy_tls.secured(stream, host, peer)
                await self._tunnel(self._proxy, Connection(stream, wire))
            if self._tls is not None:
                stream = await self._tls.secured(stream, self._server_name, "{} port {}".format(*self._address))
        except BaseException:
            wire.close()
            raise
        return Connection(stream, wire)

    async def _tunnel(self, proxy: httpx2.URL, connection: Connection) -> None:
        """What is sent afterwards goes to the server."""
        host, port = self._address
        server = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {server} HTTP/1.1", f"Host: {server}", *(": ".join(field) for field in authorization(proxy))]
        await ask(connection, "HEAD", "\r\n".join([*lines, "", ""]).encode(), {}, None)  # as there, no body will come
        if connection.status >= 300:
            text = f"the proxy {proxy.host} does not let us through to {server}: it answered {connection.status}"
            raise httpx2.ProxyError(text)

    async def aclose(self) -> None:
        """Ends the idle connections; those in use end with their requests."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


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
