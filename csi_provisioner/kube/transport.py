"""HTTP/1.1 to one API server: bytes on the C parser of httptools, over Trio streams and `secure`'s TLS.

Done here: connections, also through a proxy, a bounded pool of them, and one exchange after another on each. Not done
here: credentials, retries on an answer, content encodings. A stream may hold its connection for minutes (a watch) and
is counted apart, so that watches never starve requests. Why no library's transport: design.md section 1.
"""

import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple, cast

import trio

from csi_provisioner.kube.connection import (
    LARGEST_BATCH,
    Begin,
    BrokenError,
    Connection,
    Open,
    UnansweredError,
    UnsentError,
    open_socket,
    reason,
)
from csi_provisioner.kube.proxy import Url
from csi_provisioner.kube.tls import OtherKeyError, Tls

# A busy server serves whoever asks, in turn: of a backlog 48 connections write 1.3 times the volumes a second that 16
# do, and with more of them it is no more (measured, real control plane on two cores)
REQUESTS = 48
# A watch each for about ten kinds, and room for those that are being replaced
STREAMS = 64
# Apart from the request's deadline, so that the error says which
CONNECT_LIMIT = 10.0
# A page of 500 usual objects has 2 MiB; what anybody can make of it (`TooLarge`) is read in smaller pages
LARGEST = 64 << 20


class Route(NamedTuple):
    """How a server is reached: `tls` is with it, `proxy` on the way to it. `open` makes the first connection."""

    server: tuple[str, int]
    tls: Tls | None = None
    server_name: str = ""
    """In its certificate; without it, its host."""
    proxy: Url | None = None
    proxy_tls: Tls | None = None
    proxy_name: str = ""
    open: Open = open_socket


class Answer:
    """An answer whose head has come; iterating gives its body. Who does not read to the end, or meets an error, closes
    it, which ends the connection."""

    def __init__(self, connection: Connection, release: Callable[[Connection], None]) -> None:
        self.status = connection.status
        self.headers = connection.headers
        self._chunks = connection.body
        self._connection: Connection | None = connection
        self._release = release
        if connection.complete:  # the usual case: the whole answer came in one piece
            self.close()

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._connection is None:
                raise StopAsyncIteration
            # Not one record a wait: a server begins with records of a packet each.
            await self._connection.receive(LARGEST_BATCH)
            if self._connection.complete:
                self.close()
        chunk = b"".join(self._chunks)
        self._chunks.clear()
        return chunk

    async def whole(self) -> bytes:
        read, size = [], 0
        try:
            async for chunk in self:
                read.append(chunk)
                size += len(chunk)
                if size > LARGEST:
                    raise BrokenError(f"the answer is larger than {LARGEST >> 20} MiB", "TooLarge")
        finally:
            self.close()
        return b"".join(read)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._release(connection)


class Transport:
    def __init__(self, route: Route, *, requests: int = REQUESTS, streams: int = STREAMS) -> None:
        self._route = route
        self._context: ssl.SSLContext | None = None
        self._most_kept = requests
        self._requests = trio.Semaphore(requests)
        self._streams = trio.Semaphore(streams)
        self._idle: list[Connection] = []  # the last used is used first: the others may grow old and be closed
        self._closed = False

    async def exchange(
        self, method: str, target: str, head: bytes, body: bytes = b"", *, stream: bool = False, begin: Begin = None
    ) -> Answer:
        """`head` is the lines of all header fields, each with its end."""
        message = b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method.encode(), target.encode(), head, body)
        slots = self._streams if stream else self._requests
        try:
            slots.acquire_nowait()  # `acquire` would be a checkpoint, also where there is nothing to wait for
        except trio.WouldBlock:
            await slots.acquire()
        try:
            connection = await self._answered(method, message, begin)
        except BaseException:
            slots.release()
            raise
        return Answer(connection, partial(self._put_back, slots))

    async def _answered(self, method: str, message: bytes, begin: Begin) -> Connection:
        """The connection on which the head of the answer has come."""
        connection = self._take()
        if connection is not None:
            try:
                await connection.exchange(message, begin)
            except UnsentError:
                pass
            except UnansweredError:
                if method != "GET":  # it may have been done
                    raise
            else:
                return connection
        try:
            with trio.fail_after(CONNECT_LIMIT):
                connection = await self._dialled()
        except trio.TooSlowError:
            raise BrokenError(f"connecting took longer than {CONNECT_LIMIT:g} s", "Timeout") from None
        await connection.exchange(message, begin)
        return connection

    def _take(self) -> Connection | None:
        tls = self._route.tls
        if tls is not None and tls.current() is not self._context:
            self._context = tls.context
            self._close_idle()
        while self._idle:
            connection = self._idle.pop()
            if connection.wire.quiet():
                return connection
            connection.close()
        return None

    def _put_back(self, slots: trio.Semaphore, connection: Connection) -> None:
        slots.release()
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

    async def _dialled(self) -> Connection:
        for _ in range(self._route.tls.others if self._route.tls is not None else 0):
            with suppress(OtherKeyError):
                return await self._dial()
        return await self._dial()

    async def _dial(self) -> Connection:
        if self._closed:
            raise BrokenError("the client is closed")
        route, peer = self._route, "{} port {}".format(*self._route.server)
        host, port = route.server if route.proxy is None else (route.proxy.host, route.proxy.port)
        first = peer if route.proxy is None else f"the proxy {host} port {port}"
        try:
            wire = await route.open(host, port)
        except (OSError, UnicodeError, RuntimeError) as error:  # also: not a host's name, no thread for it
            raise BrokenError(f"cannot connect to {first}: {reason(error)}") from error
        stream = cast(trio.abc.Stream, wire)
        try:
            if route.proxy_tls is not None:
                stream = await route.proxy_tls.secured(stream, route.proxy_name, first)
            if route.proxy is not None:
                await _tunnel(route, route.proxy, Connection(stream, wire))
            if route.tls is not None:
                stream = await route.tls.secured(stream, route.server_name or route.server[0], peer)
        except BaseException:
            wire.close()
            raise
        return Connection(stream, wire)

    def close(self) -> None:
        """Ends the idle connections; those in use end with their requests."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


async def _tunnel(route: Route, proxy: Url, connection: Connection) -> None:
    """Asks the proxy for a connection to the server: what is sent afterwards goes there."""
    host, port = route.server
    server = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {server} HTTP/1.1", f"Host: {server}", *map(": ".join, proxy.proxy_fields()), "", ""]
    await connection.exchange("\r\n".join(lines).encode(), tunnel=True)
    if connection.status >= 300:
        text = f"the proxy {proxy.host} does not let us through to {server}: it answered {connection.status}"
        raise BrokenError(text)
