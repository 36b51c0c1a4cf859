"""An API server that keeps Leases, as far as a volume journal can tell it from the real one, with faults on demand."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import trio

from csi_provisioner.kube.client import KubeClient, connect, resolve
from csi_provisioner.metrics import Metrics
from csi_provisioner.planning import entries
from csi_provisioner.planning.entries import ClaimName, Entry
from csi_provisioner.provision.journal_leases import ENTRIES, TERM
from csi_provisioner.provision.writer import JournalWriter
from csi_provisioner.settings import ClusterSettings, ElectionSettings
from tests.kube.wire import Asked, HangupError, reply, serving

DRIVER = "d"
Fault = Callable[[Asked], int | str | None]
"""A status to answer instead; "lost": done and not answered; "hang": never answered."""


@dataclass
class JournalApi:
    leases: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    fault: Fault = lambda _asked: None
    slow: float = 0.0
    _version: int = 0

    async def answer(self, asked: Asked, stream: trio.abc.Stream) -> None:
        name = asked.target.rsplit("/", 1)[1] if asked.method != "POST" else json.loads(asked.body)["metadata"]["name"]
        self.asked.append((asked.method, name))
        await trio.sleep(self.slow)
        fault = self.fault(asked)
        if fault == "hang":
            await trio.sleep_forever()
        code, body = (fault, {}) if isinstance(fault, int) else self.do(asked.method, name, asked.body)
        if fault == "lost":
            raise HangupError
        if code >= 400:
            about = {"kind": "leases", "group": "coordination.k8s.io", "name": name} if fault is None else {}
            reason = {404: "NotFound", 409: "Conflict"}.get(code, "R")
            body = {"kind": "Status", "code": code, "reason": reason, "details": about, "message": "no"}
        await stream.send_all(
            reply(code, json.dumps(body).encode(), Date=formatdate(1767225600 + trio.current_time(), usegmt=True))
        )

    def do(self, method: str, name: str, body: bytes) -> tuple[int, dict[str, Any]]:
        stored = self.leases.get(name)
        if method == "GET":
            return (200, stored) if stored is not None else (404, {})
        sent = json.loads(body)
        if method == "POST":
            return (409, {}) if stored is not None else (201, self.put(name, sent))
        meta = {} if stored is None else stored["metadata"]
        uid, version = sent["metadata"].get("uid"), sent["metadata"].get("resourceVersion")
        # As the real one: a PUT makes a Lease that is gone anew, unless it says which one it means.
        if (stored or uid) and (uid, version) != (meta.get("uid"), meta.get("resourceVersion")):
            return 409, {}
        return 200, self.put(name, sent)

    def put(self, name: str, lease: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        before = self.leases.get(name, {"metadata": {"uid": f"uid-{self._version}"}})
        meta = {**lease["metadata"], "name": name, "namespace": "ns", "resourceVersion": str(self._version)}
        fixed = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        self.leases[name] = {**fixed, **lease, "metadata": meta | {"uid": before["metadata"]["uid"]}}
        return self.leases[name]

    # ---- what somebody else does, and what stands there

    def write(self, number: int, texts: dict[str, bytes], term: str = "theirs", **annotations: str) -> None:
        given = {TERM: term, ENTRIES: entries.pack(texts), **annotations}
        name = f"lock-journal-{number:02}"
        kept = self.leases.get(name, {"metadata": {}})
        self.put(name, {**kept, "metadata": {**kept["metadata"], "annotations": given}})

    def names(self) -> dict[int, set[str]]:
        found = {}
        for name, lease in self.leases.items():
            annotation = lease["metadata"]["annotations"].get(ENTRIES, "{}")
            found[int(name[-2:])] = set(entries.unpack(annotation))
        return found

    def term(self, number: int) -> str:
        term: str = self.leases[f"lock-journal-{number:02}"]["metadata"]["annotations"][TERM]
        return term

    def writes(self) -> list[tuple[str, str]]:
        return [(method, name[-2:]) for method, name in self.asked if method != "GET"]


def once(method: str, what: int | str, name: str = "") -> Callable[[Asked], int | str | None]:
    """A fault of the next request of that method."""
    left = [what]

    def fault(asked: Asked) -> int | str | None:
        return left.pop() if left and asked.method == method and name in asked.target else None

    return fault


def always(method: str, what: int | str) -> Callable[[Asked], int | str | None]:
    return lambda asked: what if asked.method == method else None


def entry(name: str = "data", **fields: Any) -> Entry:
    given: dict[str, Any] = {
        "v": 1,
        "driver": DRIVER,
        "claim": ClaimName("shop", name, f"uid-{name}"),
        "storage_class": "fast",
        "reclaim_policy": "Delete",
        "request": b"request",
        "when": 0,
    }
    return Entry(**given | fields)


@asynccontextmanager
async def writing(api: JournalApi, *, elected: bool = True, **settings: Any) -> AsyncIterator["Process"]:
    """A process that is told to lead."""
    async with serving(api.answer) as server, trio.open_nursery() as nursery:
        cluster = resolve(ClusterSettings(master=f"http://127.0.0.1:{server.port}"))
        with closing(connect(cluster, user_agent="test/1")) as client:
            yield Process(client, nursery, elected, settings)
            nursery.cancel_scope.cancel()


@dataclass
class Process:
    client: KubeClient
    nursery: trio.Nursery
    elected: bool
    settings: dict[str, Any]
    renewing: bool = True
    asked_to_renew: int = 0

    def journal(self, **more: Any) -> JournalWriter:
        """With an election the lease is renewed at every moment, while `renewing`."""

        def renewed() -> float:
            return trio.current_time() if self.renewing else -1.0

        def renew() -> None:
            self.asked_to_renew += 1

        given: dict[str, Any] = {"gap": False, "hold": 25.0, **self.settings, **more}
        return JournalWriter(
            client=self.client,
            driver=DRIVER,
            lease="lock",
            election=ElectionSettings(enabled=self.elected, namespace="ns"),
            metrics=Metrics(),
            renewed=renewed if self.elected else lambda: float("-inf"),
            renew=renew,
            **given,
        )

    async def lead(self, **more: Any) -> JournalWriter:
        journal = self.journal(**more)
        await self.nursery.start(journal.run)
        return journal
