"""Header blocks both ways: those of calls are made once, those of answers read once; a part of `channel`."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.utilities import is_informational_response
from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hpack.exceptions import HPACKError, OversizedHeaderListError

Fields = list[tuple[bytes, bytes]]

# The header fields of a call that calls of one method share; what follows is its own.
SHARED_FIELDS = 8
# Blocks of a driver that are remembered, and bytes of one: an answer has two of some bytes each
MOST_KNOWN, LONGEST_KNOWN = 64, 64


class Blocks(Encoder):
    """Header blocks that say the same in every state of the compression, so that each is made once a method and
    deadline: a fifth of what a call costs was making them anew."""

    def encode(self, headers: Iterable[Any], huffman: bool = True) -> bytes:
        fields = list(headers)
        # the peer's wish for another table, if it has come
        resized: bytes = super().encode([]) if self.header_table.resized else b""
        own = _block(tuple(fields[SHARED_FIELDS:])) if len(fields) > SHARED_FIELDS else b""
        return resized + _shared_block(tuple(fields[:SHARED_FIELDS])) + own


def _block(fields: tuple[tuple[bytes, bytes], ...]) -> bytes:
    block: bytes = Encoder().encode([NeverIndexedHeaderTuple(name, value) for name, value in fields])
    return block


_shared_block = lru_cache(maxsize=64)(_block)


class Said(NamedTuple):
    """By a header block."""

    fields: list[HeaderTuple]
    """As text: Latin-1, which never fails, whatever bytes a driver puts into a message; `answer` makes text of them."""
    informational: bool
    lengths: list[bytes]

    def length(self) -> int | None:
        """Of the body, if it is said; every time the same."""
        try:
            said = {int(digits) if digits.isdigit() else None for digits in self.lengths}
        except ValueError:  # thousands of digits
            said = {None}
        if len(said) > 1 or None in said:
            raise ProtocolError(f"Invalid content-length header: {self.lengths}")
        return said.pop() if said else None


class Reader:
    """Of blocks that say nothing new, which are nearly all of a driver's: they mean the same until one does."""

    def __init__(self, longest: int) -> None:
        self.decoder = Decoder(longest)
        self._known: dict[bytes, Said] = {}
        self._newest: object = None

    def read(self, block: bytes) -> Said:
        found = self._known.get(block)
        return found if found is not None else self._read(block)

    def _read(self, block: bytes) -> Said:
        try:
            fields = list(self.decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise DenialOfServiceError(f"Oversized header block: {error}") from error
        except (HPACKError, IndexError, TypeError, UnicodeDecodeError) as error:
            raise ProtocolError(f"Error decoding header block: {error}") from error
        text = [field.__class__(field[0].decode("latin-1"), field[1].decode("latin-1")) for field in fields]
        lengths = [value for name, value in fields if name == b"content-length"]
        found = Said(text, is_informational_response(fields), lengths)
        entries = self.decoder.header_table.dynamic_entries
        newest = entries[0] if entries else None
        # A field has come to the table, or its size has changed: what was known may mean something else now.
        if newest is not self._newest or (block and block[0] & 0xE0 == 0x20):
            self._newest = newest
            self._known.clear()
        elif len(block) <= LONGEST_KNOWN and len(self._known) < MOST_KNOWN:
            self._known[block] = found
        return found
