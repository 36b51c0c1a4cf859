"""The world of a journey: a cluster, a CSI driver and the provisioner, whichever they are.

A journey says what people and Kubernetes do and what must come of it, in the words of `World`. Objects go over plain
HTTP in either world; what differs is the driver and how the provisioner runs (`embedded`, `real`). Nothing here knows
the product: all it sees are requests.
"""

import base64
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.journeys import objects
from tests.journeys.objects import CLAIM, CLASS, CONTENT, EVENT, PATHS, SNAPSHOT, VOLUME, VOLUME_EVENT, Object
from tests.sandbox.api.client import Api

STEP = 0.02
LONGEST_STEP = 1.0
"""Between two looks at something that has not happened yet: the longer it takes, the rarer."""


@dataclass(frozen=True)
class Call:
    """One call as the driver saw it; `code` is "" while it runs."""

    rpc: str
    name: str = ""
    volume_id: str = ""
    source: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    mutable_parameters: dict[str, str] = field(default_factory=dict)
    code: str = ""


@dataclass(frozen=True)
class Rule:
    """What the driver does to calls whose volume or claim (NAMESPACE/NAME) matches: wait, then fail if there is a code,
    `done` with the work done before; or tell of a volume of another capacity than it has. What is `fatal` ends the
    driver, where that is a process."""

    rpc: str = "CreateVolume"
    match: str = ""
    times: int | None = None
    delay: float = 0.0
    error: str = ""
    done: bool = False
    capacity: int | None = None
    fatal: bool = False


class World(ABC):
    """`patience`: seconds that anything may take, on this world's clock."""

    patience = 60.0
    first_retry = 1.0
    lease_namespace = "default"
    """Of leases, for `--leader-election-namespace`."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.driver = f"{api.ns}.csi.example.com"
        self.class_name = api.unique("class")
        self._own_volumes: set[str] = set()

    async def journal(self) -> dict[str, Object]:
        """What stands in the volume journal, by volume name: read as a person would, with kubectl and zlib."""
        found: dict[str, Object] = {}
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.lease_namespace}/leases"
        code, leases = await self.api.request("GET", path)
        assert code == 200, leases
        prefix = self.driver.replace(".", "-")  # and a node's name, where each has a journal
        for lease in leases["items"]:
            text = lease["metadata"].get("annotations", {}).get("csi-provisioner.io/journal-entries", "{}")
            name = lease["metadata"]["name"]
            if name.startswith(prefix) and "-journal-" in name:
                found |= json.loads(text if text.startswith("{") else zlib.decompress(base64.b64decode(text)))
        return found

    # ---- the provisioner

    @abstractmethod
    async def start(self, *flags: str) -> None:
        """Start the provisioner; claims are told to the driver, so that rules can name them."""

    @abstractmethod
    async def stop(self) -> int:
        """SIGTERM, or the like; the exit code."""

    @abstractmethod
    async def ended(self) -> int:
        """The exit code, once it has ended by itself."""

    @abstractmethod
    def log(self) -> str: ...

    @abstractmethod
    async def command(self, word: str, *flags: str) -> tuple[int, str]:
        """What a person asks of the program beside the provisioner: its exit code, and what it prints."""

    # ---- the driver

    @abstractmethod
    async def stop_driver(self) -> None:
        """As if it had crashed: connections break. What it has made stays."""

    @abstractmethod
    async def start_driver(self, **config: Any) -> None:
        """Serve again; `name` and `controller` (capabilities) may be others than before."""

    @abstractmethod
    def rules(self, *rules: Rule) -> None:
        """Replace the rules in force."""

    @abstractmethod
    def calls(self, rpc: str) -> list[Call]: ...

    @abstractmethod
    def volumes(self) -> dict[str, str]:
        """What the driver has: names by id."""

    @abstractmethod
    def snap(self, volume_id: str) -> str:
        """A snapshot of the volume, taken by whoever does that; its handle."""

    # ---- objects

    def path(self, kind: str, name: str = "") -> str:
        return f"{PATHS[kind]}/{name}" if name else PATHS[kind]

    async def create(self, kind: str, obj: Object) -> Object:
        if kind == VOLUME:
            self._own_volumes.add(obj["metadata"]["name"])
        return await self.api.create(self.path(kind), obj)

    async def get(self, kind: str, name: str) -> Object | None:
        code, found = await self.api.request("GET", self.path(kind, name))
        assert code in (200, 404), found
        return found if code == 200 else None

    async def all(self, kind: str) -> list[Object]:
        code, found = await self.api.request("GET", self.path(kind))
        assert code == 200, found
        return list(found["items"])

    async def patch(self, kind: str, name: str, patch: Object, *, status: bool = False) -> Object:
        return await self.api.patch(self.path(kind, name) + ("/status" if status else ""), patch)

    async def delete(self, kind: str, *names: str) -> None:
        for name in names:
            code, answer = await self.api.request("DELETE", self.path(kind, name))
            assert code in (200, 202, 404), answer

    # ---- what journeys are made of

    async def storage_class(self, name: str = "", **fields: Any) -> str:
        """A class of this driver; without a name the one that claims have by default."""
        name = self.api.unique(name) if name else self.class_name
        await self.create(CLASS, {"metadata": {"name": name}, "provisioner": self.driver} | fields)
        return name

    async def claim(self, name: str, class_name: str = "", **spec: Any) -> Object:
        return await self.create(CLAIM, objects.claim(name, class_name or self.class_name, **spec))

    async def snapshot(self, name: str, volume_id: str) -> None:
        """A snapshot, ready to restore from."""
        content, handle = self.api.unique(f"content-{name}"), self.snap(volume_id)
        made = await self.create(SNAPSHOT, objects.snapshot(name, self.api.ns, content))
        await self.create(CONTENT, objects.content(content, self.driver, handle, made))
        await self.patch(CONTENT, content, {"status": {"snapshotHandle": handle, "readyToUse": True}}, status=True)
        status = {"boundVolumeSnapshotContentName": content, "readyToUse": True, "restoreSize": "1Gi"}
        await self.patch(SNAPSHOT, name, {"status": status}, status=True)

    async def bound(self, *names: str) -> Object:
        """Wait until the claims are Bound; the volume of the last one."""
        for name in names:
            claim = await self.until(CLAIM, name, lambda claim: objects.phase(claim) == "Bound")
        volume = await self.get(VOLUME, claim["spec"]["volumeName"])
        assert volume is not None
        return volume

    async def gone(self, kind: str, *names: str) -> None:
        for name in names:
            await self.until(kind, name, lambda obj: not obj)

    async def own_volumes(self) -> dict[str, Object]:
        """PersistentVolumes of this driver, by the name of their claim."""
        return {
            volume["spec"]["claimRef"]["name"]: volume
            for volume in await self.all(VOLUME)
            if volume["spec"].get("csi", {}).get("driver") == self.driver and "claimRef" in volume["spec"]
        }

    async def nothing_left(self) -> None:
        """No volume in the driver and no PersistentVolume of it, once everybody is done."""

        async def empty() -> bool:
            return not self.volumes() and not await self.own_volumes()

        await self.wait("nothing is left of any volume", empty)

    async def events(self, about: str, *reasons: str) -> list[Object]:
        """The provisioner's events on an object, oldest first."""
        found = [
            event
            for event in [*await self.all(EVENT), *await self.all(VOLUME_EVENT)]
            if event["involvedObject"]["name"] == about
            and event.get("source", {}).get("component", "").startswith(self.driver)
            and (not reasons or event["reason"] in reasons)
        ]
        return sorted(found, key=lambda event: str(event["metadata"]["name"]))

    async def event(self, about: str, reason: str, holds: Callable[[Object], bool] = lambda event: True) -> Object:
        """Wait for an event; they are written behind everything else."""
        found: list[Object] = []

        async def seen() -> bool:
            found[:] = [event for event in await self.events(about, reason) if holds(event)]
            return bool(found)

        await self.wait(f"event {reason} on {about}", seen)
        return found[0]

    # ---- waiting

    async def until(self, kind: str, name: str, holds: Callable[[Object], bool]) -> Object:
        """Wait until that is true of the object; one that is not there is {}."""
        last: Object = {}

        async def look() -> bool:
            nonlocal last
            last = await self.get(kind, name) or {}
            return holds(last)

        try:
            await self.wait(f"{kind} {name}", look)
        except AssertionError as error:
            raise AssertionError(f"{error}\nit is: {json.dumps(last, indent=1)}") from None
        return last

    async def asked(self, rpc: str, holds: Callable[[list[Call]], bool] = bool) -> list[Call]:
        """Wait until that is true of the driver's calls."""

        async def look() -> bool:
            return holds(self.calls(rpc))

        await self.wait(f"calls of {rpc}", look)
        return self.calls(rpc)

    async def wait(self, what: str, holds: Callable[[], Any]) -> None:
        step = STEP
        with trio.move_on_after(self.patience):
            while not await holds():
                await trio.sleep(step)
                step = min(step * 1.1, LONGEST_STEP)
            return
        with trio.CancelScope(shield=True):
            raise AssertionError(f"waited for {self.patience:g} s: {what}\n{await self._situation()}")

    async def _situation(self) -> str:
        events = [
            f"  {event['involvedObject']['name']}: {event['reason']} x{event.get('count')}: {event['message']}"
            for event in await self.all(EVENT)
        ]
        calls = [str(call) for rpc in ("CreateVolume", "DeleteVolume") for call in self.calls(rpc)]
        return "\n".join(["events:", *events[-20:], "calls:", *calls[-20:], "log:", self.log()[-6000:]])

    async def clean_up(self) -> None:
        """Nothing of a journey that failed half way stays in a cluster that others use."""
        mine = {volume["metadata"]["name"] for volume in (await self.own_volumes()).values()} | self._own_volumes
        self.api.made += [self.path(VOLUME, name) for name in mine]
        self.api.made += [self.path(CLAIM, claim["metadata"]["name"]) for claim in await self.all(CLAIM)]
