"""Starts the embedded API: one socket, its connections, the binder beside them, one handle."""

from dataclasses import dataclass, field

import trio

from sandbox.api.app import Api
from sandbox.api.binder import Binder
from sandbox.api.faults import Faults
from sandbox.api.http import Connection
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
    connections: set[Connection] = field(default_factory=set)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    stopped: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def kubeconfig_text(self) -> str:
        return _KUBECONFIG.format(url=self.url, token=self.token or "none")

    def cut_all(self) -> None:
        for connection in list(self.connections):
            connection.cut()

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
    api = Api(objects, server.faults, server.calls, token)

    async def connection(stream: trio.SocketStream) -> None:
        made = Connection(stream, api, objects.now)
        server.connections.add(made)
        try:
            await made.serve()
        finally:
            server.connections.remove(made)

    try:
        async with trio.open_nursery() as nursery:
            server.scope = nursery.cancel_scope
            if binder:
                await nursery.start(Binder(objects).run)
            nursery.start_soon(trio.serve_listeners, connection, [listener])
            task_status.started(server)
    finally:
        server.stopped.set()
