"""Stands between the provisioner and a real API server, and lets a test act at one exact request.

Plain HTTP towards the provisioner, TLS towards the server; one connection a request, so that an answer ends where its
connection does. `before` acts instead of forwarding: the write never happens. `after` acts once the server has
answered, and the provisioner never hears of it. Watches can be held back, and requests refused for a while.
answered, and the provisioner never hears of it. Watches can be held back, cut, or answered by the gateway itself.
"""

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

import trio

from tests.cluster.controlplane import ControlPlane

Moment = Literal["before", "after"]
_HEAD_END = b"\r\n\r\n"


@dataclass
class Trap:
    """The request that springs it: the first to match `request`, a pattern for "VERB /path?query", after `skip`."""

    request: str
    moment: Moment
    act: Callable[[], Awaitable[None]]
    skip: int = 0
    sprung: trio.Event = field(default_factory=trio.Event)

    def takes(self, line: str) -> bool:
        if self.sprung.is_set() or not re.search(self.request, line):
            return False
        self.skip -= 1
        return self.skip < 0


class Gateway:
    def __init__(self, plane: ControlPlane) -> None:
        self.port = 0
        self._plane = plane
        self._trust = ssl.create_default_context(cafile=str(plane.ca_file))
        self._traps: list[Trap] = []
        self._held: list[tuple[str, trio.Event]] = []
        self._refused: list[tuple[str, trio.Event]] = []
        self._answers: list[tuple[str, bytes]] = []
        self._open: dict[trio.CancelScope, str] = {}

    def trap(self, request: str, moment: Moment, act: Callable[[], Awaitable[None]], *, skip: int = 0) -> Trap:
        trap = Trap(request, moment, act, skip)
        self._traps.append(trap)
        return trap

    def hold(self, request: str) -> trio.Event:
        """From now on answers to such requests, watches above all, stand still until the event is set."""
        release = trio.Event()
        self._held.append((request, release))
        return release

    def refuse(self, request: str) -> trio.Event:
        """From now on such requests are answered with 503 and go no further, until the event is set."""
        accept = trio.Event()
        self._refused.append((request, accept))
        return accept

    def answer(self, request: str, text: str, code: int = 200) -> None:
        """From now on such requests are answered here, and those that are open are cut."""
        head = f"HTTP/1.1 {code} Whatever\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        self._answers.append((request, f"{head}{text}".encode()))
        for scope, line in self._open.items():
            if re.search(request, line):
                scope.cancel()

    def answer_no_more(self) -> None:
        self._answers.clear()

    async def serve(self, *, task_status: trio.TaskStatus["Gateway"] = trio.TASK_STATUS_IGNORED) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started(self)
        await self.serve_at(listener)

    async def serve_at(self, listener: trio.SocketListener) -> None:
        """There too, for instance in another network."""
        await trio.serve_listeners(self._forward, [listener])

    async def _forward(self, client: trio.SocketStream) -> None:
        try:
            request, line = await _request(client)
            if any(re.search(pattern, line) and not accept.is_set() for pattern, accept in self._refused):
                await client.send_all(b"HTTP/1.1 503 Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            for pattern, answer in self._answers:
                if re.search(pattern, line):
                    await client.send_all(answer)
                    return
            trap = next((trap for trap in self._traps if trap.takes(line)), None)
            if trap is None:
                await self._relay(request, client, line)
                return
            if trap.moment == "after":
                await self._relay(request, None, line)
            await trap.act()
            trap.sprung.set()
        except* (trio.BrokenResourceError, OSError):
            pass  # either side went away, which is what the tests are about

    async def _relay(self, request: bytes, client: trio.SocketStream | None, line: str) -> None:
        raw = await trio.open_tcp_stream("127.0.0.1", self._plane.port)
        server = trio.SSLStream(raw, self._trust, server_hostname="127.0.0.1", https_compatible=True)
        async with trio.open_nursery() as nursery:
            self._open[nursery.cancel_scope] = line
            if client is not None:
                nursery.start_soon(_until_gone, client, nursery.cancel_scope)
            try:
                await server.send_all(request)
                async for part in server:
                    for pattern, release in self._held:
                        if re.search(pattern, line):
                            await release.wait()
                    if client is not None:
                        await client.send_all(part)
            finally:
                del self._open[nursery.cancel_scope]
                await trio.aclose_forcefully(server)
            nursery.cancel_scope.cancel()


async def _until_gone(client: trio.SocketStream, relay: trio.CancelScope) -> None:
    """A client that hangs up wants no more; nothing else comes from it on this connection."""
    with suppress(trio.BrokenResourceError):
        await client.receive_some()
    relay.cancel()


async def _request(client: trio.SocketStream) -> tuple[bytes, str]:
    """One request, told to be the last of its connection, and its first line as "VERB /path?query"."""
    received = b""
    while _HEAD_END not in received:
        part = await client.receive_some()
        if not part:
            raise trio.BrokenResourceError("no request came")
        received += part
    head, _, body = received.partition(_HEAD_END)
    first, *fields = head.decode("latin-1").split("\r\n")
    length = next((int(text.partition(":")[2]) for text in fields if text.lower().startswith("content-length:")), 0)
    while len(body) < length:
        body += await client.receive_some()
    fields = [text for text in fields if not text.lower().startswith("connection:")]
    again = "\r\n".join([first, *fields, "Connection: close"]).encode("latin-1") + _HEAD_END + body
    return again, first.rpartition(" ")[0]


@asynccontextmanager
async def gateway(plane: ControlPlane) -> AsyncIterator[Gateway]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(Gateway(plane).serve)
        nursery.cancel_scope.cancel()
