"""What the API server answers: decoded, and refused where it is not what was asked for. Pure; a part of `client`.

A proxy, a load balancer or a broken server may send anything under status 200. What cannot be decoded, or is about
another object, is an error of that one request (`InvalidAnswer`), never an empty cluster or a write that succeeded. A
list that cannot be decoded as a whole is decoded item by item: one object must not hide all the others.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from lightkube.core.resource import NamespacedResourceG, Resource, api_info

from csi_provisioner.kube.asking import ALL_NS
from csi_provisioner.kube.errors import UNDECODABLE, KubeError, from_status
from csi_provisioner.kube.outline import Look, Outline
from csi_provisioner.model.kubernetes import ObjectMeta
from csi_provisioner.model.kubernetes import key as key_of

T = TypeVar("T", bound=Resource)
D = TypeVar("D")

# What names, groups and versions are made of, so that none of them can lead to another place in a URL
SEGMENT = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._:-]+")
# Errors name what was done in the API's words, not in those of HTTP
VERBS = {"post": "create", "put": "update"}


class Wanted(NamedTuple):
    """What a request is about. Without a name: a list, or an object that the server names."""

    verb: str
    kind: str
    plural: str
    name: str = ""
    namespace: str | None = None
    """`ALL_NS` for a list of all; None for a kind without namespaces."""
    prefix: str = ""

    def __str__(self) -> str:
        where = f"in {self.namespace}" if self.namespace not in (None, ALL_NS) else ""
        which = f"{self.namespace}/{self.name}" if self.name and where else self.name or where
        return f"{self.what} {which}".rstrip()

    @property
    def what(self) -> str:
        return f"{VERBS.get(self.verb, self.verb)} {self.kind}"

    def check_names(self) -> None:
        """The last defence against a name that leads elsewhere: planning has refused it before."""
        if self.verb not in ("list", "watch", "post"):
            check_segments(self.name)
        if self.namespace not in (None, ALL_NS):
            check_segments(self.namespace or "")

    def fits(self, kind: str | None, meta: "Name | ObjectMeta") -> bool:
        # A list of all namespaces has objects of any of them. What the server names begins with the prefix.
        where = meta.namespace or None
        return (
            kind in (None, self.kind)
            and (where == self.namespace or (where is not None and self.namespace == ALL_NS))
            and (meta.name == self.name or (not self.name and meta.name.startswith(self.prefix)))
        )

    def among(self, items: list[Any]) -> list[Any]:
        """Those of a list that fit: as `fits` of each, which would be a tenth of what a list costs."""
        kinds, namespace, everywhere = (None, self.kind), self.namespace, self.namespace == ALL_NS
        return [
            item
            for item in items
            if item.metadata.name
            and item.kind in kinds
            and ((where := item.metadata.namespace or None) == namespace or (everywhere and where is not None))
        ]

    def check(self, kind: str | None, meta: "Name | ObjectMeta") -> None:
        if not self.fits(kind, meta):
            found = f"{kind or self.kind} {meta.namespace or ''}/{meta.name}"[:200]
            raise invalid(f"it is about {found}, which was not asked for")


def wanted(verb: str, kind: type[Resource], name: str = "", namespace: str | None = None, prefix: str = "") -> Wanted:
    called, plural, scoped = _served_as(kind)  # type: ignore[arg-type]  # a class can be hashed
    return Wanted(verb, called, plural, name, (namespace or "") if scoped else None, prefix)


@cache  # of each of our kinds
def _served_as(kind: type[Resource]) -> tuple[str, str, bool]:
    info = api_info(kind)
    return info.resource.kind, info.plural, issubclass(kind, NamespacedResourceG)


def check_segments(*segments: str) -> None:
    for segment in segments:
        if not SEGMENT.fullmatch(segment):
            raise KubeError(0, "InvalidName", f"not asked for: {segment[:100]!r} cannot be a part of a URL")


def invalid(why: object) -> KubeError:
    return KubeError(0, "InvalidAnswer", f"the answer cannot be understood: {why}")


def decode(body: bytes, type_: type[D]) -> D:
    try:
        return msgspec.json.decode(body, type=type_)
    except UNDECODABLE as error:
        raise invalid(error) from error


# ---- one object


def typed(body: bytes, kind: type[T], asked: Wanted) -> T:
    found: Any = decode(body, kind)
    asked.check(found.kind, found.metadata)
    return found  # type: ignore[no-any-return]


def live(body: bytes, kind: type[T], asked: Wanted) -> T:
    """With its bytes, for kinds that are changed as they were read: the change then needs no second read."""
    found = typed(body, kind, asked)
    if hasattr(found, "shown"):
        found.shown = b'{"object":%b}' % body
    return found


def untyped(body: bytes, kind: type[Resource], asked: Wanted) -> dict[str, Any]:
    """The whole object as the server has it; refused if a field that we know has another type."""
    typed(body, kind, asked)  # only to refuse what does not fit
    return decode(body, dict[str, Any])


class Described(msgspec.Struct):
    """An object of any kind."""

    metadata: ObjectMeta
    kind: str | None = None


class Name(msgspec.Struct):
    name: str = ""
    namespace: str | None = None


class _Named(msgspec.Struct):
    metadata: Name = msgspec.field(default_factory=Name)


class _Deleted(_Named):
    kind: str | None = None
    status: Any = None
    details: Name | None = None


def deleted(body: bytes, _kind: type[Resource], asked: Wanted) -> None:
    """A deletion is answered with the object, if it stays for its finalizers, or with a Status that names it."""
    answer = decode(body, _Deleted)
    if answer.kind == "Status" and answer.status == "Success" and answer.details is not None:
        asked.check(None, Name(answer.details.name, asked.namespace))
    else:
        asked.check(answer.kind, answer.metadata)


# ---- lists


class Page(NamedTuple, Generic[T]):
    items: list[T]
    resource_version: str
    continue_token: str | None
    unreadable: dict[str, str]
    """Keys of the objects that could not be decoded, and why; "" where not even a name could be."""
    others: Sequence[Outline] = ()
    """Those that nobody wants, where there is a `Look` to tell."""


class _ListMeta(msgspec.Struct):
    resourceVersion: str
    continue_: str | None = msgspec.field(default=None, name="continue")


class _List(msgspec.Struct, Generic[D]):
    items: list[D]
    metadata: _ListMeta
    kind: str | None = None


def page(body: bytes, kind: type[T], asked: Wanted, token: str | None, look: Look[T] | None = None) -> Page[T]:
    unreadable: dict[str, str] = {}
    found: _List[Any]
    form, others = kind if look is None else Outline, list[Outline]()
    try:
        found = msgspec.json.decode(body, type=_List[form])  # type: ignore[valid-type]
    except UNDECODABLE:
        look = None
        # Item by item costs more, so only now. Where even this fails the whole answer is broken.
        found = decode(body, _List[msgspec.Raw])
        found.items = [item for raw in found.items if (item := _item(raw, kind, unreadable)) is not None]
    meta = found.metadata
    if found.kind not in (None, f"{asked.kind}List") or not meta.resourceVersion:
        raise invalid(f"it is no list of {asked.kind} at a version")
    if meta.continue_ and meta.continue_ == token:  # followed, it would lead in a circle
        raise invalid("its next page is this one again")
    items = asked.among(found.items)
    # What does not fit is left out and told of, without a name: it may be anything.
    if len(items) < len(found.items):
        unreadable[""] = f"it is no {asked.kind}, or none that was asked for"
    if look is not None:
        items, others = look.parted(items, unreadable)
    return Page(items, meta.resourceVersion, meta.continue_ or None, unreadable, others)


def _item(raw: msgspec.Raw, kind: type[T], unreadable: dict[str, str]) -> T | None:
    try:
        return msgspec.json.decode(raw, type=kind)
    except UNDECODABLE as error:
        # With its key, what is known of the object can stay as it was.
        named = _Named()
        with suppress(*UNDECODABLE):
            named = msgspec.json.decode(raw, type=_Named)
        unreadable[key_of(named)] = str(error)
        return None


# ---- watches


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


def unexpected(line: bytes, trouble: Exception | None) -> KubeError:
    """The error for a line that is no event of the kind: an ERROR event with its Status, or something without sense."""
    # Decoded once more, without its object, which is what did not fit.
    try:
        event = msgspec.json.decode(line, type=_Event)
    except UNDECODABLE as error:
        return invalid(trouble or error)
    return from_status(bytes(event.object)) if event.type == "ERROR" else invalid(trouble)


# ---- discovery


class _Served(msgspec.Struct):
    kind: str
    name: str


class Discovery(msgspec.Struct):
    resources: list[_Served]
