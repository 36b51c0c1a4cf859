"""A world in one process, on virtual time: the sandbox's API and driver, and the provisioner as a task."""

import contextlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from csi_provisioner import supervisor
from csi_provisioner.commands import orphans
from csi_provisioner.settings import Settings
from sandbox.api.server import ApiServer
from sandbox.demo import settings
from sandbox.driver import Config, Driver, Fault
from tests.cluster.controlplane import free_ports
from tests.hearing import heard
from tests.journeys.objects import GIB
from tests.journeys.world import Call, Rule, World
from tests.sandbox.api.client import Api
from tests.sandbox.api.conftest import entering, running


class Embedded(World):
    """`server` and `plugin` are the fakes themselves, for journeys that are of this world only."""

    patience = 3600.0

    def __init__(self, api: Api, server: ApiServer, folder: Path, nursery: trio.Nursery) -> None:
        super().__init__(api)
        self.server = server
        self.plugin = Driver(Config(name=self.driver))
        self._socket = folder / "csi.sock"
        self._kubeconfig = folder / "kubeconfig"
        self._kubeconfig.write_text(server.kubeconfig_text())
        self._nursery = nursery
        self._serving = trio.CancelScope()
        self._stop = trio.Event()
        self._ended = trio.Event()
        self._code = -1
        self._lines: list[str] = []

    # ---- the provisioner

    async def start(self, *flags: str) -> None:
        self._stop, self._ended = trio.Event(), trio.Event()
        arguments = [f"--csi-address={self._socket}", f"--kubeconfig={self._kubeconfig}", "--extra-create-metadata"]
        found = settings([*arguments, *flags])
        self._nursery.start_soon(self._provision, found)

    async def start_with_metrics(self) -> int:
        """The port at which it tells its metrics."""
        [port] = free_ports(1)
        await self.start(f"--http-endpoint=127.0.0.1:{port}")
        return port

    async def _provision(self, settings: Settings) -> None:
        self._code = await supervisor.run(settings, stop=self._stop)
        self._ended.set()

    async def stop(self) -> int:
        self._stop.set()
        return await self.ended()

    async def ended(self) -> int:
        with trio.fail_after(self.patience):
            await self._ended.wait()
        return self._code

    async def command(self, word: str, *flags: str) -> tuple[int, str]:
        asked = orphans.COMMAND.read(
            [f"--csi-address={self._socket}", f"--kubeconfig={self._kubeconfig}", *flags], {}, orphans.wanted
        )
        assert word == "orphans"
        assert not isinstance(asked, int)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            return await orphans.COMMAND.answered(orphans.answer, *asked), out.getvalue()

    def hear(self, record: Any) -> None:
        self._lines.append(f"{record['message']} {record['extra']['keys']}\n")

    def log(self) -> str:
        return "".join(self._lines)

    # ---- the driver

    async def stop_driver(self) -> None:
        self._serving.cancel()
        while self._socket.exists():  # noqa: ASYNC110 - the socket goes when the last connection has ended
            await trio.sleep(0.001)

    async def start_driver(self, **config: Any) -> None:
        self.plugin.config = msgspec.structs.replace(self.plugin.config, **config)
        self._serving = trio.CancelScope()
        await self._nursery.start(self._serve)

    async def _serve(self, *, task_status: trio.TaskStatus[Any]) -> None:
        with self._serving:
            await self.plugin.serve(self._socket, task_status=task_status)

    def rules(self, *rules: Rule) -> None:
        self.plugin.faults.clear()
        for rule in rules:
            fault = Fault(rule.rpc, rule.match, rule.times, rule.delay, code=rule.error, created=rule.done)
            if rule.capacity is not None:
                fault = msgspec.structs.replace(fault, capacity_delta=rule.capacity - GIB)
            self.plugin.faults.add(fault)

    def calls(self, rpc: str) -> list[Call]:
        return [_call(call.rpc, call.request, call.code) for call in self.plugin.made(rpc)]

    def volumes(self) -> dict[str, str]:
        return {id_: volume.name for id_, volume in self.plugin.state.volumes.items()}

    def snap(self, volume_id: str) -> str:
        return self.plugin.state.create_snapshot(f"of-{volume_id}", volume_id).id


def _call(rpc: str, request: Any, code: str | None) -> Call:
    source = getattr(request, "volume_content_source", None)
    return Call(
        rpc,
        name=getattr(request, "name", ""),
        volume_id=getattr(request, "volume_id", ""),
        source=(source.volume.volume_id if source.volume else source.snapshot.snapshot_id) if source else "",
        parameters=dict(getattr(request, "parameters", {})),
        secrets=dict(getattr(request, "secrets", {})),
        mutable_parameters=dict(getattr(request, "mutable_parameters", {})),
        code=code or "",
    )


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[Embedded]:
    async with (
        running() as server,
        entering(server.url, forget=server.objects.storage.compact) as api,
        trio.open_nursery() as nursery,
    ):
        world = Embedded(api, server, folder, nursery)
        await world.start_driver()
        with heard(world.hear):
            yield world
        nursery.cancel_scope.cancel()
