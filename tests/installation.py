"""One provisioner and one driver in a cluster of the sandbox, on virtual time: where the effects of the rules show.

The provisioner is the whole program but for its command line. Tests reach for the fakes: `objects` is what the API
server has, `api` refuses requests, `driver` misbehaves; all of it is heard over HTTP and gRPC.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from msgspec.structs import replace

from csi_provisioner import supervisor
from csi_provisioner.logs import configure
from csi_provisioner.settings import HttpSettings, LogSettings, ProvisioningSettings
from sandbox.api.errors import Object
from sandbox.api.faults import Fault as ApiFault
from sandbox.driver import Config, Driver, Fault
from sandbox.driver.server import Call
from sandbox.driver.state import Wanted
from tests import canary
from tests.embedded import VIRTUAL, Cluster, embedded
from tests.hearing import heard
from tests.journeys import objects

CLASS, CLAIM, VOLUME, SECRET = "StorageClass", "PersistentVolumeClaim", "PersistentVolume", "Secret"
SNAPSHOT, CONTENT, ATTACHMENT = "VolumeSnapshot", "VolumeSnapshotContent", "VolumeAttachment"
NAMESPACE = "default"
# --extra-create-metadata: then the driver's faults can name a claim
PROVISIONING = ProvisioningSettings(extra_create_metadata=True)


@dataclass(frozen=True)
class Line:
    """One line of the log."""

    level: str
    message: str
    keys: dict[str, Any]
    traceback: bool


class Installation:
    def __init__(self, cluster: Cluster, nursery: trio.Nursery, config: Config) -> None:
        self.cluster = cluster
        self.objects = cluster.objects
        self.api = cluster.server.faults
        self.requests = cluster.server.calls
        self.config = config
        self.driver = Driver(config)
        self.driver.on_call = self._note
        self.asked: list[tuple[float, Call]] = []
        self.lines: list[Line] = []
        self._nursery = nursery
        self._serving = trio.CancelScope()
        self._stop = trio.Event()
        self._ended = trio.Event()
        self._running = trio.CancelScope()
        self._code = -1

    def _note(self, call: Call) -> None:
        if call.running:
            self.asked.append((trio.current_time(), call))

    # ---- the driver and the provisioner

    async def serve(self, config: Config | None = None) -> None:
        """Have the driver listen, as `config` if it has changed meanwhile."""
        self.config = self.driver.config = config or self.config
        self._serving = trio.CancelScope()
        await self._nursery.start(self._serve)

    async def _serve(self, *, task_status: trio.TaskStatus[Any]) -> None:
        with self._serving:
            await self.driver.serve(self.cluster.socket(self.config), task_status=task_status)

    def kill_driver(self) -> None:
        self.driver.break_connections()
        self._serving.cancel()

    async def start(
        self,
        *,
        call_timeout: float = 10.0,
        expected_driver: str = "",
        log: LogSettings | None = None,
        signals: bool = False,
        clock: Callable[[], float] = trio.current_time,
        synced: Callable[[], None] = lambda: None,
        **groups: Any,
    ) -> None:
        """Returns when the provisioner works, its caches synced. With `signals` it is they that stop it; `clock` is the
        one that goes on while the machine sleeps, `synced` is called when the caches are whole."""
        groups = {"provisioning": PROVISIONING, "http": HttpSettings(endpoint="127.0.0.1:0")} | groups
        settings = self.cluster.settings(self.config, **groups)
        settings = replace(settings, csi=replace(settings.csi, timeout=call_timeout, expected_driver=expected_driver))
        configure(log or LogSettings())
        self._stop, self._ended, self._running = trio.Event(), trio.Event(), trio.CancelScope()
        before = len(self.logged("Caches are synced"))
        stop = None if signals else self._stop
        self._nursery.start_soon(
            self._provision, partial(supervisor.run, settings, stop=stop, clock=clock, synced=synced)
        )
        await self.until(lambda: len(self.logged("Caches are synced")) > before or self._ended.is_set())

    async def _provision(self, run: Callable[[], Awaitable[int]]) -> None:
        with self._running:
            self._code = await run()
        self._ended.set()

    async def kill(self) -> None:
        """As with -9: whatever it still wants to do reaches nobody. The driver is gone for a while too."""
        cut = self.api.add(ApiFault("*", "*", agent="csi-provisioner*", cut="before", times=None))
        self.kill_driver()
        self._running.cancel()
        await self.ended()
        cut.times = 0
        await trio.sleep(0.5)  # until the driver's old socket is gone
        await self.serve()

    @property
    def is_over(self) -> bool:
        """The provisioner has ended."""
        return self._ended.is_set()

    async def stop(self) -> int:
        """As on SIGTERM; the exit code."""
        self._stop.set()
        return await self.ended()

    async def ended(self) -> int:
        with trio.fail_after(3600):
            await self._ended.wait()
        return self._code

    def read(self, record: Any) -> None:
        self.lines.append(
            Line(record["level"].name, record["message"], record["extra"].get("keys", {}), bool(record["exception"]))
        )

    def logged(self, text: str) -> list[Line]:
        """Lines whose message has the text, or the error that they tell of."""
        return [line for line in self.lines if text in line.message or text in str(line.keys.get("err", ""))]

    # ---- what goes wrong

    def fault(self, code: str = "", **fields: Any) -> None:
        """The driver fails CreateVolume, or what `rpc` says, for ever unless `times` says otherwise."""
        self.driver.faults.add(Fault(code=code, **fields))

    def refuse(self, verb: str, kind: str, code: int = 503, **fields: Any) -> ApiFault:
        """The API server refuses such requests from the provisioner, for ever unless `times` says otherwise."""
        return self.api.add(ApiFault(verb, kind, code=code, **{"times": None} | fields))

    # ---- what came of it

    def calls(self, rpc: str = "CreateVolume") -> list[Call]:
        return self.driver.made(rpc)

    def times(self, rpc: str = "CreateVolume") -> list[int]:
        """Whole seconds from the first call to each."""
        at = [when for when, call in self.asked if call.rpc == rpc]
        return [round(when - at[0]) for when in at]

    def pauses(self, rpc: str = "CreateVolume") -> list[int]:
        """Whole seconds between the calls."""
        at = [when for when, call in self.asked if call.rpc == rpc]
        return [round(later - earlier) for earlier, later in pairwise(at)]

    def find(self, kind: str, name: str) -> Object | None:
        return self.objects.find(kind, name, NAMESPACE if kind in (CLAIM, SECRET, SNAPSHOT) else "")

    def get(self, kind: str, name: str) -> Object:
        found = self.find(kind, name)
        assert found is not None, f"no {kind} {name}"
        return found

    def volume_of(self, claim: str) -> str:
        """The name that the claim's volume gets."""
        return f"pvc-{self.get(CLAIM, claim)['metadata']['uid']}"

    def finalizers(self, kind: str, name: str) -> list[str]:
        return list((self.find(kind, name) or {"metadata": {}})["metadata"].get("finalizers", []))

    def events(self, about: str, reason: str = "") -> list[Object]:
        return [
            event
            for event in self.objects.all("Event")
            if event["involvedObject"]["name"] == about and reason in ("", event["reason"])
        ]

    async def event(self, about: str, reason: str, count: int = 1) -> Object:
        """The one event of that kind, once it was told so often."""
        await self.until(lambda: any(event["count"] >= count for event in self.events(about, reason)))
        [event] = [event for event in self.events(about, reason) if event["count"] >= count]
        return event

    async def scraped(self, path: str = "/metrics") -> str:
        address = self.logged("Listening")[-1].keys["address"]
        async with httpx2.AsyncClient(trust_env=False) as http:
            return (await http.get(f"http://{address}{path}")).text

    async def metrics(self) -> dict[str, float]:
        """Each series as it is written, with its value."""
        lines = [line.rpartition(" ") for line in (await self.scraped()).splitlines() if not line.startswith("#")]
        return {series: float(value) for series, _, value in lines}

    async def rest(self, seconds: float) -> None:
        await self.cluster.rest(seconds)

    async def until(self, holds: Callable[[], Any], limit: float = 3600.0) -> None:
        await self.cluster.until(holds, limit=limit)

    async def bound(self, *claims: str) -> None:
        await self.until(lambda: self.cluster.is_bound(*claims))

    # ---- objects

    def storage_class(self, name: str = "fast", **fields: Any) -> None:
        self.cluster.storage_class(name, self.config.name, late=False, **fields)

    def claim(self, name: str = "data", class_name: str = "fast", **spec: Any) -> None:
        self.cluster.claim(name, class_name, **spec)

    def snapshot(self, name: str, *, namespace: str = NAMESPACE, finalizers: list[str] | None = None) -> None:
        """A snapshot of a volume of its own, ready to restore from."""
        source = self.driver.state.create_volume(Wanted(f"source-of-{name}", 1 << 30))
        handle = self.driver.state.create_snapshot(f"snap-{name}", source.id).id
        made = objects.snapshot(name, namespace, f"content-of-{name}")
        made["metadata"]["finalizers"] = finalizers or []
        made = self.objects.create(SNAPSHOT, made, namespace).obj
        content = objects.content(f"content-of-{name}", self.config.name, handle, made)
        self.objects.create(CONTENT, content)
        ready = {"readyToUse": True, "restoreSize": "1Gi", "boundVolumeSnapshotContentName": f"content-of-{name}"}
        self.objects.edit(SNAPSHOT, name, namespace, change=lambda obj: obj.update(status=ready), status=True)
        status = {"snapshotHandle": handle, "readyToUse": True}
        self.objects.edit(CONTENT, f"content-of-{name}", change=lambda obj: obj.update(status=status), status=True)

    def secret(self, name: str = "login", raw: dict[str, str] | None = None, **values: str) -> None:
        """One that holds the canary, in each of the values; `raw` are in base64 already."""
        self.objects.create(SECRET, canary.secret(name, raw, **values), NAMESPACE)

    def delete(self, kind: str, name: str) -> None:
        self.objects.delete(kind, name, NAMESPACE if kind in (CLAIM, SECRET, SNAPSHOT) else "")

    def edit(self, kind: str, name: str, change: Callable[[Object], Any], *, status: bool = False) -> None:
        namespace = NAMESPACE if kind in (CLAIM, SECRET, SNAPSHOT) else ""
        self.objects.edit(kind, name, namespace, change=change, status=status)

    def touch(self, kind: str, name: str, value: str) -> None:
        """A change that means nothing."""
        self.edit(kind, name, lambda obj: obj["metadata"].setdefault("labels", {}).update(touched=value))


@asynccontextmanager
async def installation(folder: Path, config: Config) -> AsyncIterator[Installation]:
    async with embedded(folder) as cluster, trio.open_nursery() as nursery:
        site = Installation(cluster, nursery, config)
        await site.serve()
        with heard(site.read):
            yield site
        nursery.cancel_scope.cancel()


# ---- fixtures, for the conftest of whoever wants them


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
async def site(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, Config()) as one:
        yield one
