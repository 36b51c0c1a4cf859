"""TCP within this process on pairs of Unix sockets: what is sent has arrived when `send` returns.

Over loopback the kernel may deliver a moment later, and on a busy machine a long one; a virtual clock, seeing all tasks
wait, had to wait for real at each jump, and still jumped too early at times. Trio itself has the place for a network of
one's own: neither the programs nor the fakes know of this one. Whoever listens outside of it is reached by TCP.
"""

import socket
from collections import deque
from typing import Any, cast

import trio
import trio.testing

OUTSIDE = 0.001
"""Seconds for which the clock waits at a jump while a connection leads outside: the shortest wait that there is."""


class Network(trio.abc.SocketFactory):
    def __init__(self, clock: trio.abc.Clock) -> None:
        self.listeners: dict[int, End] = {}
        self.outside: set[End] = set()
        self._clock = clock
        self._inside = 0.0

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> Any:
        made = trio.socket.from_stdlib_socket(socket.socket(family, type, proto))
        inside = type == socket.SOCK_STREAM and family in (socket.AF_INET, socket.AF_INET6)
        return End(self, made) if inside else made

    def leave(self, end: "End") -> None:
        """A virtual clock has to wait for the kernel as long as a connection leads outside."""
        if not self.outside and isinstance(self._clock, trio.testing.MockClock):
            self._inside = self._clock.autojump_threshold
            self._clock.autojump_threshold = max(OUTSIDE, self._inside)
        self.outside.add(end)

    def come_back(self, end: "End") -> None:
        if end in self.outside:
            self.outside.remove(end)
            if not self.outside and isinstance(self._clock, trio.testing.MockClock):
                self._clock.autojump_threshold = self._inside


def join() -> None:
    """From now on, in this run of Trio."""
    network = Network(trio.lowlevel.current_clock())
    if isinstance(before := trio.socket.set_custom_socket_factory(network), Network):
        trio.socket.set_custom_socket_factory(before)


def _passed_on(name: str) -> Any:
    def method(self: "End", *args: Any) -> Any:
        return getattr(self.inner, name)(*args)

    return method


class End(trio.socket.SocketType):
    """A TCP socket, until it has listened or connected within the network."""

    def __init__(self, network: Network, inner: trio.socket.SocketType, peer: "End | None" = None) -> None:
        self.inner = inner
        self._network = network
        self._peer = peer
        self._waiting: deque[End] = deque()
        self._called = trio.Event()
        self._abrupt = False
        self._is_reset = False
        self._port = 0

    fileno = _passed_on("fileno")
    send = _passed_on("send")
    shutdown = _passed_on("shutdown")
    bind = _passed_on("bind")
    getsockopt = _passed_on("getsockopt")
    getsockname = _passed_on("getsockname")
    getpeername = _passed_on("getpeername")
    is_readable = _passed_on("is_readable")
    wait_writable = _passed_on("wait_writable")
    detach = _passed_on("detach")
    family = property(lambda self: self.inner.family)
    type = property(lambda self: self.inner.type)
    proto = property(lambda self: self.inner.proto)
    did_shutdown_SHUT_WR = property(lambda self: self.inner.did_shutdown_SHUT_WR)

    def setsockopt(self, *option: Any) -> None:
        if self._peer is None:
            self.inner.setsockopt(*option)
        elif option[:2] == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._abrupt = True

    def listen(self, backlog: int = 128) -> None:
        self.inner.listen(backlog)
        self._port = self.inner.getsockname()[1]
        self._network.listeners[self._port] = self

    async def accept(self) -> Any:
        while not self._waiting:
            self._called = trio.Event()
            await self._called.wait()
        return self._waiting.popleft(), ("127.0.0.1", 0)

    async def connect(self, address: Any) -> None:
        listener = self._network.listeners.get(address[1])
        if listener is None:
            self._network.leave(self)
            await self.inner.connect(address)
            return
        await trio.lowlevel.checkpoint()
        ours, theirs = (trio.socket.from_stdlib_socket(end) for end in socket.socketpair())
        self.inner.close()
        self.inner, self._peer = ours, End(self._network, theirs, self)
        listener._waiting.append(self._peer)
        listener._called.set()

    async def recv(self, *how: Any) -> bytes:
        data = cast(bytes, await self.inner.recv(*how))
        if self._is_reset:  # what had come before is lost too
            raise ConnectionResetError(104, "Connection reset by peer")
        return data

    def close(self) -> None:
        if self._network.listeners.get(self._port) is self:
            del self._network.listeners[self._port]
            for never_accepted in self._waiting:
                never_accepted.close()
        self._network.come_back(self)
        if self._abrupt and self._peer is not None:
            self._peer._is_reset = True
        self.inner.close()
