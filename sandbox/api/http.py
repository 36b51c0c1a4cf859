"""HTTP/1.1 for the embedded API: httptools reads the requests, and one task a connection answers them in turn.

Of HTTP there is what clients of Kubernetes use: kept connections, whole answers, and streams in chunks.
"""

import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import httptools
import trio


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # by names in lower case
    body: bytes
    version: str
    kept: bool
    """Whether the client may ask more on this connection."""


class Connection:
    """One client, until it leaves or says what is no HTTP. `handle` answers with the methods below, and answers are
    dated by `now`, the clock that also stamps the objects."""

    def __init__(
        self,
        stream: trio.SocketStream,
        handle: Callable[[Request, "Connection"], Awaitable[None]],
        now: Callable[[], str],
    ) -> None:
        self._stream = stream
        self._handle = handle
        self._now = now
        self._parser = httptools.HttpRequestParser(self)
        self._asked: deque[Request] = deque()
        self._request: Request | None = None
        self._nonsense = False
        self._clear()

    async def serve(self) -> None:
        async with self._stream:
            try:
                while await self._next():
                    pass
                if self._nonsense:
                    await self.answer(400, b"this is not HTTP/1.1")
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the client has left, or was cut off

    async def _next(self) -> bool:
        """Answers one more request; says whether another may follow."""
        while not self._asked:
            if not await self._receive():
                return False
        self._request = self._asked.popleft()
        await self._handle(self._request, self)
        return self._request.kept

    async def _receive(self) -> bool:
        data = await self._stream.receive_some()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._nonsense = True
        return bool(data) and not self._nonsense

    # ---- answers

    async def answer(self, code: int, body: bytes, **headers: str) -> None:
        sent = b"" if self._request is not None and self._request.method == "HEAD" else body
        if self._request is None or not self._request.kept:
            headers["connection"] = "close"
        await self._stream.send_all(self._head(code, content_length=str(len(body)), **headers) + sent)

    async def begin(self, **headers: str) -> None:
        """A stream, in as many pieces as are sent until `end`."""
        framing = {"transfer_encoding": "chunked"} if self._in_chunks else {}
        await self._stream.send_all(self._head(200, **framing, **headers))

    async def send(self, piece: bytes) -> None:
        await self._stream.send_all(b"%x\r\n%s\r\n" % (len(piece), piece) if self._in_chunks else piece)

    async def end(self) -> None:
        if self._in_chunks:
            await self._stream.send_all(b"0\r\n\r\n")

    async def break_off(self, body: bytes) -> None:
        """A whole answer is promised, and half of it sent: a broken one, not a short one."""
        await self._stream.send_all(self._head(200, content_length=str(len(body))) + body[: len(body) // 2])
        self.cut()

    def cut(self) -> None:
        """Reset, as a broken network does; nothing more goes out."""
        if self._stream.socket.fileno() >= 0:
            # lingering for no time sends a reset instead of an orderly end, and discards what is not sent yet
            self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._stream.socket.close()

    async def gone(self) -> None:
        """Waits for the client to leave."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while not self._asked and await self._receive():
                pass
        if self._asked:  # it stays, and asks on
            await trio.sleep_forever()

    def _head(self, code: int, **headers: str) -> bytes:
        fields = {"date": _date(self._now()), "content_type": "application/json"} | headers
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
        return f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\n{''.join(lines)}\r\n".encode()

    @property
    def _in_chunks(self) -> bool:
        return (
            self._request is not None and self._request.version != "1.0"
        )  # which has none: its streams end with the connection

    # ---- called by httptools

    def _clear(self) -> None:
        self._target, self._body = b"", b""
        self._headers: dict[str, str] = {}

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        path, _, query = self._target.decode("latin-1").partition("?")
        self._asked.append(
            Request(
                self._parser.get_method().decode(),
                unquote(path),
                dict(parse_qsl(query, keep_blank_values=True)),
                self._headers,
                self._body,
                self._parser.get_http_version(),
                self._parser.should_keep_alive(),
            )
        )
        self._clear()


@lru_cache(maxsize=8)
def _date(now: str) -> str:
    return format_datetime(datetime.fromisoformat(now), usegmt=True)
