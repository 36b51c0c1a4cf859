"""A small API server in memory, for the world in which the journal's real code is tried: requests come as `Sender` has
them, and go as bytes; what a kube-apiserver does with versions, UIDs, finalizers and watches, and nothing else.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from csi_provisioner.kube.errors import KubeError

from .clock import sleep

Object = dict[str, Any]
Apply = Callable[[], bytes]

CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"
CLASSES, LEASES, EVENTS = "storageclasses", "leases", "events"
REVIEWS = "selfsubjectaccessreviews"
KINDS = {CLAIMS: "PersistentVolumeClaim", VOLUMES: "PersistentVolume", CLASSES: "StorageClass", LEASES: "Lease"}
WATCHED = (CLAIMS, VOLUMES, CLASSES)


def refused(code: int, reason: str, kind: str = "", name: str = "") -> KubeError:
    missing = (kind, name) if code == 404 else None
    return KubeError(code, reason, "so it is", missing=missing)


class Server:
    """Objects by kind and name; every change is in `changes` of its kind, which watches read."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        self.changes = defaultdict[str, list[tuple[int, str, bytes]]](list)  # version, name, line of a watch
        self.changed = defaultdict[str, trio.Event](trio.Event)
        self._numbers = itertools.count(1)
        self.version = 0
        self.on_change: Callable[[str, str, Object | None], None] = lambda kind, name, obj: None

    # ---- what others do, at once

    def get(self, kind: str, name: str) -> Object | None:
        return self.objects[kind].get(name)

    def put(self, kind: str, obj: Object) -> Object:
        """Made or changed; an equal object keeps its version."""
        meta = obj["metadata"]
        old = self.objects[kind].get(meta["name"])
        if old is not None and _bare(old) == _bare(obj):
            return old
        self.version = next(self._numbers)
        meta["resourceVersion"] = str(self.version)
        meta.setdefault("uid", f"00000000-0000-4000-8000-{self.version:012}")  # of the API's form: caches make records
        obj["kind"] = KINDS[kind]
        if old is not None and meta.get("deletionTimestamp") and not meta.get("finalizers"):
            return self._gone(kind, obj)
        self.objects[kind][meta["name"]] = obj
        self._tell("ADDED" if old is None else "MODIFIED", kind, obj)
        return obj

    def edit(self, kind: str, name: str, change: Callable[[Object], Any]) -> Object:
        obj = _copy(self.objects[kind][name])
        change(obj)
        return self.put(kind, obj)

    def delete(self, kind: str, name: str, *, at_once: bool = False) -> None:
        obj = self.objects[kind].get(name)
        if obj is None:
            return
        if obj["metadata"].get("finalizers") and not at_once:
            self.edit(kind, name, lambda found: found["metadata"].update(deletionTimestamp="2025-01-01T00:00:00Z"))
            return
        self.version = next(self._numbers)
        obj = _copy(obj)
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._gone(kind, obj)

    def _gone(self, kind: str, obj: Object) -> Object:
        self.objects[kind].pop(obj["metadata"]["name"])
        self._tell("DELETED", kind, obj)
        return obj

    def _tell(self, what: str, kind: str, obj: Object) -> None:
        line = msgspec.json.encode({"type": what, "object": obj}) + b"\n"
        self.changes[kind].append((self.version, obj["metadata"]["name"], line))
        self.changed.pop(kind, trio.Event()).set()
        self.on_change(kind, obj["metadata"]["name"], None if what == "DELETED" else obj)

    # ---- requests

    def request(self, method: str, path: str, data: Any) -> Apply:
        """What the request does, when it gets there. It raises KubeError."""
        parts = path.split("/")
        kind, name = next((part, "/".join(parts[place + 1 :])) for place, part in enumerate(parts) if part in SERVED)
        body: Any = _copy(data) if data is not None else None
        if kind in (EVENTS, REVIEWS):
            return lambda: msgspec.json.encode({**body, "metadata": {"name": "e", **body.get("metadata", {})}})
        does: dict[str, Callable[[], Any]] = {
            "GET": (lambda: self._read(kind, name)) if name else (lambda: self._list(kind)),
            "POST": lambda: self._create(kind, body),
            "PUT": lambda: self._replace(kind, name, body),
            "PATCH": lambda: self._patch(kind, name, body),
            "DELETE": lambda: self._delete(kind, name),
        }
        return lambda: msgspec.json.encode(does[method]())

    def _read(self, kind: str, name: str) -> Object:
        obj = self.objects[kind].get(name)
        if obj is None:
            raise refused(404, "NotFound", kind, name)
        return obj

    def _list(self, kind: str) -> Object:
        metadata = {"resourceVersion": str(self.version)}
        return {"kind": f"{KINDS[kind]}List", "metadata": metadata, "items": list(self.objects[kind].values())}

    def _create(self, kind: str, body: Object) -> Object:
        if body["metadata"]["name"] in self.objects[kind]:
            raise refused(409, "AlreadyExists")
        body["metadata"].pop("resourceVersion", None)
        body["metadata"].pop("uid", None)
        return self.put(kind, body)

    def _replace(self, kind: str, name: str, body: Object) -> Object:
        old, meta = self.objects[kind].get(name), body["metadata"]
        if old is None and meta.get("uid"):
            raise refused(409, "Conflict")
        if old is None:  # as with Leases (AllowCreateOnUpdate)
            return self._create(kind, body)
        if any(meta.get(key) not in (None, "", old["metadata"][key]) for key in ("resourceVersion", "uid")):
            raise refused(409, "Conflict")
        meta["uid"] = old["metadata"]["uid"]
        return self.put(kind, body)

    def _patch(self, kind: str, name: str, patch: Object) -> Object:
        """Of finalizers alone: nothing else is patched."""
        self._read(kind, name)
        added = patch["metadata"].get("finalizers", [])
        taken = patch["metadata"].get("$deleteFromPrimitiveList/finalizers", [])

        def change(obj: Object) -> None:
            old = obj["metadata"].get("finalizers") or []
            new = [*(entry for entry in old if entry not in taken), *(entry for entry in added if entry not in old)]
            obj["metadata"]["finalizers"] = new

        return self.edit(kind, name, change)

    def _delete(self, kind: str, name: str) -> Object:
        obj = self._read(kind, name)
        self.delete(kind, name)
        return obj

    def watch(self, path: str, since: str, name: str, lag: Callable[[], float]) -> "Changes":
        return Changes(self, path.rstrip("/").rpartition("/")[2], int(since), name, lag)


class Changes:
    """A watch's body: no generator, which somebody would have to close. With a `name` of that object alone."""

    def __init__(self, server: Server, kind: str, since: int, name: str, lag: Callable[[], float]) -> None:
        self._server, self._kind, self._since, self._name, self._lag = server, kind, since, name, lag
        self._place = 0

    def __aiter__(self) -> "Changes":
        return self

    async def __anext__(self) -> bytes:
        while True:
            changes, place = self._server.changes[self._kind], self._place
            self._place = len(changes)
            news = [
                line
                for version, name, line in changes[place:]
                if version > self._since and (name == self._name or not self._name)
            ]
            if news:
                await sleep(self._lag())
                return b"".join(news)
            await self._server.changed[self._kind].wait()


SERVED = {*KINDS, EVENTS, REVIEWS}


def _copy(obj: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(obj))


def _bare(obj: Object) -> Object:
    meta = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    return {**obj, "metadata": meta, "kind": "", "apiVersion": ""}
