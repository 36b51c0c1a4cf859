"""A cluster in this process, on virtual time: the sandbox's API, as many drivers and provisioners as a test wants.

Provisioners are the whole program but for its command line: they get the settings, speak HTTP and gRPC, and end with
the test.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
import trio.testing
from msgspec.structs import replace

from csi_provisioner import supervisor
from csi_provisioner.settings import ClusterSettings, CsiSettings, Settings
from sandbox.api.errors import Object
from sandbox.api.objects import Objects
from sandbox.api.server import ApiServer, serve
from sandbox.driver import Config, Driver

CLOCK = trio.testing.MockClock(autojump_threshold=0)
VIRTUAL = ("trio", {"clock": CLOCK})
"""For a module's `anyio_backend`. One clock for all tests: it never goes back, and nothing here asks for a date. It
jumps at once when every task waits: `network` sees to it that nothing is on its way then."""
_jump = CLOCK._autojump


def _jump_if_idle() -> None:
    """Not while a thread is at work: it writes a file, looks up a name or reads a long answer."""
    if not trio.testing.active_thread_count():
        _jump()


CLOCK._autojump = _jump_if_idle

SELECTED = "volume.kubernetes.io/selected-node"


class Cluster:
    """`objects` is what the API server has, `server` counts and spoils requests."""

    def __init__(self, server: ApiServer, folder: Path, nursery: trio.Nursery) -> None:
        self.server = server
        self.objects: Objects = server.objects
        self._folder = folder
        self._nursery = nursery
        self._kubeconfig = folder / "kubeconfig"
        self._kubeconfig.write_text(server.kubeconfig_text())

    async def driver(self, config: Config) -> Driver:
        driver = Driver(config)
        await self._nursery.start(driver.serve, self.socket(config))
        return driver

    def socket(self, config: Config) -> str:
        return str(self._folder / f"{config.node_id}.sock")

    def settings(self, config: Config, **groups: Any) -> Settings:
        cluster = groups.pop("cluster", ClusterSettings(capacity_qps=None))
        return Settings(
            csi=CsiSettings(address=self.socket(config)),
            cluster=replace(cluster, kubeconfig=str(self._kubeconfig)),
            **groups,
        )

    def provisioner(self, settings: Settings) -> None:
        """Runs until the test ends."""
        self._nursery.start_soon(partial(supervisor.run, settings, stop=trio.Event()))

    # ---- objects

    def node(self, name: str, driver: str, **labels: str) -> None:
        given = {_key(label): value for label, value in labels.items()}
        self.objects.create("Node", {"metadata": {"name": name, "labels": given}})
        entry = {"name": driver, "nodeID": name, "topologyKeys": list(given)}
        self.objects.create("CSINode", {"metadata": {"name": name}, "spec": {"drivers": [entry]}})

    def storage_class(self, name: str, driver: str, *, late: bool = True, **fields: Any) -> None:
        mode = "WaitForFirstConsumer" if late else "Immediate"
        self.objects.create(
            "StorageClass", {"metadata": {"name": name}, "provisioner": driver, "volumeBindingMode": mode} | fields
        )

    def claim(self, name: str, class_name: str, *, size: str = "1Gi", node: str = "", **spec: Any) -> None:
        metadata: Object = {"name": name, "annotations": {SELECTED: node} if node else {}}
        wanted = {"storageClassName": class_name, "accessModes": ["ReadWriteOnce"]}
        wanted |= {"resources": {"requests": {"storage": size}}} | spec
        self.objects.create("PersistentVolumeClaim", {"metadata": metadata, "spec": wanted}, "default")

    def claims(self) -> dict[str, Object]:
        return {claim["metadata"]["name"]: claim for claim in self.objects.all("PersistentVolumeClaim")}

    def selected(self, name: str) -> str:
        return str(self.claims()[name]["metadata"].get("annotations", {}).get(SELECTED, ""))

    def is_bound(self, *names: str) -> bool:
        claims = self.claims()
        return all(claims[name].get("status", {}).get("phase") == "Bound" for name in names)

    def events(self, about: str) -> list[str]:
        """Reason and message of the events on an object."""
        return [
            f"{event['reason']}: {event['message']}"
            for event in self.objects.all("Event")
            if event["involvedObject"]["name"] == about
        ]

    def counts(self, kind: str) -> dict[str, int]:
        """How often each write of a kind was asked for, but for what is refused as invalid: the start asks so."""
        calls = [call for call in self.server.calls.of(kind=kind) if call.code != 422]
        writes = ("create", "update", "patch", "delete")
        return {verb: count for verb in writes if (count := sum(call.verb == verb for call in calls))}

    async def rest(self, seconds: float) -> None:
        """Let time pass."""
        await trio.sleep(seconds)

    async def until(self, holds: Callable[[], Any], *, limit: float = 3600.0) -> None:
        """Looked at whenever no task can go on: a look now and then would be a jump of the clock each."""
        with trio.fail_after(limit):
            await _Look(holds).answer()


class _Look(trio.abc.Instrument):
    def __init__(self, holds: Callable[[], Any]) -> None:
        self._holds = holds
        self._over = trio.Event()
        self._error: Exception | None = None

    async def answer(self) -> None:
        trio.lowlevel.add_instrument(self)
        try:
            await self._over.wait()
        finally:
            trio.lowlevel.remove_instrument(self)
        if self._error is not None:
            raise self._error

    def before_io_wait(self, timeout: float) -> None:
        if trio.lowlevel.current_statistics().tasks_runnable:
            return
        try:
            if not self._holds():
                return
        except Exception as error:  # Trio would only log it
            self._error = error
        # Which ends the wait that now begins; it was measured when no task could go on.
        trio.lowlevel.current_trio_token().run_sync_soon(self._over.set)


def _key(label: str) -> str:
    return f"acme.test/{label}"


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[Cluster]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, objects=Objects(seed=1)))
        cluster = Cluster(server, folder, nursery)
        yield cluster
        nursery.cancel_scope.cancel()
