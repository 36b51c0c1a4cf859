"""Messages as one line of JSON for the log, with secrets blanked (process.md 9.3). The only way a request is printed.

What is secret is decided by the option in the proto, by way of the generated table, at every level of nesting.
"""

import json
from base64 import b64encode
from collections.abc import Collection
from dataclasses import fields
from typing import Any

import betterproto2
from betterproto2 import FieldMetadata, Message

from csi_provisioner.model.csi.secret_fields import SECRET_FIELDS

STRIPPED = "***stripped***"

# Shorter values ("1", "yes") are words of ordinary texts, which would become unreadable without them.
SHORTEST_SECRET = 4

# Characters of a driver's words that are looked at for its secret values, and what looking for one costs besides: 20 ms
# in all. Anybody may fill a Secret with thousands of values, and everything else would wait.
MOST_LOOKED_AT, A_LOOK = 20_000_000, 10_000
# Characters of its words that people are shown
LONGEST = 16 * 1024

# Markup, as other Kubernetes sidecars do; and what Unicode calls the end of a line, so that it stays one.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def redact(message: Message, secret: Collection[tuple[str, str]] = SECRET_FIELDS) -> str:
    shown = _fields(message, secret)
    return json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False).translate(_ESCAPES)


def scrubbed(text: str, request: Message) -> str:
    """A driver's own words about a request, without the secret values of the request: some drivers repeat them."""
    kind = type(request).__name__
    for declared in fields(request):  # type: ignore[arg-type]
        if (kind, declared.name) in SECRET_FIELDS:
            values = getattr(request, declared.name).values()
            if len(values) * (len(text) + A_LOOK) > MOST_LOOKED_AT:
                return f"(not shown: it might repeat one of {len(values)} secret values)"
            said = {way for value in values for way in _ways_to_say(value)}
            for way in sorted(said, key=len, reverse=True):
                text = text.replace(way, STRIPPED)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _ways_to_say(value: str) -> list[str]:
    """Without the line end that a value from `echo` has and no driver keeps; as it is, or quoted as JSON and Go do."""
    bare = value.strip()
    quoted = json.dumps(bare, ensure_ascii=False)[1:-1]
    return [bare, quoted, quoted.translate(_ESCAPES)] if len(bare) >= SHORTEST_SECRET else []


def _fields(message: Message, secret: Collection[tuple[str, str]]) -> dict[str, Any]:
    """The populated fields by their names in the proto."""
    kind = type(message).__name__
    shown = {}
    for declared in fields(message):  # type: ignore[arg-type]  # every message is a dataclass, its base is not
        name, field = declared.name, FieldMetadata.get(declared)
        value = getattr(message, name)
        if value is None or (not field.optional and not value):
            continue
        proto_name = name.rstrip("_")  # which names that are words of Python have
        shown[proto_name] = STRIPPED if (kind, proto_name) in secret else _value(field, value, secret)
    return shown


def _value(field: FieldMetadata, value: Any, secret: Collection[tuple[str, str]]) -> Any:
    if field.unwrap is not None:
        # A well-known type that betterproto2 replaced by a plain value: a wrapper has `value`, a Timestamp its parts.
        return _fields(field.unwrap().from_wrapped(value), secret)  # type: ignore[attr-defined]
    return _shown(value, secret)


def _shown(value: Any, secret: Collection[tuple[str, str]]) -> Any:
    match value:
        case list():
            return [_shown(item, secret) for item in value]
        case dict():
            return {str(key): _shown(item, secret) for key, item in value.items()}
        case Message():
            return _fields(value, secret)
        case betterproto2.Enum():
            return value.name or value.value
        case bytes():
            return b64encode(value).decode()
    return value
