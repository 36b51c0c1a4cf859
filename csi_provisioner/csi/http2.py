"""HTTP/2 as this client of one driver speaks it: h2, with the two ways of a call made short; a part of `channel`.

A request that fits goes in one piece, and header blocks that came before are known. Bytes and states are h2's, which a
test compares; all else (settings, windows, what is a breach) is h2's own.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn, cast

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection
from h2.events import ConnectionTerminated
from h2.exceptions import NoAvailableStreamIDError, ProtocolError, TooManyStreamsError
from h2.stream import StreamInputs
from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hyperframe.frame import DataFrame, HeadersFrame

HTTP2 = H2Configuration(
    client_side=True,
    # Never fails, whatever bytes a driver puts into a message; `answer` makes text of them.
    header_encoding="latin-1",
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)


# The largest number that HTTP/2 has for a stream: a GOAWAY with it ends none.
ALL_STREAMS = 2**31 - 1
GOODBYE = "it has ended the connection politely"
# Streams of which h2 may remember that they are over, before it is asked to forget them: it looks at every one.
FORGOTTEN_AT = 256
# The header fields of a call that calls of one method share; what follows is its own.
SHARED_FIELDS = 8
# Blocks of a driver that are remembered, and bytes of one: an answer has two of some bytes each
MOST_KNOWN, LONGEST_KNOWN = 64, 64


class _Blocks(Encoder):
    """Header blocks that say the same in every state of the compression, so that each is made once a method and
    deadline: a fifth of what a call costs was making them anew."""

    def encode(self, headers: Iterable[Any], huffman: bool = True) -> bytes:
        fields = list(headers)
        resized: bytes = super().encode([])  # the peer's wish for another table, if it has come
        own = _block(tuple(fields[SHARED_FIELDS:])) if len(fields) > SHARED_FIELDS else b""
        return resized + _shared_block(tuple(fields[:SHARED_FIELDS])) + own


def _block(fields: tuple[tuple[bytes, bytes], ...]) -> bytes:
    block: bytes = Encoder().encode([NeverIndexedHeaderTuple(name, value) for name, value in fields])
    return block


_shared_block = lru_cache(maxsize=64)(_block)


class _Known(Decoder):
    """Of blocks that say nothing new, which are nearly all of a driver's: they mean the same until one does."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[bytes, list[HeaderTuple]] = {}
        self._newest: object = None

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        found = self._known.get(data)
        if found is None:
            found = list(super().decode(data, raw))
            entries = self.header_table.dynamic_entries
            newest = entries[0] if entries else None
            # A field has come to the table, or its size has changed: what was known may mean something else now.
            if newest is not self._newest or (data and data[0] & 0xE0 == 0x20):
                self._newest = newest
                self._known.clear()
            elif len(data) <= LONGEST_KNOWN and len(self._known) < MOST_KNOWN:
                self._known[data] = found
        return found


class Http2(H2Connection):
    """A status comes in headers, and with it whatever a driver has to say. More than they may hold would end the
    connection, and all calls on it. The most that h2 takes in one piece: 64 frames of 16 KiB."""

    DEFAULT_MAX_HEADER_LIST_SIZE = 1024 * 1024
    # The driver takes no more calls here: none may be begun, also not by one that waited for its turn.
    leaving = False

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.encoder = _Blocks()
        known = _Known()
        known.max_header_list_size = self.decoder.max_header_list_size
        known.max_allowed_table_size = self.decoder.max_allowed_table_size
        self.decoder = known
        cast(dict[type, Any], self._frame_dispatch_table)[_Failed] = _fail

    @property
    def open_outbound_streams(self) -> int:
        """Not less than there are; counted where that may be too many."""
        known = len(self.streams)
        few = known < min(FORGOTTEN_AT, self.remote_settings.max_concurrent_streams)
        return known if few else super().open_outbound_streams

    def fits(self, size: int) -> bool:
        """Whether the peer takes so many bytes of a new stream in one frame now."""
        window = min(self.outbound_flow_control_window, self.remote_settings.initial_window_size)
        return size <= min(window, self.max_outbound_frame_size)

    def get_next_available_stream_id(self) -> int:
        if self.leaving:
            raise NoAvailableStreamIDError(GOODBYE)
        return super().get_next_available_stream_id()

    def ask(self, fields: list[tuple[bytes, bytes]], message: bytes) -> int:
        """h2's `send_headers` and `send_data` of a request that fits, in a third of their time. Gives its number."""
        number = self.get_next_available_stream_id()
        if self.open_outbound_streams >= self.remote_settings.max_concurrent_streams:
            raise TooManyStreamsError
        self.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        stream = self._begin_new_stream(number, AllowedStreamIDs.ODD)
        for step in (StreamInputs.SEND_HEADERS, StreamInputs.SEND_DATA, StreamInputs.SEND_END_STREAM):
            stream.state_machine.process_input(step)
        for window in (stream, self):
            window.outbound_flow_control_window -= len(message)
        self._data_to_send += _frame(HeadersFrame.type, END_HEADERS, number, self.encoder.encode(fields))
        self._data_to_send += _frame(DataFrame.type, END_STREAM, number, message)
        return number

    def _receive_frame(self, frame: Any) -> list[Any]:
        """h2's makes a text of every frame, for a logger that drops it; here it sees those alone that are errors."""
        try:
            frames, events = self._frame_dispatch_table[frame.__class__](frame)
        except ProtocolError as error:
            return super()._receive_frame(cast(Any, _Failed(error)))
        self._prepare_for_sending(frames)
        return cast(list[Any], events)

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        """For h2 whatever follows is a breach; but a driver still answers what it has taken (RFC 9113, 6.8)."""
        event = ConnectionTerminated()
        event.last_stream_id = frame.last_stream_id
        return [], [event]


class _Failed(NamedTuple):
    """In place of a frame that was an error."""

    error: ProtocolError


def _fail(frame: _Failed) -> NoReturn:
    raise frame.error


def _frame(type_: int, flags: int, stream: int, body: bytes) -> bytes:
    return _HEAD.pack(len(body) >> 8, len(body) & 0xFF, type_, flags, stream) + body


_HEAD = struct.Struct(">HBBBL")
END_STREAM, END_HEADERS = 0x1, 0x4
