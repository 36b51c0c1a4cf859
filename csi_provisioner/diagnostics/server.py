"""The HTTP server: h11 on Trio streams, one task per connection (process.md 7).

It decides what is accepted from a client and how long the client may take. Whatever a client does or fails to do ends
at most its own connection. The content of pages is made elsewhere.
"""

import gzip
import math
import re
import select
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import trio

from csi_provisioner.logs import log

# Open connections. Scrapers and probes are a handful; this many still cost little memory and time.
CONNECTIONS = 64
# Bytes of a request's head, which h11 keeps until it is complete. Proxies and cookies make a few KiB.
HEAD = 16 * 1024
# Seconds for a head, from the connection's start or the head's first byte: the probe timeout of our manifests.
HEAD_TIME = 10.0
# Seconds until the next request: more than the usual minute between scrapes, so that a scraper keeps its connection.
IDLE_TIME = 75.0
# Seconds in which a client may take nothing of its answer. Sent in pieces, so that only a client that has stopped
# reading runs into it, not a slow one.
STALL_TIME = 10.0
PIECE = 16 * 1024
# What is still read after the last answer, in bytes and seconds: closing with unread bytes resets the connection, and
# the client loses the answer.
DROPPED = 64 * 1024
DROP_TIME = 1.0
# Seconds that each connection has when there are too many, because a new one may not have been read yet. Others wait in
# the kernel, and get their turn because each connection then ends with its answer.
SPARED = 0.2
ROOM_PAUSE = 0.02
# Connections accepted in one turn of the event loop: enough for a crowd, and the work is not held up.
ACCEPTED = 8
# Pause after a failed accept (no descriptors, no memory: this takes a while to pass), and between two log lines on it.
ACCEPT_PAUSE = 0.1
ACCEPT_QUIET = 60.0

_AUTHORITY = re.compile(rb"^https?://[^/?]*", re.IGNORECASE)
# Headers that say so; a mesh's proxy is a loopback peer of every process in its pod.
_OF_PROXIES = (b"x-forwarded", b"forwarded", b"via", b"x-envoy", b"l5d-")
_NOT_GZIP = re.compile(r"q=0(\.0*)?")


@dataclass(frozen=True)
class Request:
    query: Mapping[str, str]
    gone: Callable[[], Awaitable[None]]
    """Returns when the client has hung up: for a page that takes time."""
    accept: str = ""
    local: bool = False
    """Asked from within the pod, as `kubectl port-forward` does: there is no other authentication here."""


@dataclass(frozen=True)
class Response:
    text: str
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Page = Callable[[Request], Awaitable[Response]]


def in_turn(page: Page) -> Page:
    """At most one such page is made per turn of the event loop. Otherwise clients on many connections could delay the
    renewal of the lease."""
    turnstile = trio.Lock()

    async def made(request: Request) -> Response:
        async with turnstile:
            pass
        return await page(request)

    return made


class Server:
    """Answers each page at exactly its path to any method, and everything else with 404. One that is made with `more`
    has pages to come: until `publish` a request for another page waits."""

    def __init__(self, pages: Mapping[str, Page], *, more: bool = False) -> None:
        self._pages = pages
        self._complete = trio.Event()
        if not more:
            self._complete.set()
        self._connections: set[_Connection] = set()

    def publish(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._complete.set()

    async def serve(self, listener: socket.socket) -> None:
        """Runs until cancelled. Not `trio.serve_listeners`, which ends at most errors of accept."""
        quiet_until = -math.inf
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    for _ in range(ACCEPTED):
                        if not _is_readable(listener):
                            break  # nobody waits for room
                        await self.room()
                        stream = trio.SocketStream(trio.socket.from_stdlib_socket(listener.accept()[0]))
                        # Counted at once: its task runs only after this turn.
                        nursery.start_soon(self._talk, self._enter(stream))
                except BlockingIOError:
                    pass  # no more connections wait
                except OSError as error:
                    if trio.current_time() >= quiet_until:
                        quiet_until = trio.current_time() + ACCEPT_QUIET
                        log.error("HTTP connections cannot be accepted, trying on", err=error)
                    await trio.sleep(ACCEPT_PAUSE)

    async def room(self) -> None:
        """Waits for room for one more connection. If there are too many, the one that waits longest for a head is
        closed; if none waits, the one whose answer takes longest. One whose page is being made stays."""
        while self._is_full():
            first = min(self._connections, key=lambda other: other.rank)
            if trio.current_time() - first.rank[1] < SPARED:
                await trio.sleep(ROOM_PAUSE)
            else:
                self._connections.remove(first)
                first.scope.cancel()

    async def handle(self, stream: trio.abc.HalfCloseableStream) -> None:
        """One connection, until its end; never fails."""
        await self._talk(self._enter(stream))

    def _enter(self, stream: trio.abc.HalfCloseableStream) -> "_Connection":
        connection = _Connection(stream)
        self._connections.add(connection)
        return connection

    async def _talk(self, connection: "_Connection") -> None:
        try:
            with connection.scope:
                await self._answer_all(connection)
        except (trio.BrokenResourceError, trio.TooSlowError):
            pass  # the client has gone, or takes nothing
        except Exception:
            log.exception("A defect ended an HTTP connection; the others go on")
        finally:
            self._connections.discard(connection)
            await trio.aclose_forcefully(connection.stream)

    def _is_full(self) -> bool:
        return len(self._connections) >= CONNECTIONS

    async def _answer_all(self, connection: "_Connection") -> None:
        patience, more = HEAD_TIME, True
        while more:
            try:
                request = await connection.head(patience)
            except h11.RemoteProtocolError as error:
                status = HTTPStatus(error.error_status_hint)
                await connection.send(Response(f"{status.phrase}: {error}\n", status))
                break
            if request is None:
                return
            response = await self._response(request, connection)
            more = await connection.send(response, request, last=self._is_full())
            patience = IDLE_TIME
        await connection.drop()

    async def _response(self, request: h11.Request, connection: "_Connection") -> Response:
        if not _is_spoken(request):
            return Response("this server speaks HTTP/1.0 and HTTP/1.1\n", 505)
        target, _, query = _AUTHORITY.sub(b"", request.target).decode("ascii").partition("?")
        path = unquote(target)
        if path not in self._pages:
            with trio.move_on_after(HEAD_TIME):
                await self._complete.wait()
            if not self._complete.is_set():
                return Response("the program is still being loaded, ask again\n", 503)
        page = self._pages.get(path)
        if page is None or request.method == b"CONNECT":  # 2xx would make a tunnel of it
            return Response("404 page not found\n", 404)
        try:
            local = _is_local(connection.stream, request)
            return await page(Request(dict(parse_qsl(query)), connection.gone, _header(request, b"accept"), local))
        except Exception:
            log.exception("An HTTP page failed", path=target)
            return Response("internal server error, the log says more\n", 500)


def _is_readable(listener: socket.socket) -> bool:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))


class _Connection:
    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.scope = trio.CancelScope()
        self.rank = (0, trio.current_time())
        """What the connection does (0 head, 1 answer, 2 page) and since when; the least is closed first."""
        self.stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD - 1)

    async def head(self, patience: float) -> h11.Request | None:
        """The next request, without its body; None if there is none. Raises RemoteProtocolError."""
        if self.rank[0]:  # a new connection waits since it was accepted: tasks of one turn run in any order
            self.rank = (0, trio.current_time())
        with trio.move_on_after(patience) as limit:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                if self._pending():
                    limit.deadline = min(limit.deadline, trio.current_time() + HEAD_TIME)
                await self._receive()
            self.rank = (2, math.inf)
            return event if isinstance(event, h11.Request) else None
        if self._pending():
            raise h11.RemoteProtocolError("the head did not come in time", error_status_hint=408)
        return None

    async def send(self, response: Response, request: h11.Request | None = None, *, last: bool = False) -> bool:
        """Whether another request may follow: not after one with a body, or none that was understood."""
        self.rank = (1, trio.current_time())
        body = response.text.encode(errors="backslashreplace")
        date = f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S} GMT"  # `email.utils` comes with all of `email`
        headers = [("Date", date), ("Content-Type", response.content_type), *response.headers]
        if request is not None and _takes_gzip(request):
            body = gzip.compress(body, 1)  # level 1: this blocks the event loop, and higher levels save little
            headers.append(("Content-Encoding", "gzip"))
        headers.append(("Content-Length", str(len(body))))
        if last or request is None or _has_body(request) or not _is_spoken(request):
            headers.append(("Connection", "close"))
        else:
            self._http.next_event()  # the end of a request without a body
        reason = HTTPStatus(response.status).phrase
        events: list[h11.Event] = [h11.Response(status_code=response.status, headers=headers, reason=reason)]
        if request is None or request.method != b"HEAD":
            events.append(h11.Data(data=body))
        events.append(h11.EndOfMessage())
        sent = memoryview(b"".join(self._http.send(event) or b"" for event in events))
        for start in range(0, len(sent), PIECE):
            with trio.fail_after(STALL_TIME):
                await self.stream.send_all(sent[start : start + PIECE])
        if self._http.our_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def drop(self) -> None:
        """Reads and drops what comes after the last answer, so that closing does not reset the connection."""
        with trio.move_on_after(DROP_TIME):
            await self.stream.send_eof()
            left = DROPPED
            while left > 0 and (data := await self.stream.receive_some(left)):
                left -= len(data)

    async def gone(self) -> None:
        with suppress(trio.BrokenResourceError):
            while len(self._pending()) < HEAD:
                if not await self._receive():
                    return
            await trio.sleep_forever()

    async def _receive(self) -> bool:
        data = await self.stream.receive_some(HEAD - len(self._pending()))
        self._http.receive_data(bytes(data))
        return bool(data)

    def _pending(self) -> bytes:
        return self._http.trailing_data[0]


def _is_spoken(request: h11.Request) -> bool:
    """h11 itself accepts `PRI * HTTP/2.0` and `HTTP/3.7`."""
    return request.http_version in (b"1.0", b"1.1")


def _has_body(request: h11.Request) -> bool:
    lengths = [value for name, value in request.headers if name in (b"content-length", b"transfer-encoding")]
    return any(value.strip(b"0") for value in lengths)


def _takes_gzip(request: h11.Request) -> bool:
    accepted = _header(request, b"accept-encoding")
    codings = (coding.lower().replace(" ", "").partition(";") for coding in accepted.split(","))
    return any(name == "gzip" and not _NOT_GZIP.fullmatch(weight) for name, _, weight in codings)


def _header(request: h11.Request, name: bytes) -> str:
    return b",".join(value for each, value in request.headers if each == name).decode("latin-1")


def _is_local(stream: trio.abc.Stream, request: h11.Request) -> bool:
    """A loopback peer that is no proxy, and has asked for this machine: else a web page that gives its own name our
    address could read ours in the name of whoever looks at it."""
    if not isinstance(stream, trio.SocketStream) or any(name.startswith(_OF_PROXIES) for name, _ in request.headers):
        return False
    try:
        host = urlsplit(f"//{_header(request, b'host')}").hostname or ""
        peer = ip_address(stream.socket.getpeername()[0])
        named = host == "localhost" or ip_address(host).is_loopback
    except (OSError, ValueError):
        return False
    return named and (getattr(peer, "ipv4_mapped", None) or peer).is_loopback
