"""One HTTP/1.1 connection to the API server, as a state of bytes: what was asked, what of the answer has come.

httptools (a C parser) reads the answers. A connection is used by one exchange after another, never by two at once; the
pool that decides about that is `transport`. Broken bytes and streams leave here as httpx2's exceptions.
"""

import select
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import httpx2
import trio

# A peer that vanished without a word is noticed on the socket after about this many seconds
SILENCE = 30
# Bytes that are no body: a head, or what may stand between the chunks of a body and after them. A head has about 1 KiB.
LONGEST_HEAD = 64 << 10


class Unanswered(httpx2.RemoteProtocolError):
    """The connection ended before the first byte of an answer."""

    kind = "Unavailable"


class Wire:
    """A stream to the server, below TLS. From `begin` to the bytes that it is about there is no checkpoint here."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self.begin: Callable[[], None] | None = None
        """Asked once, by the next bytes; they are not sent if it raises."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        begin, self.begin = self.begin, None
        if begin is not None:
            begin()
        await self._stream.send_all(data)

    def quiet(self) -> bool:
        """Nothing has come while nothing was asked. What comes then is the server closing the connection."""
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """At once, without TLS's farewell: there is nothing to wait for and no checkpoint to be cancelled at."""
        self.socket.close()


Open = Callable[[str, int], Awaitable[Wire]]
"""How a connection to a host's port is opened; an OSError says why it is not. Tests give one without sockets."""


async def open_socket(host: str, port: int) -> Wire:
    stream = await trio.open_tcp_stream(host, port)
    notice_silence(stream)
    return Wire(stream)


class TlsError(httpx2.ConnectError):
    """`kind` is the word that advice goes by, here and above."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class Connection:
    """One connection, one exchange at a time. The `on_` methods are what httptools calls while it is fed."""

    __slots__ = (
        "body",
        "complete",
        "framing",
        "headers",
        "kept",
        "message",
        "parser",
        "silent",
        "status",
        "stream",
        "wire",
    )

    def __init__(self, stream: trio.abc.Stream, wire: Wire) -> None:
        self.stream = stream
        self.wire = wire
        self.parser = httptools.HttpResponseParser(self)
        self.kept = True  # whether another exchange may follow

    def expect(self, method: str) -> None:
        """A new exchange begins."""
        self.message = method
        self.silent = True
        self.status = 0  # until the head of the answer is there
        self.complete = False
        self.framing = 0  # bytes since the last of a body
        self.body: list[bytes] = []

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("bytes after the end of the answer")
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status >= 200:
            self.status = status
            if self.message == "HEAD":  # the parser would wait for the body that the head announces
                self.complete = True
                self.kept = False

    def on_body(self, data: bytes) -> None:
        self.body.append(data)
        self.framing = 0

    def on_message_complete(self) -> None:
        if self.status:  # not an interim answer (1xx), after which the true one comes
            self.complete = True
            self.kept = self.kept and self.parser.should_keep_alive()

    async def send(self, data: bytes, begin: Callable[[], None] | None) -> None:
        self.wire.begin = begin
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpx2.WriteError(f"could not send the request: {reason(error)}") from error

    async def receive(self) -> None:
        """Waits for more bytes and gives them to the parser."""
        try:
            data = await self.stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if self.silent:
                raise Unanswered(f"the connection broke before an answer: {reason(error)}") from error
            raise httpx2.ReadError(f"the connection broke within the answer: {reason(error)}") from error
        if not data:
            self.end()
            return
        if self.silent and data.startswith(b"\x15\x03"):  # TLS's alert
            raise TlsError("the server answered in TLS", "WantsTLS")
        self.silent = False
        self.framing += len(data)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.kept = False
            if not self.complete:
                raise httpx2.RemoteProtocolError(f"the answer is not HTTP/1.1: {reason(error)}") from error
        if self.framing > LONGEST_HEAD and not self.complete:
            raise httpx2.RemoteProtocolError(f"the head of the answer is longer than {LONGEST_HEAD >> 10} KiB")

    def end(self) -> None:
        """The server has closed: the end of an answer without a length, otherwise a broken one."""
        self.kept = False
        if self.silent:
            error = Unanswered("the server closed the connection without an answer")
            if isinstance(self.stream, Wire):
                error.kind = "Closed"
            raise error
        lengths = (b"content-length", b"transfer-encoding")
        if not self.status or any(name.lower() in lengths for name, _ in self.headers):
            raise httpx2.RemoteProtocolError("the server closed the connection within its answer")
        self.complete = True

    def close(self) -> None:
        self.kept = False
        self.wire.close()


def notice_silence(stream: trio.SocketStream) -> None:
    """A server whose machine is gone sends nothing: without this a connection to it looks alive for many minutes."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 15),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", SILENCE * 1000),
    ):
        if hasattr(socket, option):  # not on every system
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def reason(error: BaseException) -> str:
    """The text of what lies below: Trio's wrappers say nothing by themselves, and a host may have several addresses."""
    cause = error.__cause__ or error
    causes = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
    return "; ".join(dict.fromkeys(str(each) or type(each).__name__ for each in causes))
