"""What a store keeps of an object for which nothing is to be done: a few bytes under its key, in place of the object.

A record is the UID (16 bytes), the version (8) and a note of its kind. Nothing is decided from it: each event carries
the whole object again, and who has to know more asks the API server.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import msgspec
from lightkube.core.resource import Resource

from csi_provisioner.model.kubernetes import ObjectMeta

T = TypeVar("T", bound=Resource)

UID_BYTES, HEAD = 16, 24
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Settled(msgspec.Struct, Generic[T], frozen=True):
    """`note`: what is kept of an object beside UID and version; None: something is to be done for it, so it stays
    whole. `held(key, uid)`: somebody's memory refers to it. `sketch`: the object as far as a record tells."""

    note: Callable[[T], bytes | None]
    held: Callable[[str, str], bool]
    sketch: Callable[[ObjectMeta, bytes], T]


class Records(dict[str, bytes], Generic[T]):
    """By key."""

    def __init__(self, settled: Settled[T] | None) -> None:
        super().__init__()
        self.settled = settled

    def record(self, obj: T) -> bytes | None:
        """None: it stays whole, also where UID or version are not of the API's form."""
        note = None if self.settled is None else self.settled.note(obj)
        meta: ObjectMeta = obj.metadata  # type: ignore[attr-defined]  # all our Structs have it
        return None if note is None else packed(meta, note)

    def is_held(self, key: str, uid: str) -> bool:
        return self.settled is None or self.settled.held(key, uid)

    def version(self, key: str) -> int | None:
        record = self.get(key)
        return None if record is None else int.from_bytes(record[UID_BYTES:HEAD], "big")

    def sketch(self, key: str) -> T | None:
        record = self.get(key)
        if record is None or self.settled is None:
            return None
        return self.settled.sketch(meta_of(key, record), record[HEAD:])

    def has(self, uid: str) -> bool:
        like = packed(ObjectMeta(uid=uid, resourceVersion="0"), b"")
        return like is not None and any(record.startswith(like[:UID_BYTES]) for record in self.values())

    def notes(self) -> Iterator[bytes]:
        return (record[HEAD:] for record in self.values())


def packed(meta: ObjectMeta, note: bytes) -> bytes | None:
    version = meta.resourceVersion
    if not _UID.fullmatch(meta.uid) or not (version.isdecimal() and version.isascii() and len(version) < 20):
        return None
    return bytes.fromhex(meta.uid.replace("-", "")) + int(version).to_bytes(8, "big") + note


def meta_of(key: str, record: bytes) -> ObjectMeta:
    namespace, _, name = key.rpartition("/")
    digits = record[:UID_BYTES].hex()
    uid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return ObjectMeta(name, namespace or None, uid, str(int.from_bytes(record[UID_BYTES:HEAD], "big")))


class Keys:
    """Keys of objects by a text that several may share. Only its hash is kept: who asks compares the objects."""

    def __init__(self) -> None:
        # One object a text is the rule, and a million of dictionaries is not.
        self._keys: dict[int, str | dict[str, None]] = {}

    def of(self, text: str) -> Iterable[str]:
        found = self._keys.get(hash(text), ())
        return (found,) if isinstance(found, str) else tuple(found)

    def add(self, text: str, key: str) -> None:
        found = self._keys.setdefault(hash(text), key)
        if isinstance(found, dict):
            found[key] = None
        elif found != key:
            self._keys[hash(text)] = {found: None, key: None}

    def remove(self, text: str, key: str) -> None:
        found = self._keys.get(hash(text))
        if isinstance(found, dict):
            found.pop(key, None)
        if found in (key, {}):
            del self._keys[hash(text)]
