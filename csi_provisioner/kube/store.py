"""What the cluster holds of one kind, as the watch shows it: one writer (a reflector), many readers.

Two layers. Below: exactly what the watch has shown, nothing else, so that the store always converges to the server.
Above: the server's answers to our own writes (`remember`) that are newer than anything the watch has shown; each is
given up as soon as the watch has passed its version. Versions are compared as numbers (the API promises it for every
type of its own and of CRDs); one that is not a number is never taken for newer. What the watch shows is measured by
the object's own version and UID, never by a bookmark: a server that lags behind the one before still sends what is
older. Spec: process.md 5.3, provision.md Q13.

Of what nothing is to be done for (`settled`) the lower layer keeps a record of a few bytes instead (`cold`). `get`
answers None for such a one: who takes that for "gone" asks `knows`.

Nothing here waits or talks to the cluster. Objects are shared: readers must not change them.
"""

from collections import ChainMap
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, Generic, Literal, TypeVar

from lightkube.core.resource import Resource

from csi_provisioner.kube.cold import Keys, Records, Settled
from csi_provisioner.kube.errors import Troubles
from csi_provisioner.kube.outline import Outline
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import ObjectMeta
from csi_provisioner.model.kubernetes import key as key_of

T = TypeVar("T", bound=Resource)
R = TypeVar("R")

# Deleted objects whose events may come once more, from a server that lags: more than are deleted in any such lag
GRAVES = 1000
# Above any version
NEVER = 10**20

Change = tuple[str, T | None, T | None]
Fresh = dict[str, T | bytes | None]
"""A list being read: objects, records, and names of which no more is kept."""

Handler = Callable[[str, T | None, T | None], None]
"""Called by the writer with (key, old, new) after the store has changed; must not wait. One that fails is logged, and
told of the object again at the next resync.

`old` and `new` are what the watch showed: nothing before an object appears or becomes of interest, nothing after it
is deleted or is projected away (`key in store` tells the two apart). An object that was re-created under its name is
told as deleted first. On a resync `old is new`. Handlers are for waking work, which then reads the store by key.

That an object is kept as a record from now on is not told. Of one that was, `old` is a sketch; if it is deleted, the
object of the event, and a sketch where only a list tells. What the first list has, and nobody waits for, is not told.
"""


def version_number(version: str) -> int:
    """The version as a number; -1 for one that cannot be ordered. The API's have 20 digits at most."""
    return int(version) if version.isdecimal() and version.isascii() and len(version) <= 20 else -1


class Store(Generic[T]):
    """`project` returns an object's small form, perhaps the object itself, changed in place. With None only its key is
    kept (objects of other drivers), and not even that unless `named`. `shared`: a text that several may have."""

    def __init__(
        self,
        *,
        project: Callable[[T], T | None] | None = None,
        index: Literal["uid"] | None = None,
        settled: Settled[T] | None = None,
        shared: Callable[[T], str | None] | None = None,
        named: bool = True,
    ) -> None:
        self._project = project
        self._shared = shared
        self._sharing = Keys()
        self._named = named
        self._shown: dict[str, T] = {}
        self._cold = Records[T](settled)
        self.warm: dict[str, None] = {}  # keys of those to be looked at, and of those that were held when they were
        self._foreign: dict[str, int | None] = {}  # the version, if the watch has shown one since the list
        self._own_writes: dict[str, T] = {}  # what the server answered, until the watch shows it
        self._uids: dict[str, str] | None = {} if index == "uid" else None
        self._handlers: list[Handler[T]] = []
        self._horizon = -1  # every change up to this version has been shown, or so the server says
        self._listed = -1  # the version of the last list, which holds every change before it
        self._gone: dict[str, None] = {}  # UIDs of objects deleted since the list, oldest first
        self._troubles = Troubles(set())

    # ---- readers

    def get(self, key: str) -> T | None:
        # What is above is always newer: the watch takes it away when it comes by.
        return self._own_writes.get(key) or self._shown.get(key)

    def by_uid(self, uid: str) -> T | None:
        """Only with index="uid". Finds objects that the watch has shown, in their newest form."""
        if self._uids is None:
            raise LookupError("this store keeps no index by uid")
        found = self.get(self._uids.get(uid, ""))
        return found if found is not None and _meta(found).uid == uid else None

    def knows(self, key: str, uid: str) -> bool:
        """Is this very object there, maybe as a record?"""
        found = self.get(key) or self._cold.sketch(key)
        return found is not None and _meta(found).uid == uid

    def is_foreign(self, key: str) -> bool:
        """Is there an object of which only the name is kept, since `project` has no use for it?"""
        return key in self._foreign

    def has(self, uid: str) -> bool:
        """As `knows`, for who has no key: walks the records."""
        return self.by_uid(uid) is not None or self._cold.has(uid)

    def sharing(self, text: str) -> list[T]:
        """The objects of this `shared` text that the watch has shown, sketches among them."""
        found = (self._shown.get(key) or self._cold.sketch(key) for key in self._sharing.of(text))
        return [obj for obj in found if obj is not None and self._text(key_of(obj), obj) == text]

    def notes(self) -> Iterator[bytes]:
        """Those of all that are records."""
        return self._cold.notes()

    def values(self) -> list[T]:
        """The objects of this moment that are no records: the list is the caller's and may be walked across waits."""
        return list((self._shown | self._own_writes if self._own_writes else self._shown).values())

    def __len__(self) -> int:
        new = sum(key not in self._shown and key not in self._cold for key in self._own_writes)
        return len(self._shown) + len(self._cold) + new

    def __contains__(self, key: object) -> bool:
        return key in self._shown or key in self._cold or key in self._foreign or key in self._own_writes

    def subscribe(self, handler: Handler[T]) -> None:
        """From now on; what is already here is not told again."""
        self._handlers.append(handler)

    def remember(self, obj: T) -> None:
        """Takes the server's answer to a write of ours, so that nobody works on what we know to be stale.

        Ignored unless newer than all that the watch has shown: an object missing at a version the watch has passed is
        deleted, not late. Handlers are not called: the writer knows, and the watch brings the same object soon.
        """
        name, version = key_of(obj), _version(obj)
        known = self._own_writes.get(name)
        if version <= self._horizon or (known is not None and version <= _version(known)):
            return
        kept = self._kept(name, obj)
        if kept is not None:
            self._own_writes[name] = kept

    # ---- the writer

    def put(self, obj: T) -> None:
        """The watch shows an object that is new or changed."""
        name, meta = key_of(obj), _meta(obj)
        version = version_number(meta.resourceVersion)
        if self._is_old(name, meta.uid, version):
            return
        self._horizon = max(self._horizon, version)
        own = self._own_writes.get(name)
        if own is not None and _version(own) <= version:
            del self._own_writes[name]
        old, new = self._show(name, self._kept(name, obj), version)
        if old is not new:
            self.tell([(name, old, new)])
            self.cool([name])

    def drop(self, obj: T) -> None:
        """The watch shows that an object is gone; final for its uid, whatever version the event carries."""
        name, meta = key_of(obj), _meta(obj)
        version = version_number(meta.resourceVersion)
        own, shown = self._own_writes.get(name), self._shown.get(name) or self._cold.sketch(name)
        if own is not None and (_meta(own).uid == meta.uid or _version(own) <= version):
            del self._own_writes[name]
        if shown is None or _meta(shown).uid != meta.uid:
            taken = shown is not None and version <= _version(shown)
            if taken or self._is_old(name, meta.uid, version):
                return  # the name has been taken again since
        self._horizon = max(self._horizon, version)
        if meta.uid:
            self._gone[meta.uid] = None
        if len(self._gone) > GRAVES:
            del self._gone[next(iter(self._gone))]
        self._foreign.pop(name, None)
        record = name in self._cold
        old = self._hide(name)
        # The event has the whole object, of which the record says little.
        self._tell(name, obj if record and old is not None and _meta(old).uid == meta.uid else old, None)

    def reached(self, version: str) -> None:
        """A bookmark: the server says that everything up to this version has been shown.

        Of an object that the watch has at an older version this need not be true: a server that lags says it too
        early. So own writes to such objects stay.
        """
        self._horizon = max(self._horizon, version_number(version))
        self._forget_passed(but=ChainMap[str, Any](self._shown, self._cold))

    @property
    def seen(self) -> int:
        """The version that all of this is of; -1 while the cluster may be another one."""
        return -1 if self._horizon == NEVER else self._horizon

    def doubt(self) -> None:
        """The cluster was restored: what we wrote is of its lost future, whatever the watch has shown of that."""
        self._horizon = NEVER

    def admit(self, obj: T, fresh: Fresh[T]) -> None:
        """Adds one object of a list being read to `fresh`, at once in the small form in which it will be kept."""
        kept = self._kept(name := key_of(obj), obj)
        if kept is not None:
            record = self._record(name, kept)
            # A change is told with the whole object.
            as_before = self._listed < 0 or self._cold.get(name) == record
            fresh[name] = record if record is not None and as_before and not self._is_held(name, kept) else kept
            # Not for all at once in `replace`. Who asks compares: an entry may come before its object.
            if self._listed < 0:
                self._index(name, kept)
        elif self._named:
            fresh[name] = None

    def pass_over(self, others: Iterable[Outline], fresh: Fresh[T]) -> None:
        """Objects of a list being read for which `project` would answer None."""
        if self._named:
            fresh.update(dict.fromkeys(map(key_of, others)))

    def keep(self, key: str, fresh: Fresh[T]) -> None:
        """One of the list that cannot be read: it stays as it was shown, else only its key is known."""
        fresh[key] = self._shown.get(key) or self._cold.get(key)

    def replace(self, fresh: Fresh[T], version: str) -> list[Change[T]]:
        """A whole list at `version` takes the place of everything. The difference is to be passed to `tell`.

        An object at the version already shown stays the same object. The horizon may go back: a cluster restored from a
        backup starts again at an older version, and what we remembered of its lost future goes. What was done in that
        is to be done again: the difference is all that is there.
        """
        reached, doubted = version_number(version), self._horizon == NEVER
        changes: list[Change[T]] = []
        if reached < self._horizon:
            there = ChainMap[str, Any](fresh, self._shown, self._cold)
            changes += [(name, obj, None) for name, obj in self._own_writes.items() if name not in there]
            self._own_writes = {}
        self._horizon = self._listed = reached
        self._gone, self._foreign = {}, {}
        self._forget_passed()
        for name in [name for names in (self._shown, self._cold) for name in names if name not in fresh]:
            changes.append((name, self._hide(name), None))
        known = bool(self._shown or self._cold)  # the loop changes both
        for name, obj in fresh.items():
            if obj is None and self._named and not known:  # most of a first list
                self._foreign[name] = None
            elif not isinstance(obj, bytes) or self._cold.get(name) != obj:  # else most of a later one
                old, new = self._show(name, obj)
                if old is not new or doubted:
                    changes.append((name, old, new))
        return changes

    def tell(self, changes: Iterable[Change[T]]) -> None:
        """Handlers hear of what has changed. All of that is in place: who hears of one object may read any other. What
        all of them have taken is `warm`, and stays whole until `cool`."""
        for name, old, new in changes:
            self._tell(name, old, new)

    def replay(self, key: str) -> None:
        """Calls the handlers for one object as if it had just been shown (resync)."""
        self.tell([(key, obj := self._shown.get(key), obj)])
        self.cool([key])

    def cool(self, keys: Iterable[str]) -> None:
        """Only a record is kept of each `warm` one for which nothing is to be done, unless somebody holds it."""
        for key in keys:
            obj = self._shown.get(key) if key in self.warm else None
            record = None if obj is None else self._record(key, obj)
            if obj is None or record is None:
                self.warm.pop(key, None)
            elif not self._is_held(key, obj):
                self._taken_out(key)
                self._cold[key] = record

    def shown_keys(self) -> list[str]:
        return list(self._shown)

    def guarded(self, function: Callable[..., R], failed: R, key: str, *arguments: object) -> R:
        """Calls a function that somebody handed in. A defect in it is logged and ends nothing else; then the result is
        `failed`."""
        try:
            return function(*arguments)
        except Exception as error:
            # A defect must not fill the log: it may come with each event of a large cluster.
            if self._troubles.is_news(repr(function), type(error).__name__):
                log.exception("Unexpected error, the object is told again at the next resync", object=key)
            else:
                log.v(3, "Unexpected error again", object=key, err=repr(error))
            return failed

    # ---- the two layers

    def _kept(self, name: str, obj: T) -> T | None:
        """The small form of the object, or the object itself if `project` fails."""
        whole: T | None = obj
        return whole if self._project is None else self.guarded(self._project, whole, name, obj)

    def _is_old(self, name: str, uid: str, version: int) -> bool:
        """Shown before, by a list or by the watch itself: a repeat must not take us back."""
        if uid in self._gone or (self._listed >= 0 and version <= self._listed):
            return True
        if (shown := self._shown.get(name)) is not None:
            known: int | None = _version(shown)
        else:
            known = self._cold.version(name) if name in self._cold else self._foreign.get(name)
        return known is not None and 0 <= version < known

    def _show(self, name: str, new: T | bytes | None, version: int | None = None) -> tuple[T | None, T | None]:
        """Changes the lower layer; returns what was there and what is there now, twice the same if nobody is told."""
        if new is None:
            old = self._hide(name)
            # An older state of one that was ours may come yet, from a server that lags.
            if self._named or old is not None:
                self._foreign[name] = version
            return old, None
        if isinstance(new, bytes):  # `admit` has indexed it, in this list or an earlier one
            self._taken_out(name)
            self._cold[name] = new
            return None, None
        self._foreign.pop(name, None)
        old = self._shown.get(name) or (self._cold.sketch(name) if name in self._cold else None)
        if old is not None:
            was, now = _meta(old), _meta(new)
            if (was.uid, was.resourceVersion) == (now.uid, now.resourceVersion):
                return old, old
            self._hide(name, old)
        self._shown[name] = new
        self._index(name, new)
        if self._uids is not None:
            self._uids[_meta(new).uid] = name
        return old, new

    def _hide(self, name: str, known: T | None = None) -> T | None:
        old = self._taken_out(name) or known or self._cold.sketch(name)
        self._cold.pop(name, None)
        if old is not None and (text := self._text(name, old)):
            self._sharing.remove(text, name)
        return old

    def _taken_out(self, name: str) -> T | None:
        old = self._shown.pop(name, None)
        if old is not None and self._uids is not None:
            self._uids.pop(_meta(old).uid, None)
        self.warm.pop(name, None)
        return old

    # ---- records

    def _record(self, name: str, obj: T) -> bytes | None:
        return self.guarded(self._cold.record, None, name, obj)

    def _is_held(self, name: str, obj: T) -> bool:
        return name in self._own_writes or self.guarded(self._cold.is_held, True, name, name, _meta(obj).uid)

    def _index(self, name: str, obj: T) -> None:
        if text := self._text(name, obj):
            self._sharing.add(text, name)

    def _text(self, name: str, obj: T) -> str | None:
        return None if self._shared is None else self.guarded(self._shared, None, name, obj)

    def _forget_passed(self, *, but: Container[str] = ()) -> None:
        """Own writes that the watch has passed."""
        for name, obj in list(self._own_writes.items()):
            if name not in but and _version(obj) <= self._horizon:
                del self._own_writes[name]

    def _tell(self, name: str, old: T | None, new: T | None) -> None:
        """What not all handlers have taken is told again at the next resync, and stays whole until then."""
        if old is None and new is None:
            return
        # In two steps, so that nobody takes the one object for the other.
        recreated = old is not None and new is not None and _meta(old).uid != _meta(new).uid
        all_took_it = True
        for handler in self._handlers:
            call: Callable[..., Any] = handler
            for was, now in ((old, None), (None, new)) if recreated else ((old, new),):
                all_took_it &= self.guarded(call, False, name, name, was, now) is not False
        self.warm.pop(name, None)
        if all_took_it and new is not None:
            self.warm[name] = None


def _meta(obj: Any) -> ObjectMeta:
    meta: ObjectMeta = obj.metadata
    return meta


def _version(obj: Any) -> int:
    return version_number(_meta(obj).resourceVersion)
