"""The lines of a watch from a plain Trio stream: the nested generators of an HTTP client cannot be left half way."""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

import httptools
import trio


class Lines:
    """An answer that comes in lines of JSON; iterate to wait for them."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._parser = httptools.HttpResponseParser(self)
        self._buffer = b""
        self._ended = False
        self.head = False

    def on_headers_complete(self) -> None:
        self.head = True

    def on_body(self, data: bytes) -> None:
        self._buffer += data

    def on_message_complete(self) -> None:
        self._ended = True

    @property
    def code(self) -> int:
        return int(self._parser.get_status_code())

    async def more(self) -> None:
        data = await self._stream.receive_some()
        if data:
            self._parser.feed_data(data)
        else:
            self._ended = True

    def __aiter__(self) -> "Lines":
        return self

    async def __anext__(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            if self._ended:
                raise StopAsyncIteration
            await self.more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event


@asynccontextmanager
async def stream(
    url: str, path: str, query: Mapping[str, Any], *, headers: Mapping[str, str], trust: ssl.SSLContext | None = None
) -> AsyncIterator[Lines]:
    """GET `path` and hand out its lines, as soon as the head of the answer is there."""
    where = urlsplit(url)
    raw: trio.abc.Stream = await trio.open_tcp_stream(str(where.hostname), where.port or 0)
    if trust is not None:
        raw = trio.SSLStream(raw, trust, server_hostname=where.hostname, https_compatible=True)
    async with raw:
        fields = "".join(f"{name}: {value}\r\n" for name, value in {"Host": where.netloc, **headers}.items())
        await raw.send_all(f"GET {path}?{urlencode(query)} HTTP/1.1\r\n{fields}\r\n".encode())
        lines = Lines(raw)
        while not lines.head:
            await lines.more()
        yield lines
