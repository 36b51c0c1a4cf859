"""Versions of objects of any kind, as etcd and the watch cache keep them: one counter, a bounded history, nothing else.

Kept here: the present objects in key order, every change since the last compaction, and the places where watchers wait.
Objects are never changed once stored; each is encoded once and its bytes are shared by all readers. What a write means
(conflicts, finalizers, defaults) is decided in `objects`.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import trio

from sandbox.api.errors import Object, expired, from_the_future
from sandbox.api.kinds import Kind

Key = tuple[str, str]  # namespace ("" for cluster scoped kinds) and name: sorts as etcd does

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Version:
    """One object at one resource version, with its bytes. `obj` is shared: read it, never change it."""

    __slots__ = ("_tail", "key", "number", "obj")

    def __init__(self, key: Key, number: int, obj: Object) -> None:
        self.key = key
        self.number = number
        self.obj = obj
        # what follows kind and apiVersion, which depend on the version that is asked for and are missing in lists
        self._tail = _encode({name: value for name, value in obj.items() if name not in ("kind", "apiVersion")})[1:]

    def body(self, kind: Kind, version: str) -> bytes:
        # Bytes are joined rather than encoded again: one version may be sent to a hundred watches.
        return kind.heads[version] + self._tail

    def item(self, kind: Kind, version: str) -> bytes:
        """As an entry of a list: items of built-in kinds do not repeat kind and apiVersion."""
        return self.body(kind, version) if kind.custom else b"{" + self._tail

    def copy(self) -> Object:
        """A copy that the caller may change."""
        # Decoding is several times as fast as `deepcopy`.
        fresh: Object = _decode(b"{" + self._tail)
        return {"kind": self.obj["kind"], "apiVersion": self.obj["apiVersion"], **fresh}


class Change(NamedTuple):
    """One entry of the history. For a deletion `now` is the last state under the version of the deletion."""

    number: int
    before: Version | None
    now: Version
    deleted: bool = False


class Collection:
    """All objects of one kind and their recent changes."""

    def __init__(self, history: int) -> None:
        self.objects: dict[Key, Version] = {}
        self.keys: list[Key] = []
        self.history: deque[Change] = deque()
        self.forgotten = 0  # how many changes have left the history: places in it are counted from the first one ever
        self.compacted = 0  # changes up to this resource version are gone
        self.waiting = trio.lowlevel.ParkingLot()
        self._limit = history
        self._replica: int | None = None

    @property
    def end(self) -> int:
        """The place in the history that the next change will take."""
        return self.forgotten + len(self.history)

    @property
    def shown(self) -> int:
        """The place that watches have come to: the end, or where a replica that lags stands still."""
        return self.end if self._replica is None else self._replica

    def lag(self) -> None:
        self._replica = self.end

    def catch_up(self) -> None:
        self._replica = None
        self.waiting.unpark_all()

    def place_after(self, number: int) -> int:
        """The place of the first change after resource version `number`; 410 if it may be gone."""
        # A watch from before would miss changes that are gone without knowing it.
        if number < self.compacted:
            raise expired(f"too old resource version: {number} ({self.compacted})")
        return self.forgotten + bisect_left(self.history, number + 1, key=lambda change: change.number)

    def since(self, place: int) -> list[Change] | None:
        """The changes from `place` on; None if some of them are gone already."""
        if place < self.forgotten:
            return None
        if place == self.end:
            return []
        return [self.history[index] for index in range(place - self.forgotten, len(self.history))]

    def record(self, change: Change) -> None:
        key = change.now.key
        if change.deleted:
            del self.objects[key]
            # The keys are kept sorted, because lists and their pages go by them.
            del self.keys[bisect_left(self.keys, key)]
        else:
            if change.before is None:
                insort(self.keys, key)
            self.objects[key] = change.now
        self.history.append(change)
        if len(self.history) > self._limit:
            self._forget()
        self.waiting.unpark_all()

    def compact(self, number: int) -> None:
        while self.history and self.history[0].number <= number:
            self._forget()
        self.compacted = max(self.compacted, number)

    def _forget(self) -> None:
        self.compacted = self.history.popleft().number
        self.forgotten += 1

    def at(self, number: int) -> tuple[list[Key], dict[Key, Version]]:
        """The collection as it was at resource version `number`: the present one with later changes undone."""
        later = self.since(self.place_after(number)) or []
        if not later:
            return self.keys, self.objects
        # Only a paged list that was overtaken by writes pays for a copy.
        objects = dict(self.objects)
        for change in reversed(later):
            if change.before is None:
                objects.pop(change.now.key, None)
            else:
                objects[change.now.key] = change.before
        return sorted(objects), objects


class Storage:
    """The collections under one counter. `history` bounds the changes kept per kind, and with it how long a watcher or
    a paged list may lag: 5000 is some seconds of the busiest benchmark."""

    def __init__(self, *, history: int = 5000) -> None:
        self.number = 1
        self._compacted = 0
        self._history = history
        self._collections: dict[tuple[str, str], Collection] = {}
        self._listeners: list[Callable[[Kind, Change], None]] = []

    def of(self, kind: Kind) -> Collection:
        where = (kind.group, kind.plural)
        collection = self._collections.get(where)
        if collection is None:
            collection = self._collections[where] = Collection(self._history)
            # A kind that is first used now must not promise a history from before the compaction.
            collection.compact(self._compacted)
        return collection

    def get(self, kind: Kind, key: Key) -> Version | None:
        return self.of(kind).objects.get(key)

    def write(self, kind: Kind, key: Key, obj: Object) -> Version:
        """Store `obj` (now the storage's) under the next version."""
        return self._record(kind, key, obj, deleted=False)

    def remove(self, kind: Kind, key: Key, last: Object) -> Version:
        return self._record(kind, key, last, deleted=True)

    def _record(self, kind: Kind, key: Key, obj: Object, *, deleted: bool) -> Version:
        # One counter for all kinds, as in etcd: versions of different kinds can be compared.
        self.number += 1
        obj["metadata"]["resourceVersion"] = str(self.number)
        now = Version(key, self.number, obj)
        change = Change(self.number, self.get(kind, key), now, deleted)
        self.of(kind).record(change)
        for listener in self._listeners:
            listener(kind, change)
        return now

    def listen(self, listener: Callable[[Kind, Change], None]) -> Callable[[], None]:
        """Call `listener` after every change, in the writer's turn; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def compact(self) -> None:
        """Forget all history: watches and paged lists from before answer 410."""
        self._compacted = self.number
        for collection in self._collections.values():
            collection.compact(self.number)

    def check_seen(self, number: int) -> None:
        if number > self.number:
            raise from_the_future(number, self.number)
