"""Clients of the HTTP server on memory streams, which send bytes and get bytes; and the server on a real socket."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import trio
import trio.testing

from csi_provisioner.diagnostics.listen import address_of, listen
from csi_provisioner.diagnostics.server import Page, Request, Response, Server

HOST = b"Host: x\r\n"
GET = b"GET /m HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /m HTTP/1.1\r\n" + HOST
CLOSE = b"Connection: close\r\n"
NOT_FOUND = b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n"


def page(text: str) -> Page:
    async def says(_request: Request) -> Response:
        return Response(text)

    return says


class Client:
    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.taken = b""
        self.closed_at: float | None = None

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def take(self) -> None:
        """All that comes, until the server closes."""
        while data := await self.stream.receive_some():
            self.taken += data
        self.closed_at = trio.current_time()

    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", self.taken)]


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Client]:
    """One that takes whatever comes, until the test's end."""
    ours, theirs = trio.testing.memory_stream_pair()
    client = Client(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, theirs)
        nursery.start_soon(client.take)
        yield client
        nursery.cancel_scope.cancel()


async def answer_to(server: Server, *pieces: bytes, pause: float = 0.0, half_close: bool = False) -> Client:
    """A client that sends the pieces and waits for the connection's end, and for the server's with it."""
    ours, theirs = trio.testing.memory_stream_pair()
    client = Client(ours)

    async def send() -> None:
        for piece in pieces:
            await client.send(piece)
            await trio.sleep(pause)
        if half_close:
            await client.stream.send_eof()

    async with trio.open_nursery() as nursery:
        handled = await nursery.start(_handle, server, theirs)
        nursery.start_soon(client.take)
        with trio.move_on_after(3600) as limit:
            with suppress(trio.BrokenResourceError):
                await send()
            await handled.wait()
        assert not limit.cancelled_caught, "the server does not end the connection"
    return client


async def _handle(
    server: Server, stream: trio.abc.HalfCloseableStream, *, task_status: trio.TaskStatus[trio.Event]
) -> None:
    ended = trio.Event()
    task_status.started(ended)
    await server.handle(stream)
    ended.set()


@asynccontextmanager
async def serving(pages: Mapping[str, Page]) -> AsyncIterator[str]:
    """The address of a server with these pages."""
    listener = listen("127.0.0.1:0", "/m")
    address = address_of(listener)
    with listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Server(pages).serve, listener)
            yield address
            nursery.cancel_scope.cancel()
