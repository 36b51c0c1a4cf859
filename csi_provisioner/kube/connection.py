"""One HTTP/1.1 connection to the API server: the request under way and the part of its answer received so far.

httptools (a C parser) reads the answers. A connection is used by one exchange after another, never by two at once; the
pool that decides about that is `transport`. What goes wrong with sockets and bytes becomes a KubeError here.
"""

import errno
import select
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import trio

from csi_provisioner.kube.errors import KubeError

# A peer that vanished without a word is noticed on the socket after about 30 s
ALIVE = {
    socket.TCP_KEEPIDLE: 15,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 30_000,
}
# Bytes that are no body: a head, or what may stand between the chunks of a body and after them. A head has about 1 KiB.
LONGEST_HEAD = 64 << 10
# What an answer takes before others have their turn: some hundred events of a watch
LARGEST_BATCH = 256 << 10

Begin = Callable[[], None] | None
"""Called just before the first bytes of a request, each time that it is sent. If it raises, nothing is sent."""


class BrokenError(KubeError):
    """There is no answer, or none that makes sense. `reason` is the word that advice goes by."""

    def __init__(self, message: str, reason: str = "Unavailable") -> None:
        super().__init__(0, reason, message)


class UnsentError(BrokenError):
    """The server never had the whole request, so it has not acted on it."""


class UnansweredError(BrokenError):
    """The connection ended before the first byte of an answer."""


class Wire:
    """A stream to the server, below TLS. There is no checkpoint between the call of `begin` and its bytes."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.begin: Begin = None  # of the next bytes only
        self.ended = False  # TLS's farewell has been read, of which the socket says nothing more
        self.bare: socket.socket | None = None
        """The socket itself, where TLS has taken it over."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.begun()
        await self.stream.send_all(data)

    def begun(self) -> None:
        """The next bytes follow at once."""
        begin, self.begin = self.begin, None
        if begin is not None:
            begin()

    def detached(self) -> socket.socket:
        """The socket as Python knows it, which does not block and which Trio's stream has no more."""
        bare = socket.socket(fileno=self.socket.detach())
        bare.setblocking(False)
        return bare

    def quiet(self) -> bool:
        """Whether nothing has come while nothing was asked. What comes then is the server closing the connection."""
        poll = select.poll()
        poll.register((self.bare or self.socket).fileno(), select.POLLIN)
        return not (self.ended or poll.poll(0))

    def close(self) -> None:
        """At once, without TLS's farewell: there is nothing to wait for and no checkpoint to be cancelled at."""
        if self.bare is None:
            self.socket.close()
        elif self.bare.fileno() >= 0:
            trio.lowlevel.notify_closing(self.bare)
            self.bare.close()


Open = Callable[[str, int], Awaitable[Wire]]
"""How a connection to a host's port is opened; an OSError says why it cannot be."""


async def open_socket(host: str, port: int) -> Wire:
    try:
        stream = await trio.open_tcp_stream(host, port)
    except RuntimeError as error:  # no thread to look the name up in
        raise OSError(errno.EAGAIN, str(error)) from error
    # A server whose machine is gone sends nothing: without these a connection to it looks alive for many minutes.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ALIVE.items():
        stream.setsockopt(socket.IPPROTO_TCP, option, value)
    return Wire(stream)


class Connection:
    """One connection, one exchange at a time. The `on_` methods are what httptools calls while it is fed."""

    def __init__(self, stream: trio.abc.Stream, wire: Wire) -> None:
        self.stream = stream
        self.wire = wire
        self._parser = httptools.HttpResponseParser(self)
        self.kept = True  # whether another exchange may follow

    async def exchange(self, message: bytes, begin: Begin = None, *, tunnel: bool = False) -> None:
        """Sends a request and waits for the head of its answer; whatever goes wrong ends the connection."""
        self._tunnel = tunnel  # a proxy's answer to CONNECT has no body, whatever its head announces
        self._silent = True
        self.status = 0  # until the head of the answer is there
        self.complete = False
        self._framing = 0  # bytes since the last of a body
        self.body: list[bytes] = []
        try:
            await self._send(message, begin)
            while not self.status:
                await self.receive()
        except BaseException:
            self.close()
            raise

    async def _send(self, message: bytes, begin: Begin) -> None:
        self.wire.begin = begin
        try:
            await self.stream.send_all(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise UnsentError(f"could not send the request: {reason(error)}") from error

    async def receive(self, most: int | None = None) -> None:
        """Waits for more bytes and gives them to the parser; with `most` all that have come, up to about so many."""
        try:
            data = await self.stream.receive_some(most)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if self._silent:
                raise UnansweredError(f"the connection broke before an answer: {reason(error)}") from error
            raise BrokenError(f"the connection broke within the answer: {reason(error)}") from error
        if not data:
            self._end()
            return
        if self._silent and data[:2] == b"\x15\x03":  # TLS's alert
            raise BrokenError("the server answered in TLS", "WantsTLS")
        self._silent = False
        self._framing += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.kept = False
            if not self.complete:
                raise BrokenError(f"the answer is not HTTP/1.1: {reason(error)}") from error
        if self._framing > LONGEST_HEAD and not self.complete:
            raise BrokenError(f"the head of the answer is longer than {LONGEST_HEAD >> 10} KiB")

    def _end(self) -> None:
        """The server has closed the connection: that ends an answer without a length, and breaks any other."""
        self.kept = False
        if self._silent:
            # Without TLS it may be a server that wants it, which says nothing else than this.
            kind = "Closed" if isinstance(self.stream, Wire) else "Unavailable"
            raise UnansweredError("the server closed the connection without an answer", kind)
        if not self.status or b"content-length" in self.headers or b"transfer-encoding" in self.headers:
            raise BrokenError("the server closed the connection within its answer")
        self.complete = True

    def close(self) -> None:
        self.kept = False
        self.wire.close()

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("bytes after the end of the answer")
        self.headers: dict[bytes, bytes] = {}  # by names in lower case

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # else an interim answer, after which the true one comes
            self.status = status
            if self._tunnel:  # the parser would wait for a body
                self.complete = True
                self.kept = False

    def on_body(self, data: bytes) -> None:
        self.body.append(data)
        self._framing = 0

    def on_message_complete(self) -> None:
        if self.status:
            self.complete = True
            self.kept = self.kept and self._parser.should_keep_alive()


def reason(error: BaseException) -> str:
    """The text of the cause: Trio's wrappers say nothing by themselves, and a host may have several addresses."""
    cause = error.__cause__ or error
    causes = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
    return "; ".join(dict.fromkeys(str(each) or type(each).__name__ for each in causes))
