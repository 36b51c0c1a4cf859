"""Objects that rule over others: definitions that add kinds, namespaces that take their contents with them.

Both follow the storage at once, in the writer's turn: a kind is served as soon as its definition is stored, and a
namespace is gone as soon as nothing is left in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_provisioner.sandbox.api import kinds
from csi_provisioner.sandbox.api.kinds import Kind
from csi_provisioner.sandbox.api.storage import Change

if TYPE_CHECKING:  # `objects` ties itself to this module
    from csi_provisioner.sandbox.api.objects import Objects


def follow(objects: Objects) -> None:
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


def _define(objects: Objects, change: Change) -> None:
    kind = kinds.custom(change.now.obj)
    if not change.deleted:
        objects.kinds.add(kind)
        return
    for obj in objects.all(kind):
        meta = obj["metadata"]
        objects.delete(kind, meta["name"], meta.get("namespace", ""))
    objects.kinds.remove(kind)


def _empty(objects: Objects, name: str) -> None:
    """Delete what is in a namespace that is being deleted; let it go when it is empty."""
    namespace = objects.find("Namespace", name)
    if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
        return
    left = False
    for kind in objects.kinds:
        for obj in objects.all(kind) if kind.namespaced else ():
            if obj["metadata"]["namespace"] == name:
                left = not objects.delete(kind, obj["metadata"]["name"], name).gone or left
    if not left:
        objects.edit("Namespace", name, change=lambda obj: obj["spec"].update(finalizers=[]))
