"""What a driver says that is newer than its client: fields that no version of CSI has, in every message."""

from dataclasses import fields
from typing import TypeVar

import betterproto2

M = TypeVar("M", bound=betterproto2.Message)

EXTRA = b"\xb8\x3e\x07" + b"\xba\x3e\x03new"
"""Field 999 as a number, and once more as bytes."""


def with_unknown(message: M) -> M:
    """The message itself; what is in maps is left as it is."""
    message._unknown_fields = EXTRA
    for field in fields(message):  # type: ignore[arg-type]  # each message that is made from the proto is a dataclass
        value = getattr(message, field.name)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, betterproto2.Message):
                with_unknown(inner)
    return message
