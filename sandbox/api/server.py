"""Starts the embedded API: one socket, hypercorn's Trio connections on it, the binder beside them, one handle.

The listening loop is ours because connections must be known one by one: faults cut them, and a stop closes them at once
rather than waiting for clients that hold watches open.
"""

import logging
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from sandbox.api.app import Api
from sandbox.api.binder import Binder
from sandbox.api.faults import Faults
from sandbox.api.objects import Objects
from sandbox.api.requests import Journal

_KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: sandbox
clusters:
- name: sandbox
  cluster: {{server: "{url}"}}
users:
- name: sandbox
  user: {{token: "{token}"}}
contexts:
- name: sandbox
  context: {{cluster: sandbox, user: sandbox, namespace: default}}
"""


@dataclass(slots=True)
class ApiServer:
    """A running API: tests read and write through `objects`, count requests in `calls`, order trouble from `faults`."""

    objects: Objects
    faults: Faults
    calls: Journal
    host: str
    port: int
    token: str
    connections: dict[Any, trio.SocketStream] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    stopped: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def kubeconfig_text(self) -> str:
        return _KUBECONFIG.format(url=self.url, token=self.token or "none")

    def cut(self, client: Any) -> None:
        """Reset the connection from this client address; nothing more goes out on it."""
        stream = self.connections.get(client)
        if stream is not None and stream.socket.fileno() >= 0:  # hypercorn may have closed it a moment ago
            # lingering for no time sends a reset instead of an orderly end, and discards what is not sent yet
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()

    def cut_all(self) -> None:
        for client in list(self.connections):
            self.cut(client)

    async def stop(self) -> None:
        """End this server as if it had been killed; returns when its port is free."""
        self.scope.cancel()
        await self.stopped.wait()


async def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    objects: Objects | None = None,
    faults: Faults | None = None,
    calls: Journal | None = None,
    token: str = "",
    binder: bool = True,
    task_status: trio.TaskStatus[ApiServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `started` gives the `ApiServer`. To restart the server with its contents, hand the old
    server's `objects` and `port` to another call."""
    objects = objects or Objects()
    [listener] = await trio.open_tcp_listeners(port, host=host)
    server = ApiServer(objects, faults or Faults(), calls or Journal(), host, listener.socket.getsockname()[1], token)
    config = _config()
    api: Any = Api(objects, server.faults, server.calls, token, server.cut)  # hypercorn types its messages one by one
    app = ASGIWrapper(api)
    context = WorkerContext(None)

    async def connection(stream: trio.SocketStream) -> None:
        try:
            client = stream.socket.getpeername()[:2]
        except OSError:  # gone between accept and here
            await stream.aclose()
            return
        server.connections[client] = stream
        try:
            await TCPServer(app, config, context, ConnectionState({}), cast("Any", stream))
        finally:
            server.connections.pop(client, None)

    async def close_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            # hypercorn shields its sends: without this a client that does not read would keep the server from ending
            server.cut_all()

    try:
        async with trio.open_nursery() as nursery:
            server.scope = nursery.cancel_scope
            nursery.start_soon(close_at_the_end)
            if binder:
                await nursery.start(Binder(objects).run)
            nursery.start_soon(trio.serve_listeners, connection, [listener])
            task_status.started(server)
    finally:
        server.stopped.set()


def _config() -> Config:
    config = Config()
    config.include_server_header = False
    config.include_date_header = False  # ours goes by the objects' clock
    config.keep_alive_timeout = float("inf")  # idle connections end with the server: no timers on virtual time
    config.keep_alive_max_requests = 1_000_000_000
    config.errorlog = logging.getLogger("sandbox.api.hypercorn")
    return config
