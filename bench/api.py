"""What the measurements themselves ask of the API server: make and remove many objects, follow volumes by watch."""

import json
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import trio
import yaml

from csi_provisioner.kube.client import KubeError, connect, resolve
from csi_provisioner.model.kubernetes import PersistentVolume
from csi_provisioner.settings import ClusterSettings

# enough to keep an API server busy, few enough to leave it the two processors of a small machine
SIDE_BY_SIDE = 16


class Api:
    def __init__(self, kubeconfig: Path) -> None:
        self._kube = connect(resolve(ClusterSettings(kubeconfig=str(kubeconfig))), "bench/1 (volumes)")
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], (config.get("users") or [{}])[0].get("user") or {}
        verify = ssl.create_default_context(cafile=cluster.get("certificate-authority"))
        headers = {"User-Agent": "bench"}
        if "token" in user:
            headers["Authorization"] = f"Bearer {user['token']}"
        limits = httpx2.Limits(max_keepalive_connections=SIDE_BY_SIDE + 4, keepalive_expiry=None)
        self._client = httpx2.AsyncClient(
            base_url=cluster["server"], headers=headers, verify=verify, limits=limits, timeout=120, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._kube.close()
        await self._client.aclose()

    async def request(self, method: str, path: str, body: Any = None, **parameters: Any) -> dict[str, Any]:
        answer = await self._client.request(method, path, json=body, params=parameters)
        if answer.status_code >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        parsed: dict[str, Any] = answer.json()
        return parsed

    async def create(self, path: str, objects: Iterable[dict[str, Any]]) -> None:
        waiting = iter(list(objects))

        async def worker() -> None:
            for body in waiting:
                await self.request("POST", path, body)

        async with trio.open_nursery() as nursery:
            for _ in range(SIDE_BY_SIDE):
                nursery.start_soon(worker)

    async def names(self, path: str) -> list[str]:
        return [item["metadata"]["name"] for item in (await self.request("GET", path)).get("items") or []]

    async def remove(self, path: str, *, finalizers: bool = False) -> None:
        """Delete all objects of this path; with `finalizers`, take those away too and wait for nobody."""
        await self.request("DELETE", path)
        if finalizers:
            for name in await self.names(path):
                await self._client.patch(
                    f"{path}/{name}",
                    content=json.dumps({"metadata": {"finalizers": None}}),
                    headers={"Content-Type": "application/merge-patch+json"},
                )

    async def follow(self, sight: "Sight", *, task_status: trio.TaskStatus[None]) -> None:
        """Tell `sight` of every change of the volumes, from now on and whatever becomes of the server.

        By our own client: it shares the processors with what is measured, and a plain one took a tenth of them.
        """
        while True:
            with suppress(KubeError):
                page = await self._kube.list_page(PersistentVolume, limit=0)
                sight.replace(page.items)
                watch = self._kube.watch(
                    PersistentVolume, resource_version=page.resource_version, timeout_seconds=3600, pause=0.01
                )
                async with watch as events:
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    async for event, _ in events:
                        sight.see(event.type, event.object)
            await trio.sleep(0.2)


class Sight:
    """The volumes of one driver as a watch shows them: phases by name, and when each was first and last seen."""

    def __init__(self, driver: str) -> None:
        self._driver = driver
        self.phases: dict[str, str] = {}
        self.written: list[float] = []
        self.gone: list[float] = []
        self._changed = trio.Event()

    def replace(self, volumes: list[PersistentVolume]) -> None:
        """A fresh list: what is not in it is gone."""
        present = {volume.metadata.name for volume in volumes}
        for name in set(self.phases) - present:
            del self.phases[name]
            self.gone.append(time.time())
        for volume in volumes:
            self.see("ADDED", volume)

    def see(self, kind: str, volume: PersistentVolume) -> None:
        if volume.spec.csi is None or volume.spec.csi.driver != self._driver:
            return
        name = volume.metadata.name
        if kind == "DELETED":
            self.phases.pop(name, None)
            self.gone.append(time.time())
        else:
            if name not in self.phases:
                self.written.append(time.time())
            self.phases[name] = (volume.status and volume.status.phase) or "Pending"
        self._changed.set()
        self._changed = trio.Event()

    def count(self, phase: str) -> int:
        return sum(1 for present in self.phases.values() if present == phase)

    async def until(self, holds: Callable[[], bool], what: str, limit: float) -> None:
        with trio.move_on_after(limit):
            while not holds():
                await self._changed.wait()
            return
        raise RuntimeError(f"not within {limit:.0f} s: {what}; volumes: {len(self.phases)}")
