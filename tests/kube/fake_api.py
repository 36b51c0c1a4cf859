"""An API server in memory that behaves as the real one does where lists, watches and events can go wrong.

Speaks the methods of `KubeClient` that reflectors, events and elections use. Versions are counted over everything;
lists are consistent over their pages; a watch shows what happened after a version, in order, unless the history has
been compacted.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from csi_provisioner.kube.client import Scope
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.model.kubernetes import ObjectMeta, PersistentVolumeClaim
from tests.kube.objects import claim

GONE = KubeError(410, "Expired", "too old resource version")
NO_ANSWER = KubeError(0, "Refused", "connection refused")
FORBIDDEN = KubeError(403, "Forbidden", "may not")


@dataclass
class Page:
    items: list[PersistentVolumeClaim]
    resource_version: str
    continue_token: str | None
    unreadable: dict[str, str]
    others: tuple[()] = ()


@dataclass
class Event:
    type: str
    object: PersistentVolumeClaim
    version: int


@dataclass
class FakeApi:
    """`asked` are the questions in order; an error put into `list_errors` or `watch_errors` answers the next one."""

    version: int = 10
    compacted: int = 0
    objects: dict[str, PersistentVolumeClaim] = field(default_factory=dict)
    history: list[Event] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    list_errors: list[KubeError] = field(default_factory=list)
    watch_errors: list[KubeError] = field(default_factory=list)
    timeouts: list[int] = field(default_factory=list)
    watches: list["Stream"] = field(default_factory=list)
    snapshots: dict[str, list[PersistentVolumeClaim]] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    """Names of objects that lists have in a form that cannot be decoded."""
    deaf: bool = False
    """Open watches show nothing, not even bookmarks."""
    behind: int | None = None
    """Events that watches have come to, though their bookmarks say that all are shown: a replica that lags."""
    delivered: int = 0
    """Events that a list or a watch has shown. Those after it still come, whatever bookmark a watch begins at."""
    ending: list[KubeError | None] = field(default_factory=list)
    """While there is one, watches end with it as soon as they are opened."""
    troubles: set[str] = field(default_factory=set)
    """What people were told of."""
    make_uid: Callable[[str], str] = str
    poison: str = ""
    """A version whose event nobody understands."""

    # ---- what happens in the cluster

    def write(self, name: str, *, foreign: bool = False) -> PersistentVolumeClaim:
        """Creates or changes; a name that was deleted gets a new uid."""
        self.version += 1
        before = self.objects.get(name)
        uid = before.metadata.uid if before else self.make_uid(f"{name}-{self.version}")
        obj = self.objects[name] = claim(name, self.version, uid=uid, foreign=foreign)
        self._happened("MODIFIED" if before else "ADDED", obj)
        return obj

    def show(self, obj: PersistentVolumeClaim) -> None:
        """Creates or changes one at the version that it has."""
        before = self.objects.get(obj.metadata.name)
        self.version, self.objects[obj.metadata.name] = int(obj.metadata.resourceVersion), obj
        self._happened("MODIFIED" if before else "ADDED", obj)

    def delete(self, name: str) -> None:
        if name in self.objects:
            self.version += 1
            gone = self.objects.pop(name)
            self._happened("DELETED", claim(name, self.version, uid=gone.metadata.uid))

    def compact(self) -> None:
        """Forgets the past: watches from old versions and page tokens are answered with 410 from now on."""
        self.compacted = self.version
        self.snapshots.clear()

    def _happened(self, type_: str, obj: PersistentVolumeClaim) -> None:
        self.history.append(Event(type_, obj, self.version))
        for stream in self.watches:
            stream.wake()

    # ---- what happens to connections

    def lag(self) -> None:
        self.behind = self.delivered

    def catch_up(self) -> None:
        self.behind = None
        for stream in self.watches:
            stream.wake()

    def bookmark(self) -> None:
        for stream in self.watches:
            stream.bookmarks += 1
            stream.wake()

    def end_watches(self, error: KubeError | None = None) -> None:
        """As the server does after `timeoutSeconds`, or with an error."""
        for stream in self.watches:
            stream.ended, stream.error = True, error
            stream.wake()

    def repeat(self, count: int) -> None:
        """Open watches show their last events once more."""
        for stream in self.watches:
            stream.position = max(stream.first, stream.position - count)
            stream.wake()

    # ---- the client's side

    async def list_page(
        self,
        kind: type[Any],
        _scope: Scope,
        *,
        limit: int = 500,
        continue_token: str | None = None,
        look: None = None,
    ) -> Any:
        self.asked.append(f"list {continue_token or ''}".strip())
        await trio.sleep(0.01)
        if self.list_errors:
            raise self.list_errors.pop(0)
        version, _, start = (continue_token or f"{self.version}/0").partition("/")
        if continue_token is None:
            self.snapshots[version] = list(self.objects.values())
            self.delivered = len(self.history)
        elif version not in self.snapshots:
            raise GONE
        items, first = self.snapshots[version], int(start)
        following = f"{version}/{first + limit}" if first + limit < len(items) else None
        here = items[first : first + limit]
        odd = {f"ns/{item.metadata.name}": "odd" for item in here if item.metadata.name in self.unreadable}
        return Page([item for item in here if item.metadata.name not in self.unreadable], version, following, odd)

    @asynccontextmanager
    async def watch(
        self,
        kind: type[Any],
        _scope: Scope,
        *,
        resource_version: str,
        timeout_seconds: int,
        pause: float,
    ) -> AsyncIterator[Any]:
        self.asked.append(f"watch {resource_version}")
        self.timeouts.append(timeout_seconds)
        await trio.sleep(0.01)
        if self.watch_errors:
            raise self.watch_errors.pop(0)
        if int(resource_version) < self.compacted:
            raise GONE
        stream = Stream(self, sum(event.version <= int(resource_version) for event in self.history[: self.delivered]))
        self.watches.append(stream)
        if self.ending:
            stream.ended, stream.error = True, self.ending[0]
        try:
            yield stream
        finally:
            self.watches.remove(stream)


class Stream:
    """One open watch."""

    def __init__(self, api: FakeApi, first: int) -> None:
        self.api = api
        self.first = self.position = first
        self.bookmarks = 0
        self.ended = False
        self.error: KubeError | None = None
        self._woken = trio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def __aiter__(self) -> AsyncIterator[tuple[Event, bytes]]:
        while True:
            self._woken = trio.Event()
            if self.ended:
                if self.error:
                    raise self.error
                return
            if self.api.deaf:
                await self._woken.wait()
            elif self.position < (len(self.api.history) if self.api.behind is None else self.api.behind):
                event = self.api.history[self.position]
                if str(event.version) == self.api.poison:
                    raise KubeError(0, "InvalidAnswer", "the event cannot be understood")
                self.position += 1
                self.api.delivered = max(self.api.delivered, self.position)
                yield event, b"{}"
            elif self.bookmarks:
                self.bookmarks -= 1
                meta = ObjectMeta(resourceVersion=str(self.api.version))
                yield Event("BOOKMARK", PersistentVolumeClaim(metadata=meta), self.api.version), b"{}"
            else:
                await self._woken.wait()
