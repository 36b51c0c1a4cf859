"""An HTTP server on raw bytes: h11 reads the requests, the test writes the answers, whole or broken as it likes."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import trio
import trio.testing

from csi_provisioner.kube.config import Cluster
from csi_provisioner.kube.connection import Open, Wire
from csi_provisioner.kube.credentials import Credentials, Fixed
from csi_provisioner.kube.limits import TokenBucket
from csi_provisioner.kube.proxy import parsed
from csi_provisioner.kube.sender import Sender
from csi_provisioner.kube.transport import REQUESTS, STREAMS, Route, Transport
from csi_provisioner.kube.transport import Answer as Reply
from tests import network


@dataclass
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """Which connection it came on, counted from 0."""


Answer = Callable[[Asked, trio.abc.Stream], Awaitable[object]]


class HangupError(Exception):
    """Raised by an answer: the server closes the connection."""


@dataclass
class Server:
    answer: Answer
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    port: int = 0

    async def handle(self, stream: trio.abc.Stream) -> None:
        number = self.connections
        self.connections += 1
        self.open += 1
        try:
            async with stream:
                while (asked := await read_request(stream, number)) is not None:
                    self.asked.append(asked)
                    await self.answer(asked, stream)
        except (HangupError, trio.BrokenResourceError):
            pass
        finally:
            self.open -= 1


async def read_request(stream: trio.abc.Stream, number: int) -> Asked | None:
    parser = h11.Connection(h11.SERVER)
    request: h11.Request | None = None
    body = b""
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            parser.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            headers = {name.decode(): value.decode() for name, value in request.headers}
            return Asked(request.method.decode(), request.target.decode(), headers, body, number)
        else:  # the client has closed
            return None


def reply(status: int = 200, body: bytes = b"{}", **headers: str) -> bytes:
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def gone(plural: str, name: str) -> dict[str, Any]:
    """The API server's own word that an object does not exist."""
    text, details = f'{plural} "{name}" not found', {"name": name, "kind": plural}
    return {"kind": "Status", "code": 404, "reason": "NotFound", "message": text, "details": details}


def always(data: bytes) -> Answer:
    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(data)

    return answer


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    if isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
        network.join()
    server = Server(answer)
    async with trio.open_nursery() as nursery:
        if tls is None:
            listeners: list[trio.abc.Listener] = [*await trio.open_tcp_listeners(0, host="127.0.0.1")]
            server.port = listeners[0].socket.getsockname()[1]
        else:
            secure = await trio.open_ssl_over_tcp_listeners(0, tls, host="127.0.0.1", https_compatible=True)
            listeners = [*secure]
            server.port = secure[0].transport_listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, server.handle, listeners)
        yield server
        nursery.cancel_scope.cancel()


class MemoryWire(Wire):
    """The client's end of a connection without a socket, so that virtual time never waits for the kernel."""

    def __init__(self) -> None:
        self._asking, asked = trio.testing.memory_stream_one_way_pair()
        self._answers = trio.testing.MemorySendStream()
        super().__init__(trio.StapledStream(self._asking, asked))
        self.server_end = trio.StapledStream(self._answers, asked)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._answers.get_data(max_bytes))

    def quiet(self) -> bool:
        try:
            self._answers.get_data_nowait()  # taken: a connection on which something has come is not used again
        except trio.WouldBlock:
            return True
        return False

    def close(self) -> None:
        self._asking.close()
        self._answers.send_all_hook = self._refuse

    async def _refuse(self) -> None:
        raise trio.BrokenResourceError


@asynccontextmanager
async def in_memory(answer: Answer) -> AsyncIterator[tuple[Server, Open]]:
    """A server, and how a transport opens connections to it."""
    server = Server(answer)
    async with trio.open_nursery() as nursery:

        async def connect(_host: str, _port: int) -> Wire:
            wire = MemoryWire()
            nursery.start_soon(server.handle, wire.server_end)
            return wire

        yield server, connect
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def pool(
    server: Server, *, requests: int = REQUESTS, streams: int = STREAMS, **route: Any
) -> AsyncIterator[Transport]:
    transport = Transport(Route(("127.0.0.1", server.port), **route), requests=requests, streams=streams)
    try:
        yield transport
    finally:
        transport.close()


def sender(transport: Transport, who: Credentials | None = None, limit: TokenBucket | None = None) -> Sender:
    cluster = Cluster(parsed("http://api.test"), "test", who or Fixed(), Route(("api.test", 80)))
    return Sender(transport, cluster, "test/1", limit)


async def send(transport: Transport, method: str = "GET", target: str = "/", body: bytes = b"", **how: Any) -> Reply:
    """As `sender` does."""
    head = b"Host: api.test\r\n" + (b"Content-Length: %d\r\n" % len(body) if body else b"")
    return await transport.exchange(method, target, head, body, **how)
