"""What any object's metadata must look like: names, labels, annotations, finalizers, owners.

Checked here for all kinds alike; the contents of each kind are `validation`'s.
"""

import re
from collections.abc import Iterator

from sandbox.api.errors import Cause, Object
from sandbox.api.kinds import Kind

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NAME_PART = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PATH_SEGMENT = re.compile(r"(?!\.\.?$)[^/%]+")  # what RBAC objects may be called
_ANNOTATIONS_LIMIT = 256 * 1024  # bytes of all keys and values together, the API server's own limit
_PLAIN_FINALIZERS = frozenset({"orphan", "foregroundDeletion", "kubernetes"})

SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character"
)


def is_subdomain(text: str) -> bool:
    return len(text) <= 253 and _DNS_SUBDOMAIN.fullmatch(text) is not None


def is_label_value(text: str) -> bool:
    return len(text) <= 63 and (not text or _NAME_PART.fullmatch(text) is not None)


def is_qualified_name(text: str) -> bool:
    prefix, slash, name = text.rpartition("/")
    return (not slash or is_subdomain(prefix)) and len(name) <= 63 and _NAME_PART.fullmatch(name) is not None


def problems(kind: Kind, metadata: Object) -> Iterator[Cause]:
    """Everything wrong with an object's metadata."""
    yield from _name(kind, metadata["name"])
    for name, value in (metadata.get("labels") or {}).items():
        if not is_qualified_name(name):
            yield Cause("metadata.labels", f'Invalid value: "{name}": name part must be a qualified name')
        if not isinstance(value, str) or not is_label_value(value):
            yield Cause("metadata.labels", f'Invalid value: "{value}": a valid label must be an empty string or consist'
                        " of alphanumeric characters, '-', '_' or '.'")  # fmt: skip
    size = 0
    for name, value in (metadata.get("annotations") or {}).items():
        size += len(name.encode()) + len(str(value).encode())
        if not is_qualified_name(name.lower()):
            yield Cause("metadata.annotations", f'Invalid value: "{name}": name part must be a qualified name')
        if not isinstance(value, str):
            yield Cause("metadata.annotations", f"Invalid value: {value!r}: must be a string")
    if size > _ANNOTATIONS_LIMIT:
        yield Cause("metadata.annotations", f"Too long: may not be more than {_ANNOTATIONS_LIMIT} bytes")
    for finalizer in metadata.get("finalizers") or ():
        if not is_qualified_name(finalizer):
            yield Cause("metadata.finalizers", f'Invalid value: "{finalizer}": name part must be a qualified name')
        elif "/" not in finalizer and finalizer not in _PLAIN_FINALIZERS:
            message = (
                f'Invalid value: "{finalizer}": name is neither a standard finalizer name nor is it fully qualified'
            )
            yield Cause("metadata.finalizers", message)
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                yield Cause(f"metadata.ownerReferences[{index}].{name}", 'Invalid value: "": must not be empty')


def _name(kind: Kind, name: str) -> Iterator[Cause]:
    if kind.group == "rbac.authorization.k8s.io":
        good = _PATH_SEGMENT.fullmatch(name) is not None
    elif kind.name == "Namespace":
        good = len(name) <= 63 and _DNS_LABEL.fullmatch(name) is not None
    else:
        good = is_subdomain(name)
    if not good:
        yield Cause("metadata.name", f'Invalid value: "{name}": {SUBDOMAIN_MESSAGE}')
