"""Stands between a provisioner and its API server, and answers some requests itself, as it likes."""

import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import trio

from tests.kube.wire import Asked, read_request

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
Spoil = Callable[[str], bytes | None]
"""For a request such as `get secrets` or `discover /apis/apps/v1`: the answer in place of the server's, if any."""


def described(asked: Asked) -> str:
    path, _, query = asked.target.partition("?")
    found = re.fullmatch(r"(/api/v1|/apis/[^/]+/[^/]+)(?:/namespaces/[^/]+)?(?:/([^/]+))?(/[^/]+)?", path)
    assert found is not None, asked.target
    group, plural, name = found.groups()
    if plural is None:
        return f"discover {group}"
    reading = "watch" if "watch=true" in query else "get" if name else "list"
    return f"{VERBS.get(asked.method, reading)} {plural}"


class Spoiler:
    def __init__(self, port: int, spoil: Spoil, trust: ssl.SSLContext | None) -> None:
        self.port = 0
        self._to = port
        self._spoil = spoil
        self._trust = trust

    async def serve(self, *, task_status: trio.TaskStatus["Spoiler"] = trio.TASK_STATUS_IGNORED) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started(self)
        await trio.serve_listeners(self._connection, [listener])

    async def _connection(self, client: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with client:
                asked = await read_request(client, 0)
                if asked is None:
                    return
                answer = self._spoil(described(asked))
                if answer is None:
                    await self._forward(asked, client)
                else:
                    await client.send_all(answer)

    async def _forward(self, asked: Asked, client: trio.SocketStream) -> None:
        """One request a connection, so that an answer ends where its connection does."""
        fields = asked.headers | {"connection": "close"}
        head = "\r\n".join([f"{asked.method} {asked.target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())])
        server: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", self._to)
        if self._trust is not None:
            server = trio.SSLStream(server, self._trust, server_hostname="127.0.0.1", https_compatible=True)
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(self._until_gone, client, nursery.cancel_scope)
            await server.send_all(head.encode() + b"\r\n\r\n" + asked.body)
            while part := await server.receive_some():
                await client.send_all(part)
            nursery.cancel_scope.cancel()

    @staticmethod
    async def _until_gone(client: trio.SocketStream, forwarding: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            await client.receive_some()
        forwarding.cancel()


@asynccontextmanager
async def spoiler(port: int, spoil: Spoil, trust: ssl.SSLContext | None = None) -> AsyncIterator[Spoiler]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(Spoiler(port, spoil, trust).serve)
        nursery.cancel_scope.cancel()
