"""What the volume journal keeps of a volume before the driver is asked for it, and how it stands in an annotation.

Design.md 6. An entry has all that another process needs to ask for the very volume again: the request without its
secrets, and whose it is. Entries that this version does not understand are carried along as the text they were.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from csi_provisioner.model.kubernetes import SecretReference
from csi_provisioner.planning import templates
from csi_provisioner.planning.request import Plan

VERSION = 1
PLAIN = 2 * 1024
"""Bytes of JSON that are stored as they are, to be read with kubectl; more are compressed."""
MOST_STORED, MOST_JSON = 96 * 1024, 512 * 1024
"""Bytes of one object's entries. The API server takes 256 KiB of annotations; etcd and watch caches pay for each."""


class ClaimName(msgspec.Struct, frozen=True):
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class SourceName(msgspec.Struct, frozen=True):
    kind: str
    namespace: str
    name: str


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One volume that the driver may have been asked for. `request` is a CreateVolumeRequest without secrets."""

    v: int
    driver: str
    claim: ClaimName
    storage_class: str
    reclaim_policy: str
    request: bytes
    when: int
    """Seconds since 1970 on the API server's clock: when the entry was written, for our last try."""
    source: SourceName | None = None
    node: str = ""
    secret: SecretReference | None = None
    migrated: bool = False
    uncertain: bool = False
    """An earlier call for this volume ended without a certain answer."""


class UnreadableError(Exception):
    """The annotation is not what this version writes."""


def of_plan(plan: Plan, request: bytes, *, when: int, uncertain: bool) -> Entry:
    draft = plan.draft
    claim, source = draft.claim.metadata, draft.source
    storage_class = draft.class_plan.original
    return Entry(
        v=VERSION,
        driver=draft.driver.name,
        claim=ClaimName(claim.namespace or "", claim.name, claim.uid),
        storage_class=storage_class.metadata.name,
        reclaim_policy=storage_class.reclaimPolicy or "Delete",
        request=request,
        when=when,
        source=SourceName(source.kind, source.namespace, source.name) if source is not None else None,
        node=draft.selected_node,
        secret=plan.references.get(templates.PROVISIONER),
        migrated=draft.class_plan.migrated,
        uncertain=uncertain,
    )


def encode(entry: Entry) -> bytes:
    return msgspec.json.encode(entry)


def understood(text: bytes, driver: str) -> Entry | None:
    """The entry, if this version wrote such and it is one of this driver's."""
    try:
        entry = msgspec.json.decode(text, type=Entry)
    except (msgspec.DecodeError, RecursionError):
        return None
    return entry if entry.v == VERSION and entry.driver == driver else None


def pack(entries: Mapping[str, bytes]) -> str:
    """The annotation's value for texts by volume name."""
    plain = b"{" + b",".join(msgspec.json.encode(name) + b":" + text for name, text in entries.items()) + b"}"
    if len(plain) <= PLAIN:
        return plain.decode()
    return base64.b64encode(zlib.compress(plain, 1)).decode()


def fits(entries: Mapping[str, bytes], packed: str) -> bool:
    return len(packed) <= MOST_STORED and sum(map(len, entries.values())) <= MOST_JSON


def unpack(value: str) -> dict[str, bytes]:
    """Texts by volume name, each as it was packed. Raises UnreadableError; a small value never becomes large memory."""
    try:
        plain = value.encode() if value.lstrip().startswith("{") else _inflated(value)
        return {name: bytes(text) for name, text in msgspec.json.decode(plain, type=dict[str, msgspec.Raw]).items()}
    except (msgspec.DecodeError, binascii.Error, zlib.error, ValueError, RecursionError) as error:
        raise UnreadableError(str(error)) from error


def _inflated(value: str) -> bytes:
    inflater: Any = zlib.decompressobj()
    # Room for the names beside the texts
    plain: bytes = inflater.decompress(base64.b64decode(value, validate=True), 2 * MOST_JSON)
    if not inflater.eof:
        raise UnreadableError("it is cut off or too large")
    return plain
