"""A bare HTTP client and object builders: the same requests go to the sandbox and to a real API server."""

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from tests.sandbox.api.lines import Lines, stream

Object = dict[str, Any]
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"

CONFIG_MAPS = "/api/v1/namespaces/{ns}/configmaps"
CLAIMS = "/api/v1/namespaces/{ns}/persistentvolumeclaims"
SNAPSHOTS = "/apis/snapshot.storage.k8s.io/v1/namespaces/{ns}/volumesnapshots"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{ns}/leases"
EVENTS = "/api/v1/namespaces/{ns}/events"
CAPACITIES = "/apis/storage.k8s.io/v1/namespaces/{ns}/csistoragecapacities"
VOLUMES = "/api/v1/persistentvolumes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


class Api:
    """One API server and one namespace of its own. Answers are (status, parsed body). `forget` makes the server forget
    its history, so that old versions cannot be watched from any more."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        namespace: str,
        forget: Callable[[], Awaitable[None]],
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.http = http
        self.ns = namespace
        self.trust = trust
        self.forget = forget
        self.made: list[str] = []

    def unique(self, name: str) -> str:
        """A name for a cluster scoped object that no other test uses."""
        return f"{self.ns}-{name}"

    async def request(
        self, method: str, path: str, body: Any = None, *, media: str = "application/json", **query: Any
    ) -> tuple[int, Object]:
        content = None if body is None else json.dumps(body).encode()
        headers = {} if content is None else {"Content-Type": media}
        answer = await self.http.request(
            method, path.format(ns=self.ns), content=content, headers=headers, params=query
        )
        try:
            return answer.status_code, answer.json()
        except ValueError:
            return answer.status_code, {"text": answer.text}

    async def create(self, path: str, obj: Object) -> Object:
        code, body = await self.request("POST", path, obj)
        assert code == 201, body
        self.made.append(f"{path}/{body['metadata']['name']}")
        return body

    async def get(self, path: str) -> Object:
        code, body = await self.request("GET", path)
        assert code == 200, body
        return body

    async def patch(self, path: str, patch: Any, media: str = MERGE) -> Object:
        code, body = await self.request("PATCH", path, patch, media=media)
        assert code == 200, body
        return body

    async def clean_up(self) -> None:
        for path in self.made:
            await self.request("PATCH", path, {"metadata": {"finalizers": None}}, media=MERGE)
            await self.request("DELETE", path)
        await self.request("DELETE", f"/api/v1/namespaces/{self.ns}")

    @asynccontextmanager
    async def watch(self, path: str, **query: Any) -> AsyncIterator[Lines]:
        """The events of a watch, one by one."""
        params = {"watch": "true", "timeoutSeconds": 20, **query}
        headers = {"Authorization": self.http.headers.get("Authorization", "")}
        url, path = str(self.http.base_url), path.format(ns=self.ns)
        async with stream(url, path, params, headers=headers, trust=self.trust) as lines:
            assert lines.code == 200
            yield lines


def config_map(name: str, **metadata: Any) -> Object:
    return {"metadata": {"name": name, **metadata}, "data": {"key": "value"}}


def claim(name: str, size: Any = "5Gi", **spec: Any) -> Object:
    contents = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "no-such-class",
        "resources": {"requests": {"storage": size}},
        **spec,
    }
    return {"metadata": {"name": name}, "spec": contents}


def volume(name: str, size: Any = "5Gi", **spec: Any) -> Object:
    contents = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "no-such-class",
        "capacity": {"storage": size},
        "csi": {"driver": "driver.test", "volumeHandle": f"handle-{name}"},
        **spec,
    }
    return {"metadata": {"name": name}, "spec": contents}
