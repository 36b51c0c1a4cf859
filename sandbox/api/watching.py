"""One watch: the changes after a resource version as a stream of lines, with bookmarks, until its time is up.

A watcher is a place in its collection's history, so the history is its buffer: one that lags more than `LAG` changes is
dropped, as a real API server drops slow watchers, and comes back with the version it last saw.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import trio

from sandbox.api.errors import ApiError
from sandbox.api.faults import Faults
from sandbox.api.http import Connection
from sandbox.api.kinds import Kind
from sandbox.api.requests import Call
from sandbox.api.selectors import Predicate
from sandbox.api.storage import Change, Storage, Version

LAG = 1000  # changes; the watch cache of a real API server buffers 10 to 1000 events for a watcher
_BOOKMARK_PERIOD = 60.0  # seconds, about what a real API server takes
_DEFAULT_TIMEOUT = 3600.0  # seconds; a real API server picks 30 to 60 minutes
_BATCH = 500  # lines in one chunk, so that a burst does not become one huge write


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a collection a watcher wants, and how."""

    kind: Kind
    version: str
    namespace: str = ""
    chosen: Predicate | None = None

    def wants(self, version: Version) -> bool:
        if self.namespace and version.key[0] != self.namespace:
            return False
        return self.chosen is None or self.chosen(version.obj)

    def line(self, type_: str, version: Version) -> bytes:
        return b'{"type":"%s","object":%s}\n' % (type_.encode(), version.body(self.kind, self.version))

    def tell(self, change: Change) -> bytes | None:
        """The line for a change; an object that enters or leaves the selection is told as added or deleted."""
        before = change.before is not None and self.wants(change.before)
        now = not change.deleted and self.wants(change.now)
        if now:
            return self.line("MODIFIED" if before else "ADDED", change.now)
        return self.line("DELETED", change.now) if before else None


class Start(NamedTuple):
    """Where a watch begins: what it tells as present, and its place in the history from there."""

    place: int
    present: list[Version]


class Watch:
    """An open watch, which answers its one request."""

    def __init__(
        self,
        call: Call,
        selection: Selection,
        storage: Storage,
        faults: Faults,
        *,
        since: int | None,
        timeout: float | None,
        bookmarks: bool,
        cut: Callable[[], None],
    ) -> None:
        self.call = call
        self.cut = cut
        self._selection = selection
        self._storage = storage
        self._collection = storage.of(selection.kind)
        self._faults = faults
        self._since = since
        self._timeout = _DEFAULT_TIMEOUT if timeout is None else timeout
        self._bookmarks = bookmarks
        self._flowing = trio.Event()
        self._flowing.set()

    def stall(self) -> None:
        self._flowing = trio.Event()

    def resume(self) -> None:
        self._flowing.set()

    async def __call__(self, client: Connection) -> None:
        self._faults.opened(self)
        start = self._start()  # before the head goes out: whoever has seen the head misses nothing from then on
        try:
            await client.begin(cache_control="no-cache, private")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, client, nursery.cancel_scope)
                await self._stream(start, client.send)
                nursery.cancel_scope.cancel()
        finally:
            self._faults.closed(self)
        await client.end()

    async def _stream(self, start: Start | ApiError, send: Callable[[bytes], Awaitable[None]]) -> None:
        end = trio.current_time() + self._timeout
        if isinstance(start, ApiError):
            await send(_error_line(start))
            return
        place = start.place
        for lines in _batches(self._selection.line("ADDED", version) for version in start.present):
            await send(lines)
        bookmark = trio.current_time() + _BOOKMARK_PERIOD
        while True:
            await self._flowing.wait()
            changes = self._collection.since(place)
            if changes is None or len(changes) > LAG:
                return
            changes = changes[: max(0, self._collection.shown - place)]
            place += len(changes)
            for lines in _batches(line for change in changes if (line := self._selection.tell(change))):
                await send(lines)
            now = trio.current_time()
            if now >= end:
                return
            if place < self._collection.shown:
                continue  # a bookmark promises that everything before it has been told
            if now >= bookmark:
                bookmark = now + _BOOKMARK_PERIOD
                if self._bookmarks:
                    await send(self._bookmark())
            else:
                with trio.move_on_at(min(end, bookmark)):
                    await self._collection.waiting.park()

    def _start(self) -> Start | ApiError:
        if self._since is None:
            present = [version for version in self._collection.objects.values() if self._selection.wants(version)]
            return Start(self._collection.end, present)
        try:
            return Start(min(self._collection.place_after(self._since), self._collection.shown), [])
        except ApiError as problem:  # told in the stream, not as the answer: so does a real API server
            return problem

    def _bookmark(self) -> bytes:
        kind, metadata = self._selection.kind, {"resourceVersion": str(self._storage.number), "creationTimestamp": None}
        obj = {"kind": kind.name, "apiVersion": kind.api_version(self._selection.version), "metadata": metadata}
        return msgspec.json.encode({"type": "BOOKMARK", "object": obj}) + b"\n"


def _error_line(problem: ApiError) -> bytes:
    return msgspec.json.encode({"type": "ERROR", "object": problem.status()}) + b"\n"


def _batches(lines: Iterator[bytes]) -> Iterator[bytes]:
    batch: list[bytes] = []
    for line in lines:
        batch.append(line)
        if len(batch) == _BATCH:
            yield b"".join(batch)
            batch = []
    if batch:
        yield b"".join(batch)


async def _until_gone(client: Connection, scope: trio.CancelScope) -> None:
    await client.gone()
    scope.cancel()
