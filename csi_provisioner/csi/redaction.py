"""Messages as one line of JSON for the log, with secrets blanked (process.md 9.3). The only way a request is printed.

What is secret is decided by the option in the proto, by way of the generated table, at every level of nesting.
"""

import json
import re
from base64 import b64encode
from collections.abc import Collection, Iterator
from dataclasses import fields
from typing import Any
from urllib.parse import unquote, unquote_plus

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

# and that are looked at, where it says more; and word by word, so that the others stay.
MOST_READ = 2 * LONGEST
LONGEST_IN_WORDS = 4 * 1024

_WORD = re.compile(r"""([\s"',]+)""")
_ESCAPED = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_NAMED = {"n": "\n", "r": "\r", "t": "\t"}
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
            # Without the line end that a value from `echo` has and no driver keeps.
            bare = [value.strip() for value in values if len(value.strip()) >= SHORTEST_SECRET]
            text = _without(bare, text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _without(values: list[str], text: str) -> str:
    text, rest = text[:MOST_READ], text[MOST_READ:]
    said = {way for value in values for way in _ways_to_say(value)}
    for way in sorted(said, key=len, reverse=True):
        text = text.replace(way, STRIPPED)
    if _tells(text, values):  # which is rare, so that it may take longer
        words = _WORD.split(text[:LONGEST_IN_WORDS])
        text = "".join(STRIPPED if _tells(word, values) else word for word in words)
        if _tells(text, values):
            return "(not shown: it repeats a secret value in another form)"
    # What was cut off may have had the other half of one.
    return text[: -max(map(len, said), default=0) or None] if rest else text


def _ways_to_say(value: str) -> Iterator[str]:
    """As it is, quoted as JSON and Go do, and in base64."""
    quoted = json.dumps(value, ensure_ascii=False)[1:-1]
    yield from (value, quoted, quoted.translate(_ESCAPES))
    data = value.encode()
    for before in range(3):  # bytes that stand before it in a group of three: the rest of it is always the same
        last = (len(data) + before) * 4 // 3
        coded = b64encode(b"xx"[:before] + data)[before + 1 if before else 0 : last].decode()
        yield from (coded, coded.replace("+", "-").replace("/", "_"))


def _tells(text: str, values: list[str]) -> bool:
    """Does it have one of them with characters escaped, as in JSON, Go, Python and URLs? Any may be, or only some."""
    forms = [text]
    while "\\" in forms[-1] and len(forms) < 4:  # JSON within JSON
        plain = _ESCAPED.sub(_character, forms[-1]).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        # Where bytes were shown, each is a character now.
        forms += [plain.encode("latin-1", "replace").decode(errors="replace"), plain]
    forms += [read(form) for form in forms if "%" in form or "+" in form for read in (unquote, unquote_plus)]
    return any(value in form for form in forms[1:] for value in values)


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1][1:], 16)) if len(escape[1]) > 1 else _NAMED.get(escape[1], escape[1])


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
