"""What lightkube sends its requests through, in place of `httpx2.AsyncClient`: cheaper, and with the errors mapped.

lightkube says what to ask (`prepare_request`) and what an answer means (its decoders); `transport` moves the bytes.
Between them, here: the URL and the common headers, credentials and their renewal on 401, waiting out `Retry-After`,
and `KubeError` for whatever went wrong. An `AsyncClient` would add redirects, cookies, an auth flow and a merge of
settings to each request, half of the cost of one; none of them is wanted here. Deadlines are the caller's.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import trio

from csi_provisioner.kube.credentials import CredentialError, Credentials
from csi_provisioner.kube.errors import KubeError, from_status

# With the server's usual second each, about as long as a request may take at all
MOST_WAITS = 10
IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})


# Longer than that is not a slow server but none; said apart from an answer that does not come
CONNECT_LIMIT = 10.0
# A page of 500 usual objects has 2 MiB; what anybody can make of it (`TooLarge`) is read in smaller pages
LARGEST = 64 << 20


class Answer:
    """The part of a response that lightkube looks at, once it is known to be a good one."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    def raise_for_status(self) -> None:
        """lightkube asks; a bad status has been raised before."""


class Sender:
    """`build_request`, `send` and `aclose` are what lightkube calls; `stream` is for watches. `origin` goes before the
    path of each request: a proxy wants to see it."""

    def __init__(
        self,
        transport: httpx2.AsyncBaseTransport,
        server: httpx2.URL,
        credentials: Credentials,
        headers: Sequence[tuple[str, str]] = (),
        origin: str = "",
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._server = server
        self._prefix = origin + server.path.rstrip("/")
        # compressed answers cost both sides more than loopback or a data centre's network does
        common = [("Host", server.netloc.decode()), ("Accept", "application/json"), ("Accept-Encoding", "identity")]
        self._headers = httpx2.Headers([*common, *headers], encoding="utf-8")  # those who are acted for have any name
        self._extensions: dict[str, Any] = {"timeout": {"connect": CONNECT_LIMIT}}

    def build_request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: object = None,
    ) -> httpx2.Request:
        target = f"{self._prefix}/{quote(url.lstrip('/'))}"
        if params:
            target += f"?{urlencode(params)}"
        # the target apart from the URL, as httpx2's transports understand too: parsing a URL costs more than sending it
        extensions = {"target": target.encode(), **self._extensions}
        body = httpx2.ByteStream(content or b"")
        request = httpx2.Request(method, self._server, headers=self._headers, stream=body, extensions=extensions)
        for name, value in (headers or {}).items():
            request.headers[name] = value
        if content is not None:
            request.headers["Content-Length"] = str(len(content))
        return request

    async def send(self, request: httpx2.Request, stream: bool = False) -> Answer:
        """The whole answer. lightkube's name for what `open_stream` does is not used here."""
        with mapped():
            return Answer(await whole(await self._accepted(request)))

    async def open_stream(self, request: httpx2.Request) -> httpx2.Response:
        """The head of a good answer; its body comes from `response.stream`, to be closed by the caller."""
        request.extensions["stream"] = True
        with mapped():
            return await self._accepted(request)

    async def _accepted(self, request: httpx2.Request) -> httpx2.Response:
        waits, renewed = 0, False
        while True:
            value = await self._credentials.authorization()
            if value is not None:
                request.headers["Authorization"] = value
            response = await self._transport.handle_async_request(request)
            if response.is_success:
                return response
            error = from_status(await whole(response), response.status_code, retry_after(response))
            if error.code == 400 and self._server.scheme == "http" and "HTTPS" in error.message:
                raise KubeError(0, "WantsTLS", error.message)
            if error.code == 401 and not renewed and await self._credentials.refused(value):
                renewed = True
                continue
            pause = pause_before_next(error, request.method)
            if pause is None or waits == MOST_WAITS:
                raise error
            await trio.sleep(pause)
            waits += 1

    async def aclose(self) -> None:
        await self._transport.aclose()


async def whole(response: httpx2.Response) -> bytes:
    """The body, past httpx2's decoders: nothing was asked to be encoded."""
    stream = response.stream
    if isinstance(stream, httpx2.ByteStream):  # it has come already
        return b"".join(stream)
    read, size = [], 0
    async with reading(response) as chunks:
        async for chunk in chunks:
            read.append(chunk)
            size += len(chunk)
            if size > LARGEST:
                raise KubeError(0, "TooLarge", f"the answer is larger than {LARGEST >> 20} MiB")
    return b"".join(read)


@asynccontextmanager
async def reading(response: httpx2.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """The body as it comes. Leaving ends it: also the generator that httpx2 may read it with."""
    stream: Any = response.stream
    chunks = aiter(stream)
    try:
        yield chunks
    finally:
        await chunks.aclose()
        await stream.aclose()


@contextmanager
def mapped() -> Iterator[None]:
    """What goes wrong without an answer, as the KubeError it is to everybody above."""
    try:
        yield
    except httpx2.TransportError as error:
        reason = getattr(error, "kind", "Timeout" if isinstance(error, httpx2.TimeoutException) else "Unavailable")
        raise KubeError(0, reason, str(error)) from error
    except CredentialError as error:
        raise KubeError(0, "Credentials", str(error)) from error


def retry_after(response: httpx2.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def pause_before_next(error: KubeError, method: str) -> float | None:
    """Seconds the server wants us to wait, if asking again is right: it has refused to look at the request.

    A 503 may come from something in between that does not know, so there only what can be done twice is.
    """
    if error.code != 429 and not (error.code == 503 and method in IDEMPOTENT):
        return None
    pause = error.retry_after
    if pause is None or trio.current_time() + pause > trio.current_effective_deadline():
        return None
    return pause
