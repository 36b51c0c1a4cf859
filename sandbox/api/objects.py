"""The verbs on objects: what create, replace, patch, edit and delete mean, below any transport.

Decided here: optimistic locking, generated names, what the server owns in metadata, the status subresource, deletion
that waits for finalizers, paging. The HTTP side, the binder and tests all write through this one door. Every method
is synchronous: a request takes effect at once or not at all.
"""

import base64
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec
import trio

from sandbox.api import errors, kinds, lifecycles, metadata, validation
from sandbox.api.errors import Cause, Object
from sandbox.api.kinds import Kind
from sandbox.api.selectors import Predicate
from sandbox.api.storage import Key, Storage, Version

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, so that no suffix spells a word
_GENERATE_TRIES = 8


class Deleted(NamedTuple):
    """What a deletion did: the object as it is now, and whether it is gone or waits for its finalizers."""

    version: Version
    gone: bool


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. `number` is the version of the whole list, the same on every page."""

    items: list[Version]
    number: int
    continue_token: str
    remaining: int


class Objects:
    """All objects of the sandbox. `seed` makes uids and generated names repeatable; `epoch` is the time of day at which
    its clock starts (the clock itself is Trio's, so virtual time shows in timestamps)."""

    def __init__(
        self,
        storage: Storage | None = None,
        registry: kinds.Registry | None = None,
        *,
        seed: int | None = None,
        epoch: datetime | None = None,
    ) -> None:
        self.storage = storage or Storage()
        self.kinds = registry or kinds.registry()
        self._random = random.Random(seed)
        self._epoch = epoch or datetime.now(UTC)
        self._started: float | None = None
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            self.create("Namespace", {"metadata": {"name": name}})
        lifecycles.follow(self)

    def now(self) -> str:
        """The time as Kubernetes writes it."""
        if not trio.lowlevel.in_trio_run():
            return self._epoch.strftime("%Y-%m-%dT%H:%M:%SZ")
        time = trio.current_time()
        if self._started is None:
            self._started = time
        return (self._epoch + timedelta(seconds=time - self._started)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def kind(self, kind: Kind | str) -> Kind:
        return self.kinds.named(kind) if isinstance(kind, str) else kind

    def lag(self, kind: Kind | str) -> None:
        """Watches are served by a replica that stands still from now on, though its bookmarks do not know it. What it
        has not shown still comes after `catch_up`, also to a watch that begins at such a bookmark before."""
        self.storage.of(self.kind(kind)).lag()

    def catch_up(self, kind: Kind | str) -> None:
        self.storage.of(self.kind(kind)).catch_up()

    # reading

    def find(self, kind: Kind | str, name: str, namespace: str = "") -> Object | None:
        """The object, or None. It is the stored one: read it, never change it."""
        version = self.storage.get(self.kind(kind), (namespace, name))
        return version.obj if version else None

    def all(self, kind: Kind | str) -> list[Object]:
        """Every object of a kind in key order, stored ones as from `find`."""
        collection = self.storage.of(self.kind(kind))
        return [collection.objects[key].obj for key in collection.keys]

    def get(self, kind: Kind, key: Key) -> Version:
        version = self.storage.get(kind, key)
        if version is None:
            raise errors.not_found(kind.plural, kind.group, key[1])
        return version

    def page(
        self,
        kind: Kind,
        namespace: str,
        *,
        limit: int = 0,
        continue_token: str = "",
        at: int | None = None,
        chosen: Predicate | None = None,
    ) -> Page:
        """A page of the list, as it was when its first page was read (or at version `at`)."""
        collection = self.storage.of(kind)
        number, start = (at or self.storage.number), None
        if continue_token:
            number, start = _read_token(continue_token)
        try:
            order, objects = collection.at(number)
        except errors.ApiError as problem:
            if continue_token:
                # The client knows no number, only its token; the message has to speak of that.
                problem.message = "The provided continue parameter is too old to display a consistent list result."
            raise
        items: list[Version] = []
        for index, key in enumerate(order):
            # Keys are sorted, so the token's key says where the page before has ended.
            if (namespace and key[0] != namespace) or (start is not None and key <= start):
                continue
            version = objects[key]
            if chosen is not None and not chosen(version.obj):
                continue
            if limit and len(items) == limit:
                rest = sum(1 for key in order[index:] if not namespace or key[0] == namespace)
                return Page(items, number, _token(number, items[-1].key), rest)
            items.append(version)
        return Page(items, number, "", 0)

    # writing

    def create(self, kind: Kind | str, obj: Object, namespace: str = "", *, dry_run: bool = False) -> Version:
        """Store a new object; `obj` becomes the server's."""
        kind = self.kind(kind)
        meta = self._take(kind, obj, namespace)
        name = meta.get("name") or self._generate(kind, meta)
        key = (meta.get("namespace", ""), name)
        meta["name"] = name
        if self.storage.get(kind, key) is not None:
            raise errors.already_exists(kind.plural, kind.group, name)
        if meta.get("resourceVersion"):
            # an internal error in a real API server too, and one without a reason
            raise errors.ApiError(500, "", "resourceVersion should not be set on objects to be created")
        # What only the server may say is dropped from a client's object without a word, as there.
        for owned in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields", "generation"):
            meta.pop(owned, None)
        # From the seeded source, so that a test's objects have the same ids in every run.
        meta["uid"] = str(UUID(int=self._random.getrandbits(128), version=4))
        meta["creationTimestamp"] = self.now()
        if kind.generation:
            meta["generation"] = 1
        if kind.status:
            obj.pop("status", None)
        if kind.name == "PersistentVolumeClaim":
            self._default_storage_class(obj)
        validation.default(kind.name, obj)
        self._check(kind, obj, None)
        if dry_run:
            return Version(key, self.storage.number, obj)
        return self.storage.write(kind, key, obj)

    def replace(self, kind: Kind, key: Key, obj: Object, *, status: bool = False, dry_run: bool = False) -> Version:
        """Put `obj` in the place of the stored object (or only its status), under the resource version it names."""
        old = self.get(kind, key)
        meta = self._take(kind, obj, key[0])
        if meta.get("name", key[1]) != key[1]:
            raise errors.bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({key[1]})"
            )
        # An update without a version would overwrite whatever others have written; few kinds allow it.
        if not meta.get("resourceVersion") and not kind.unconditional:
            cause = Cause("metadata.resourceVersion", "Invalid value: 0: must be specified for an update")
            raise errors.invalid(kind.name, kind.group, key[1], [cause])
        return self._update(kind, old, obj, status=status, dry_run=dry_run)

    def patch(
        self, kind: Kind, key: Key, change: Callable[[Object], Object], *, status: bool = False, dry_run: bool = False
    ) -> Version:
        """Store what `change` makes of a copy of the object."""
        old = self.get(kind, key)
        obj = change(old.copy())
        if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
            raise errors.bad_request("the patch leaves no object")
        self._take(kind, obj, key[0])
        if obj["metadata"].get("name") != key[1]:
            raise errors.bad_request("metadata.name may not be patched")
        # A patch that carries the uid guards against an object that was deleted and made anew.
        if obj["metadata"].get("uid") not in (None, old.obj["metadata"]["uid"]):
            cause = Cause("metadata.uid", f'Invalid value: "{obj["metadata"]["uid"]}": field is immutable')
            raise errors.invalid(kind.name, kind.group, key[1], [cause])
        return self._update(kind, old, obj, status=status, dry_run=dry_run)

    def edit(
        self,
        kind: Kind | str,
        name: str,
        namespace: str = "",
        *,
        change: Callable[[Object], None],
        status: bool = False,
    ) -> Object:
        """For tests and the binder: change the object in place, by a function on a copy; never a conflict."""

        def apply(obj: Object) -> Object:
            change(obj)
            return obj

        return self.patch(self.kind(kind), (namespace, name), apply, status=status).obj

    def delete(
        self,
        kind: Kind | str,
        name: str,
        namespace: str = "",
        *,
        preconditions: Object | None = None,
        dry_run: bool = False,
    ) -> Deleted:
        """Remove the object, or mark it as being deleted while it has finalizers."""
        kind = self.kind(kind)
        old = self.get(kind, (namespace, name))
        for field, wanted in (preconditions or {}).items():
            there = old.obj["metadata"].get(field)
            if wanted and wanted != there:
                why = f"Precondition failed: {field} in precondition: {wanted}, in object meta: {there}"
                raise errors.conflict(kind.plural, kind.group, name, why)
        if not _finalizers(kind, old.obj):
            return Deleted(old if dry_run else self.storage.remove(kind, old.key, old.copy()), True)
        if old.obj["metadata"].get("deletionTimestamp") or dry_run:
            return Deleted(old, False)
        obj = old.copy()
        obj["metadata"]["deletionTimestamp"] = self.now()
        obj["metadata"]["deletionGracePeriodSeconds"] = 0
        if kind.generation:
            # The wish has changed (it is to go), so controllers see a new generation.
            obj["metadata"]["generation"] = obj["metadata"].get("generation", 1) + 1
        if kind.name == "Namespace":
            obj["status"] = {"phase": "Terminating"}
        return Deleted(self.storage.write(kind, old.key, obj), False)

    def _take(self, kind: Kind, obj: Object, namespace: str) -> Object:
        """Check that a body is an object of this kind and place; returns its metadata, in the server's shape."""
        if not isinstance(obj, dict):
            raise errors.bad_request("the body is not an object")
        for field, expected in (("kind", {kind.name}), ("apiVersion", {kind.api_version(v) for v in kind.versions})):
            if kind.custom and not obj.get(field):
                raise errors.bad_request(f"Object '{field}' is missing")
            if obj.setdefault(field, kind.name if field == "kind" else kind.api_version()) not in expected:
                raise errors.bad_request(
                    f"the {field} in the data ({obj[field]}) does not match the expected ({', '.join(expected)})"
                )
        meta = obj.setdefault("metadata", {})
        if not isinstance(meta, dict):
            raise errors.bad_request("metadata is not an object")
        if not kind.namespaced:
            meta.pop("namespace", None)
        elif meta.setdefault("namespace", namespace) != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        # Empty ones are left out, as Go's encoder does.
        for field in ("labels", "annotations", "finalizers", "ownerReferences", "managedFields"):
            if not meta.get(field, True):
                del meta[field]
        if not kind.custom:
            validation.decode(kind.name, obj)
        return meta

    def _generate(self, kind: Kind, meta: Object) -> str:
        prefix = meta.get("generateName")
        if not prefix:
            cause = Cause("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")
            raise errors.invalid(kind.name, kind.group, "", [cause])
        for _ in range(_GENERATE_TRIES):
            # 63 characters are the limit of many names; five of them are the suffix.
            name = prefix[:58] + "".join(self._random.choices(_SUFFIX_LETTERS, k=5))
            if self.storage.get(kind, (meta.get("namespace", ""), name)) is None:
                break
        return str(name)

    def _default_storage_class(self, claim: Object) -> None:
        spec = claim.get("spec") or {}
        annotations = claim["metadata"].get("annotations") or {}
        if spec.get("storageClassName") is not None or "volume.beta.kubernetes.io/storage-class" in annotations:
            return
        for candidate in self.all("StorageClass"):
            marks = candidate["metadata"].get("annotations") or {}
            if marks.get("storageclass.kubernetes.io/is-default-class") == "true":
                spec["storageClassName"] = candidate["metadata"]["name"]

    def _check(self, kind: Kind, obj: Object, old: Object | None) -> None:
        causes = list(metadata.problems(kind, obj["metadata"]))
        if not causes:
            causes += validation.problems(kind.name, obj, old)
        if causes:
            raise errors.invalid(kind.name, kind.group, obj["metadata"]["name"], causes)
        namespace = obj["metadata"].get("namespace")
        if old is None and namespace is not None:
            home = self.find("Namespace", namespace)
            if home is None:
                raise errors.not_found("namespaces", "", namespace)
            # Otherwise a namespace that is being emptied could be filled faster than that.
            if home["metadata"].get("deletionTimestamp"):
                why = f"unable to create new content in namespace {namespace} because it is being terminated"
                raise errors.forbidden(kind.plural, kind.group, obj["metadata"]["name"], why)

    def _update(self, kind: Kind, old: Version, obj: Object, *, status: bool, dry_run: bool) -> Version:
        meta, before = obj["metadata"], old.obj["metadata"]
        if meta.get("resourceVersion") not in (None, "", before["resourceVersion"]):
            raise errors.conflict(kind.plural, kind.group, before["name"])
        if meta.get("uid") not in (None, "", before["uid"]):
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
            raise errors.conflict(kind.plural, kind.group, before["name"], why)
        if status and not kind.status:
            raise errors.no_such_path()
        obj = self._merge_halves(kind, old.obj, obj, status=status)
        meta = obj["metadata"]
        for owned in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            if owned in before:
                meta[owned] = before[owned]
            else:
                meta.pop(owned, None)
        meta["resourceVersion"] = before["resourceVersion"]
        if kind.name == "Secret":
            validation.default(kind.name, obj)
        self._check(kind, obj, old.obj)
        self._check_no_new_finalizers(kind, obj, old.obj)
        # A write that changes nothing makes no version and wakes no watch.
        if obj == old.obj:
            return old
        if kind.generation and not status and _contents(obj) != _contents(old.obj):
            meta["generation"] = before.get("generation", 1) + 1
        if dry_run:
            return Version(old.key, old.number, obj)
        # The last finalizer has gone: this write is the deletion that was waiting for it.
        if before.get("deletionTimestamp") and not _finalizers(kind, obj):
            return self.storage.remove(kind, old.key, obj)
        return self.storage.write(kind, old.key, obj)

    def _merge_halves(self, kind: Kind, old: Object, obj: Object, *, status: bool) -> Object:
        """The status subresource writes the status only, the object itself everything else."""
        if status:
            if kind.custom:  # those keep even their metadata
                obj["metadata"] = dict(old["metadata"])
            written = {name: obj[name] for name in ("metadata", "status") if name in obj}
            return {name: value for name, value in old.items() if name != "status"} | written
        if kind.status and kind.name != "CustomResourceDefinition":
            obj.pop("status", None)
            if "status" in old:
                obj["status"] = old["status"]
        return obj

    def _check_no_new_finalizers(self, kind: Kind, obj: Object, old: Object) -> None:
        if not old["metadata"].get("deletionTimestamp"):
            return
        known = old["metadata"].get("finalizers") or []
        new = [name for name in obj["metadata"].get("finalizers") or [] if name not in known]
        if new:
            why = (
                f"Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {new}"
            )
            cause = Cause("metadata.finalizers", why, "FieldValueForbidden")
            raise errors.invalid(kind.name, kind.group, obj["metadata"]["name"], [cause])


def _finalizers(kind: Kind, obj: Object) -> list[str]:
    """What holds an object that is to be deleted. Namespaces keep a second list in their spec."""
    held = list(obj["metadata"].get("finalizers") or ())
    if kind.name == "Namespace":
        held += (obj.get("spec") or {}).get("finalizers") or ()
    return held


def _contents(obj: Object) -> Object:
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}


def _token(number: int, last: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([number, *last])).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, Key]:
    try:
        number, namespace, name = msgspec.json.decode(
            base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), type=tuple[int, str, str]
        )
    except (ValueError, msgspec.DecodeError):
        raise errors.bad_request("continue key is not valid") from None
    return number, (namespace, name)
