"""grpclib's server on a Unix socket, for handlers written for Trio. The only file of the sandbox that knows of asyncio.

A call that the client gives up, or whose connection breaks, arrives here as an asyncio cancellation and reaches the
handler as a Trio one. A handler refuses with `Refused`; anything else it raises is a bug and goes out as UNKNOWN.
"""

import re
from asyncio import BaseTransport, Transport
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Never, Protocol, cast

import trio
import trio_asyncio  # type: ignore[import-untyped]
from grpclib import GRPCError
from grpclib.const import Cardinality, Handler, Status
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream
from hyperframe.frame import GoAwayFrame

from sandbox.driver.state import Refused


class Service(Protocol):
    """A generated server base: what grpclib serves, by path."""

    def __mapping__(self) -> dict[str, Handler]: ...


# one call of a service: its name on the wire, the service's method, the request, the seconds the client gives it, and
# what its headers say besides
Answer = Callable[[str, Callable[[Any], Awaitable[Any]], Any, float | None, Mapping[str, Any]], Awaitable[Any]]


async def listen(
    path: str, services: Iterable[Service], answer: Answer, *, task_status: trio.TaskStatus["Connections"]
) -> Never:
    """Serve until cancelled; all connections are broken then. `started` gets what can end those open at the time."""
    async with trio_asyncio.open_loop():
        server = Connections([_Translated(service, answer) for service in services])
        await trio_asyncio.aio_as_trio(server.start)(path=path)
        try:
            task_status.started(server)
            await trio.sleep_forever()
        finally:
            server.close()
            server.break_connections()
            with trio.CancelScope(
                shield=True, deadline=trio.current_time() + 5
            ):  # handlers end at once, unless they hang
                await trio_asyncio.aio_as_trio(server.wait_closed)()
    raise AssertionError("sleep_forever returned")


class Connections(Server):
    """Remembers its connections, which closing a server leaves open; breaking them is what a crash looks like."""

    def __init__(self, services: Iterable[Any]) -> None:
        super().__init__(list(services))
        self._mapping = _Paths(self._mapping)
        self._open: set[Transport] = set()

    def _protocol_factory(self) -> H2Protocol:
        made = super()._protocol_factory()
        return _Connection(made, self._open)

    def break_connections(self) -> None:
        for transport in self._open:
            transport.abort()

    def say_goodbye(self) -> None:
        """GOAWAY with the largest number: what runs is answered. Not by h2, for which the connection would be over."""
        for transport in self._open:
            transport.write(GoAwayFrame(0, last_stream_id=2**31 - 1).serialize())


class _Paths(dict[str, Handler]):
    """Handlers by path, one for all unknown paths: grpclib's own answer there lacks a header that grpc-go wants."""

    def get(self, path: str, default: Any = None) -> Any:
        return super().get(path, Handler(_unknown, Cardinality.UNARY_UNARY, None, None))


async def _unknown(stream: Stream[Any, Any]) -> None:
    raise GRPCError(Status.UNIMPLEMENTED, "unknown method")


class _Connection(H2Protocol):
    def __init__(self, made: H2Protocol, open_: set[Transport]) -> None:
        super().__init__(made.handler, made.config, made.h2_config)
        self._open = open_

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._transport = cast(Transport, transport)
        self._open.add(self._transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._open.discard(self._transport)


class _Translated:
    """A service as grpclib wants it: asyncio functions on streams."""

    def __init__(self, service: Service, answer: Answer) -> None:
        self._service = service
        self._answer = answer

    def __mapping__(self) -> dict[str, Handler]:
        return {
            path: handler._replace(func=self._unary(path.rpartition("/")[2]))
            for path, handler in self._service.__mapping__().items()
        }

    def _unary(self, rpc: str) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        method = getattr(self._service, re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower())

        async def respond(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            deadline = stream.deadline.time_remaining() if stream.deadline else None
            try:
                response = await trio_asyncio.trio_as_aio(self._answer)(
                    rpc, method, request, deadline, stream.metadata or {}
                )
            except Refused as refused:
                raise GRPCError(Status[refused.code], refused.message) from refused
            await stream.send_message(response)

        return respond
