"""The other end of the socket, frame by frame: h2 on Trio, so that a test can do what no gRPC server would.

A test gives one async function that gets each Call when its request is complete, and answers it or does not.
"""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import hyperframe.frame
import trio
import trio.testing

from csi_provisioner.csi.answer import framed

HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]
Settings = dict[h2.settings.SettingCodes, int]


class Connection:
    def __init__(self, stream: trio.SocketStream, calls: trio.Nursery, settings: Settings) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.closed = trio.Event()
        self.opens_windows = True
        self.answers_early = False
        """Once the request begins, instead of when it has come."""
        self._nursery = calls
        self._calls: dict[int, Call] = {}
        self._sending = trio.Lock()

    async def serve(self, answer: Callable[["Call"], Awaitable[None]]) -> None:
        self.h2.initiate_connection()
        await self.flush()
        try:
            async for data in self.stream:
                for event in self.h2.receive_data(data):
                    self._take(event, answer)
                await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.ProtocolError):
            pass  # cut by the test
        self.closed.set()

    def _take(self, event: h2.events.Event, answer: Callable[["Call"], Awaitable[None]]) -> None:
        match event:
            case h2.events.RequestReceived():
                self._calls[event.stream_id] = Call(
                    self, event.stream_id, {str(name): str(value) for name, value in event.headers}
                )
                if self.answers_early:
                    self._nursery.start_soon(answer, self._calls[event.stream_id])
            case h2.events.DataReceived():
                self._calls[event.stream_id].request += event.data
                if self.opens_windows:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded() if not self.answers_early:
                self._nursery.start_soon(answer, self._calls[event.stream_id])
            case h2.events.StreamReset():
                self._calls[event.stream_id].reset_by_client.set()

    async def flush(self) -> None:
        async with self._sending:
            data = self.h2.data_to_send()
            if data:
                await self.stream.send_all(data)

    async def send_bytes(self, data: bytes) -> None:
        async with self._sending:
            await self.stream.send_all(data)

    async def say_goodbye(self, last: int = 2**31 - 1) -> None:
        """End the connection politely: answers to calls up to `last` still come. (For h2 it would be over.)"""
        goodbye = hyperframe.frame.GoAwayFrame(0, last_stream_id=last).serialize()
        await self.send_bytes(self.h2.data_to_send() + goodbye)


class Call:
    def __init__(self, connection: Connection, number: int, headers: dict[str, str]) -> None:
        self.connection = connection
        self.headers = headers
        self.request = b""
        self.reset_by_client = trio.Event()
        self.number = number

    @property
    def method(self) -> str:
        return self.headers[":path"].rpartition("/")[2]

    async def send_headers(self, headers: list[tuple[str, str]], *, end: bool = False) -> None:
        self.connection.h2.send_headers(self.number, headers, end_stream=end)
        await self.connection.flush()

    async def send_data(self, data: bytes, *, end: bool = False) -> None:
        """All of it, however small the client's windows are; gives up when the client resets the stream."""
        http2 = self.connection.h2
        while data:
            try:
                room = min(http2.local_flow_control_window(self.number), http2.max_outbound_frame_size, len(data))
            except h2.exceptions.StreamClosedError:
                return
            if room == 0:
                await trio.testing.wait_all_tasks_blocked()
                continue
            http2.send_data(self.number, data[:room], end_stream=end and room == len(data))
            data = data[room:]
            await self.connection.flush()

    async def answer(self, message: bytes = b"", trailers: list[tuple[str, str]] = OK) -> None:
        await self.send_headers(HEADERS)
        await self.send_data(framed(message))
        await self.send_headers(trailers, end=True)

    async def refuse(self, code: int, message: str = "") -> None:
        await self.send_headers([*HEADERS, ("grpc-status", str(code)), ("grpc-message", message)], end=True)

    async def reset(self, error: int) -> None:
        self.connection.h2.reset_stream(self.number, error)
        await self.connection.flush()


class Peer:
    """Listens from `start` until `stop`; keeps what it was connected to and asked."""

    def __init__(self, path: Path, nursery: trio.Nursery, answer: Callable[[Call], Awaitable[None]]) -> None:
        self.path = path
        self.answer = answer
        self.connections: list[Connection] = []
        self.calls: list[Call] = []
        self.settings: Settings = {}
        self._nursery = nursery
        self._scope = trio.CancelScope()

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._scope = trio.CancelScope()
        await self._nursery.start(self._serve, trio.SocketListener(listening(self.path)))

    async def _serve(
        self, listener: trio.SocketListener, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with self._scope:
            await trio.serve_listeners(self._connected, [listener], task_status=task_status)

    async def _connected(self, stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as calls:
            connection = Connection(stream, calls, self.settings)
            self.connections.append(connection)
            await connection.serve(self._take)
            calls.cancel_scope.cancel()

    async def _take(self, call: Call) -> None:
        self.calls.append(call)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # one of the two has left
            await self.answer(call)

    def stop(self) -> None:
        """Close the listener and every connection, without a word."""
        self._scope.cancel()


def listening(path: Path) -> trio.socket.SocketType:
    # Not by Trio's own `bind`, which uses a thread: virtual time would run on meanwhile.
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    listener.bind(str(path))
    listener.listen()
    return trio.socket.from_stdlib_socket(listener)


async def answer_nothing(call: Call) -> None:
    await trio.sleep_forever()


async def answer_empty(call: Call) -> None:
    await call.answer()


@asynccontextmanager
async def peer(path: Path, answer: Callable[[Call], Awaitable[None]] = answer_empty) -> AsyncIterator[Peer]:
    async with trio.open_nursery() as nursery:
        serving = Peer(path, nursery, answer)
        await serving.start()
        yield serving
        nursery.cancel_scope.cancel()
