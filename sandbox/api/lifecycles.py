"""Objects that rule over others: definitions that add kinds, namespaces that take their contents with them.

Both follow the storage at once, in the writer's turn: a kind is served as soon as its definition is stored, and a
namespace is gone as soon as nothing is left in it.
"""

from collections.abc import Callable
from typing import Any, Protocol

from sandbox.api import kinds
from sandbox.api.errors import Object
from sandbox.api.kinds import Kind, Registry
from sandbox.api.storage import Change, Storage


class Ruled(Protocol):
    """What is asked of `objects.Objects`, which ties itself to this module."""

    storage: Storage
    kinds: Registry

    def find(self, kind: Kind | str, name: str, namespace: str = "") -> Object | None: ...
    def all(self, kind: Kind | str) -> list[Object]: ...
    def edit(self, kind: Kind | str, name: str, namespace: str = "", *, change: Callable[[Object], None]) -> Object: ...
    def delete(self, kind: Kind | str, name: str, namespace: str = "") -> Any: ...


def follow(objects: Ruled) -> None:
    """Tie definitions and namespaces of `objects` to what they rule over."""
    emptying: set[str] = set()  # deleting what is in a namespace is heard here again, once an object

    def note(kind: Kind, change: Change) -> None:
        namespace = ""
        if kind.name == "CustomResourceDefinition":
            _define(objects, change)
        elif kind.name == "Namespace":
            namespace = change.now.key[1]
        elif kind.namespaced and change.deleted:
            namespace = change.now.key[0]
        if namespace and namespace not in emptying:
            emptying.add(namespace)
            _empty(objects, namespace)
            emptying.remove(namespace)

    objects.storage.listen(note)


def _define(objects: Ruled, change: Change) -> None:
    kind = kinds.custom(change.now.obj)
    if not change.deleted:
        objects.kinds.add(kind)
        return
    for obj in objects.all(kind):
        meta = obj["metadata"]
        objects.delete(kind, meta["name"], meta.get("namespace", ""))
    # Last: its objects could not be deleted once the kind is unknown.
    objects.kinds.remove(kind)


def _empty(objects: Ruled, name: str) -> None:
    """Delete what is in a namespace that is being deleted; let it go when it is empty."""
    namespace = objects.find("Namespace", name)
    if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
        return
    left = False
    for kind in objects.kinds:
        for obj in objects.all(kind) if kind.namespaced else ():
            if obj["metadata"]["namespace"] == name:
                # One with finalizers stays for now, and its own end is heard here again.
                left = not objects.delete(kind, obj["metadata"]["name"], name).gone or left
    if not left:
        objects.edit("Namespace", name, change=lambda obj: obj["spec"].update(finalizers=[]))
