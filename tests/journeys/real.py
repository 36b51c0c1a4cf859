"""A world of processes: a real control plane, a driver on grpcio, and the provisioner by its command line.

The provisioner comes as its service account with the rights of `kustomize/`. It can be killed, and it can be sent
through another address (`kubeconfig`), where a test may stand between it and the API server.
"""

import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.cluster.controlplane import REPOSITORY, ControlPlane
from tests.foreign_process import ForeignDriver
from tests.journeys.objects import GIB
from tests.journeys.world import Call, Rule, World
from tests.sandbox.api.client import Api
from tests.sandbox.api.conftest import entering

CAPABILITIES = [
    "CREATE_DELETE_VOLUME",
    "CREATE_DELETE_SNAPSHOT",
    "CLONE_VOLUME",
    "MODIFY_VOLUME",
    "SINGLE_NODE_MULTI_WRITER",
]


class Real(World):
    """`plane` is the control plane, `kubeconfig` the provisioner's."""

    first_retry = 0.1
    wrapper: tuple[str, ...] = ()
    """A command that starts the provisioner's, and becomes it."""

    def __init__(self, api: Api, plane: ControlPlane, folder: Path) -> None:
        super().__init__(api)
        self.plane = plane
        self.lease_namespace = plane.provisioner[0]
        self.kubeconfig = plane.provisioner_kubeconfig
        self._folder = folder
        self._plugin = ForeignDriver(folder)
        self._leaving: list[ForeignDriver] = []
        self._config: dict[str, Any] = {"name": self.driver, "controller": CAPABILITIES}
        self._configure()
        self._log = folder / "provisioner.log"
        self._process: trio.Process | None = None

    # ---- the provisioner

    async def start(self, *flags: str) -> None:
        self._process = await self.another(self._log, *flags)

    async def another(self, log_file: Path, *flags: str, driver: ForeignDriver | None = None) -> trio.Process:
        """One more provisioner, which the caller ends; with the same driver, or with one of its own."""
        arguments = [f"--csi-address={(driver or self._plugin).socket}", f"--kubeconfig={self.kubeconfig}"]
        arguments += ["--extra-create-metadata", f"--retry-interval-start={self.first_retry}s", *flags]
        with log_file.open("ab") as log:
            return await trio.lowlevel.open_process(
                [*self.wrapper, sys.executable, "-m", "csi_provisioner", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
            )

    async def stop(self) -> int:
        return await self._end(signal.SIGTERM)

    async def command(self, word: str, *flags: str) -> tuple[int, str]:
        arguments = [f"--csi-address={self._plugin.socket}", f"--kubeconfig={self.kubeconfig}", *flags]
        done = await trio.run_process(
            [sys.executable, "-m", "csi_provisioner", word, *arguments],
            capture_stdout=True,
            check=False,
            cwd=REPOSITORY,
        )
        return done.returncode, done.stdout.decode()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def let_go(self) -> trio.Process:
        """The process, which the world forgets: another one can be started beside it."""
        assert self._process is not None
        process, self._process = self._process, None
        return process

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        assert self._process is not None
        with trio.fail_after(self.patience):
            code = await self._process.wait()
        self._process = None
        return code

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    # ---- the driver

    @asynccontextmanager
    async def another_driver(self, folder: Path) -> AsyncIterator[ForeignDriver]:
        """As on another node: the same driver, with a socket and volumes of its own."""
        await trio.Path(folder).mkdir()
        plugin = ForeignDriver(folder)
        plugin.configure(**self._config)
        await plugin.start()
        try:
            yield plugin
        finally:
            await plugin.kill()

    async def stop_driver(self) -> None:
        await self._plugin.kill()

    async def driver_ended(self) -> None:
        """By a rule that says so."""
        await self._plugin.wait()

    async def replace_driver(self, grace: float) -> None:
        """The driver is told to stop, and another process has its place while it still ends what it has taken."""
        self._config["grace"] = grace
        self._configure()
        leaving, self._plugin = self._plugin, ForeignDriver(self._folder)
        self._configure()
        leaving.signal(signal.SIGTERM)
        await self._plugin.start()
        self._leaving.append(leaving)

    async def start_driver(self, **config: Any) -> None:
        self._config |= config
        self._configure()
        await self._plugin.start()

    def rules(self, *rules: Rule) -> None:
        self._config["rules"] = [_rule(rule) for rule in rules]
        self._configure()

    def _configure(self) -> None:
        self._plugin.configure(**self._config)

    def calls(self, rpc: str) -> list[Call]:
        ends = {call["call"]: call["code"] for call in self._plugin.calls(rpc, "end")}
        return [_call(rpc, call["request"], ends.get(call["call"], "")) for call in self._plugin.calls(rpc)]

    def volumes(self) -> dict[str, str]:
        return {id_: volume["name"] for id_, volume in self._plugin.volumes().items()}

    def made(self) -> list[str]:
        """The name of every volume that was ever made, once for each time."""
        return self._plugin.made()

    def snap(self, volume_id: str) -> str:
        handle = f"snap-of-{volume_id}"
        self._config.setdefault("snapshots", {})[handle] = GIB
        self._configure()
        return handle

    async def leave(self) -> None:
        await self.kill()
        for plugin in (self._plugin, *self._leaving):
            await plugin.kill()
        await self.clean_up()


def _rule(rule: Rule) -> dict[str, Any]:
    found: dict[str, Any] = {"method": rule.rpc, "match": rule.match, "delay": rule.delay, "after": rule.done}
    if rule.times is not None:
        found["times"] = rule.times
    if rule.error:
        found["error"] = rule.error
    if rule.fatal:
        found["exit"] = True
    if rule.capacity is not None:
        found["capacity"] = rule.capacity
    return found


def _call(rpc: str, request: dict[str, Any], code: str) -> Call:
    source = request.get("volume_content_source", {})
    return Call(
        rpc,
        name=request.get("name", ""),
        volume_id=request.get("volume_id", ""),
        source=source.get("volume", {}).get("volume_id", "") or source.get("snapshot", {}).get("snapshot_id", ""),
        parameters=request.get("parameters", {}),
        secrets=request.get("secrets", {}),
        mutable_parameters=request.get("mutable_parameters", {}),
        code=code,
    )


@asynccontextmanager
async def real(plane: ControlPlane, folder: Path) -> AsyncIterator[Real]:
    trust = ssl.create_default_context(cafile=str(plane.ca_file))
    forget = plane.restart_apiserver
    async with entering(plane.server, forget=forget, token=plane.tokens["admin"], trust=trust) as api:
        world = Real(api, plane, folder)
        try:
            await world.start_driver()
            yield world
        finally:
            with trio.CancelScope(shield=True):
                await world.leave()
