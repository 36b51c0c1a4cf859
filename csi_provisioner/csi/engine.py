"""HTTP/2 as a client of one driver needs it, behind h2's interface as far as grpclib and `channel` use it.

h2 is made for any peer, and goes through five calls and two tables a frame; most of what a driver sends are four kinds
of frames in their plainest form. These are read here, all others (padded, in pieces, without use) by h2's own buffer.
Events, exceptions, settings and windows are h2's too, and a test holds all of it to what h2 makes of the same bytes, as
`http2` sets it up. Two things are otherwise: a stream that is over is forgotten at once, by h2 sooner or later; and a
frame that is too long is refused when its head has come, by h2 once all of it is there.
"""

import struct
from typing import Any, cast

from h2 import events, exceptions
from h2.connection import ConnectionState, H2ConnectionStateMachine
from h2.errors import ErrorCodes, _error_code_from_int
from h2.exceptions import ProtocolError
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from h2.utilities import guard_increment_window
from h2.windows import WindowManager
from hyperframe import frame as frames
from hyperframe.exceptions import InvalidPaddingError

from csi_provisioner.csi.blocks import Blocks, Fields, Reader
from csi_provisioner.csi.http2 import ALL_STREAMS, GOODBYE, OURS, PREFACE

_HEAD, _NUMBER = struct.Struct(">HBBBL"), struct.Struct(">L")
DATA, HEADERS, RST_STREAM, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 6, 7, 8
# Kinds of frames that belong to a stream, and those that belong to none.
_OF_STREAMS, _OF_NONE = frozenset([0, 1, 2, 3, 5, 9]), frozenset([4, 6, 7])
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
# Streams that were reset, and what comes for them is no breach. h2 remembers as many, and the others as well.
MOST_RESET = 2**16


class _Stream:
    """One that is not over; each side may have ended its part."""

    __slots__ = ("answered", "ended", "expected", "fields", "got", "inbound", "sent", "window")
    closed = False

    def __init__(self, fields: Fields, window: int, sent: bool) -> None:
        self.fields, self.window, self.sent = fields, window, sent
        self.inbound = WindowManager(_FIRST_WINDOW)
        self.answered = self.ended = False
        # Bytes that its headers announce, and those that have come.
        self.expected: int | None = None
        self.got = 0


_SETTINGS = Settings(client=True, initial_values=OURS)
_FIRST_WINDOW, _LONGEST_FRAME = _SETTINGS.initial_window_size, _SETTINGS.max_frame_size


class Engine:
    # The driver takes no more calls here: none may be begun, also not by one that waited for its turn.
    leaving = False
    HIGHEST_ALLOWED_STREAM_ID = ALL_STREAMS

    def __init__(self) -> None:
        self.state_machine = H2ConnectionStateMachine()
        self.streams: dict[int, _Stream] = {}
        self.encoder, self._reader = Blocks(), Reader(OURS[SettingCodes.MAX_HEADER_LIST_SIZE])
        self.remote_settings = Settings(client=False)
        self._took_settings()
        self.outbound_flow_control_window = self.remote_settings.initial_window_size
        self._inbound = WindowManager(_FIRST_WINDOW)
        self._highest = -1
        self._reset: dict[int, None] = {}
        self._out = bytearray()
        # What has come of a frame that is not whole; and the other kinds of frames, with blocks in pieces.
        self._rest = b""
        self._others = FrameBuffer()
        self._others.max_frame_size = _LONGEST_FRAME
        self._in_block = False

    def initiate_connection(self) -> None:
        self._out += PREFACE + frames.SettingsFrame(0, dict(_SETTINGS)).serialize()

    def data_to_send(self) -> bytes:
        data = bytes(self._out)
        self._out.clear()
        return data

    # Requests.

    def fits(self, size: int) -> bool:
        """Whether the peer takes so many bytes of a new stream in one frame now."""
        return size <= min(self.outbound_flow_control_window, self._window, self.max_outbound_frame_size)

    def get_next_available_stream_id(self) -> int:
        if self.leaving or self._highest + 2 > self.HIGHEST_ALLOWED_STREAM_ID:
            raise exceptions.NoAvailableStreamIDError(GOODBYE if self.leaving else "Exhausted allowed stream IDs")
        return self._highest + 2

    def ask(self, fields: Fields, message: bytes) -> int:
        """A whole request that fits. Gives its number."""
        number = self.get_next_available_stream_id()
        self.send_headers(number, fields)
        self.send_data(number, message, end_stream=True)
        return number

    def send_headers(self, number: int, fields: Fields, end_stream: bool = False) -> None:
        """Of a new stream, whose number is the next. A block of ours has some hundred bytes, which fit into a frame."""
        if len(self.streams) >= self._most_streams:
            raise exceptions.TooManyStreamsError(f"{len(self.streams)} of {self._most_streams} streams are open")
        self._begin()
        self.streams[number] = _Stream(fields, self._window, end_stream)
        self._highest = number
        self._send(HEADERS, END_HEADERS | end_stream, number, self.encoder.encode(fields))

    def send_data(self, number: int, data: bytes, end_stream: bool = False) -> None:
        stream, size = self._stream(number), len(data)
        if size and size > min(self.outbound_flow_control_window, stream.window):
            raise exceptions.FlowControlError(f"Cannot send {size} bytes")
        if size > self.max_outbound_frame_size:
            raise exceptions.FrameTooLargeError(f"Cannot send {size} bytes in one frame")
        self._begin()
        if stream.sent:
            raise ProtocolError("its end was sent")
        stream.window -= size
        self.outbound_flow_control_window -= size
        self._send(DATA, END_STREAM if end_stream else 0, number, data)
        stream.sent = end_stream
        if end_stream and stream.ended:
            del self.streams[number]

    def local_flow_control_window(self, number: int) -> int:
        return min(self.outbound_flow_control_window, self._stream(number).window)

    def reset_stream(self, number: int, error_code: int = 0) -> None:
        self._stream(number)
        self._begin()
        self._send(RST_STREAM, 0, number, _NUMBER.pack(error_code))
        self._was_reset(number)

    def acknowledge_received_data(self, size: int, number: int) -> None:
        self._open_window(self._inbound, size, 0)
        stream = self.streams.get(number)
        if stream is not None:
            self._open_window(stream.inbound, size, number)

    def _open_window(self, window: WindowManager, size: int, number: int) -> None:
        if increment := window.process_bytes(size):
            self._send(WINDOW_UPDATE, 0, number, _NUMBER.pack(increment))

    def _begin(self) -> None:
        if self.state_machine.state is ConnectionState.CLOSED:
            raise ProtocolError("the connection has ended")
        self.state_machine.state = ConnectionState.CLIENT_OPEN

    def _stream(self, number: int) -> _Stream:
        stream = self.streams.get(number)
        if stream is None:
            raise (exceptions.StreamClosedError if self._was_ours(number) else exceptions.NoSuchStreamError)(number)
        return stream

    def _was_ours(self, number: int) -> bool:
        return number <= self._highest and number % 2 == 1

    def _was_reset(self, number: int) -> None:
        del self.streams[number]
        self._reset[number] = None
        if len(self._reset) > MOST_RESET:
            del self._reset[next(iter(self._reset))]

    def _send(self, kind: int, flags: int, number: int, body: bytes) -> None:
        size = len(body)
        self._out += _HEAD.pack(size >> 8, size & 0xFF, kind, flags, number)
        self._out += body

    # What comes.

    def receive_data(self, data: bytes) -> list[events.Event]:
        told: list[events.Event] = []
        try:
            self._receive(self._rest + data if self._rest else data, told)
        except ProtocolError as error:
            self._terminate(error.error_code)
            raise
        except InvalidPaddingError as error:
            self._terminate(ErrorCodes.PROTOCOL_ERROR)
            raise ProtocolError("Received frame with invalid padding.") from error
        return told

    def _terminate(self, code: int) -> None:
        self.state_machine.state = ConnectionState.CLOSED
        self._send(GOAWAY, 0, 0, bytes(4) + _NUMBER.pack(code))

    def _receive(self, data: bytes, told: list[events.Event]) -> None:
        if self.state_machine.state is ConnectionState.CLOSED:
            raise ProtocolError("the connection has ended")
        position, end = 0, len(data)
        while end - position >= 9:
            high, low, kind, flags, number = _HEAD.unpack_from(data, position)
            size, number, begin = high << 8 | low, number & ALL_STREAMS, position + 9
            if kind in (_OF_NONE if number else _OF_STREAMS):
                raise ProtocolError(f"a frame of kind {kind} for stream {number}")
            if size > _LONGEST_FRAME:
                raise exceptions.FrameTooLargeError(f"Received overlong frame: length {size}, max {_LONGEST_FRAME}")
            if begin + size > end:
                break
            body, start, position = data[begin : begin + size], position, begin + size
            if self._in_block:
                self._receive_other(data[start:position], told)
            elif kind == DATA and not flags & PADDED:
                self._data(number, body, size, flags & END_STREAM, told)
            elif kind == HEADERS and flags & (END_HEADERS | PADDED | PRIORITY) == END_HEADERS:
                self._headers(number, body, flags & END_STREAM, told)
            elif kind == PING and size == 8:
                self._ping(body, flags & ACK, told)
            elif kind == WINDOW_UPDATE and size == 4 and 0 < (increment := _NUMBER.unpack(body)[0]) <= ALL_STREAMS:
                self._window_update(number, increment, told)
            else:
                self._receive_other(data[start:position], told)
        self._rest = data[position:]

    def _receive_other(self, data: bytes, told: list[events.Event]) -> None:
        """By h2's own buffer, which gives a frame for each but within a header block."""
        self._others.add_data(data)
        self._in_block = True
        for frame in self._others:
            self._in_block = False
            self._other(frame, told)

    def _other(self, frame: frames.Frame, told: list[events.Event]) -> None:
        number = frame.stream_id
        match frame:
            case frames.DataFrame():
                self._data(number, frame.data, frame.flow_controlled_length, "END_STREAM" in frame.flags, told)
            case frames.HeadersFrame():
                event = self._headers(number, frame.data, "END_STREAM" in frame.flags, told)
                if event is not None and "PRIORITY" in frame.flags:
                    event.priority_updated = self._priority(frame, told)
            case frames.PingFrame():
                self._ping(frame.opaque_data, "ACK" in frame.flags, told)
            case frames.WindowUpdateFrame():
                self._window_update(number, frame.window_increment, told)
            case frames.RstStreamFrame():
                self._reset_came(number, frame.error_code, told)
            case frames.SettingsFrame():
                self._settings(frame, told)
            case frames.PriorityFrame():
                self._priority(frame, told)
            case frames.GoAwayFrame():
                # For h2 whatever follows is a breach; but a driver still answers what it has taken (RFC 9113, 6.8).
                goodbye = events.ConnectionTerminated()
                goodbye.last_stream_id = frame.last_stream_id
                told.append(goodbye)
            case frames.AltSvcFrame():
                self._offer(frame, told)
            case frames.ContinuationFrame() if number in self._reset:
                self._send(RST_STREAM, 0, number, _NUMBER.pack(ErrorCodes.STREAM_CLOSED))
            case frames.ContinuationFrame():
                self._stream(number)
                raise ProtocolError("a continuation of nothing")
            case frames.PushPromiseFrame():
                raise ProtocolError("Received pushed stream")
            case frames.ExtensionFrame():
                told.append(events.UnknownFrameReceived(frame=frame))

    def _headers(self, number: int, block: bytes, end: int, told: list[events.Event]) -> Any:
        """The event, unless the stream was reset."""
        said = self._reader.read(block)
        stream = self.streams.get(number)
        if stream is None and number not in self._reset:
            raise (
                exceptions.StreamClosedError(number) if self._was_ours(number) else ProtocolError("only a client opens")
            )
        if stream is None or (stream.ended and not said.informational):
            self._refuse(number, stream, told)
            return None
        event: Any
        if said.informational:
            if end or stream.answered:
                raise ProtocolError("an informational response ends nothing, and comes before the final one")
            event = events.InformationalResponseReceived(stream_id=number, headers=cast(Any, said.fields))
        elif not stream.answered:
            event = events.ResponseReceived(stream_id=number, headers=cast(Any, said.fields))
            stream.answered = True
        elif end:
            event = events.TrailersReceived(stream_id=number, headers=cast(Any, said.fields))
        else:
            raise ProtocolError("Trailers must have END_STREAM set")
        stream.expected = said.length()
        told.append(event)
        if end:
            event.stream_ended = self._ended(number, stream, told)
        return event

    def _data(self, number: int, data: bytes, size: int, end: int, told: list[events.Event]) -> None:
        if self.state_machine.state is ConnectionState.IDLE:
            raise ProtocolError("data before any request")
        self._inbound.window_consumed(size)
        stream = self.streams.get(number)
        if stream is None or stream.ended:
            if stream is None and not self._was_ours(number):
                raise exceptions.NoSuchStreamError(number)
            self._open_window(self._inbound, size, 0)
            self._refuse(number, stream, told)
            return
        if not stream.answered:
            raise ProtocolError("cannot receive data before headers")
        stream.inbound.window_consumed(size)
        stream.got += len(data)
        if stream.expected is not None and (stream.got > stream.expected or (end and stream.got < stream.expected)):
            raise exceptions.InvalidBodyLengthError(stream.expected, stream.got)
        event = events.DataReceived(stream_id=number, data=data, flow_controlled_length=size)
        told.append(event)
        if end:
            event.stream_ended = self._ended(number, stream, told)

    def _ended(self, number: int, stream: _Stream, told: list[events.Event]) -> events.StreamEnded:
        event = events.StreamEnded(stream_id=number)
        told.append(event)
        stream.ended = True
        if stream.sent:
            del self.streams[number]
        return event

    def _refuse(
        self, number: int, stream: _Stream | None, told: list[events.Event], code: ErrorCodes = ErrorCodes.STREAM_CLOSED
    ) -> None:
        """What must not come, on a stream alone; told if the stream was not over."""
        self._send(RST_STREAM, 0, number, _NUMBER.pack(code))
        if stream is not None:
            self._was_reset(number)
            told.append(events.StreamReset(stream_id=number, error_code=code, remote_reset=False))

    def _ping(self, data: bytes, answer: int, told: list[events.Event]) -> None:
        if answer:
            told.append(events.PingAckReceived(ping_data=data))
        else:
            told.append(events.PingReceived(ping_data=data))
            self._send(PING, ACK, 0, data)

    def _window_update(self, number: int, increment: int, told: list[events.Event]) -> None:
        if number == 0:
            self.outbound_flow_control_window = guard_increment_window(self.outbound_flow_control_window, increment)
        elif (stream := self.streams.get(number)) is not None:
            stream.window += increment
            if stream.window > ALL_STREAMS:
                self._refuse(number, stream, told, ErrorCodes.FLOW_CONTROL_ERROR)
                return
        elif self._was_ours(number):
            return
        else:
            raise exceptions.NoSuchStreamError(number)
        told.append(events.WindowUpdated(stream_id=number, delta=increment))

    def _reset_came(self, number: int, code: int, told: list[events.Event]) -> None:
        if self.state_machine.state is ConnectionState.IDLE:
            raise ProtocolError("a reset before any request")
        if number in self.streams:
            self._was_reset(number)
            told.append(events.StreamReset(stream_id=number, error_code=_error_code_from_int(code)))

    def _settings(self, frame: frames.SettingsFrame, told: list[events.Event]) -> None:
        if "ACK" in frame.flags:
            told.append(events.SettingsAcknowledged())
            return
        settings, window = self.remote_settings, self._window
        for code, value in frame.settings.items():
            settings.validate_received_setting(code, value)
        settings.update(frame.settings)
        told.append(events.RemoteSettingsChanged.from_settings(settings, frame.settings))
        settings.acknowledge()
        self._took_settings()
        if SettingCodes.HEADER_TABLE_SIZE in frame.settings:
            self.encoder.header_table_size = settings.header_table_size
        for stream in self.streams.values():
            stream.window = guard_increment_window(stream.window, self._window - window)
        self._out += frames.SettingsFrame(0, flags=["ACK"]).serialize()

    def _took_settings(self) -> None:
        settings = self.remote_settings
        self._window, self._most_streams = settings.initial_window_size, settings.max_concurrent_streams
        self.max_outbound_frame_size = settings.max_frame_size

    def _priority(self, frame: Any, told: list[events.Event]) -> events.PriorityUpdated:
        if frame.depends_on == frame.stream_id:
            raise ProtocolError(f"Stream {frame.stream_id} may not depend on itself")
        event = events.PriorityUpdated()
        event.stream_id, event.depends_on = frame.stream_id, frame.depends_on
        event.weight, event.exclusive = frame.stream_weight + 1, frame.exclusive
        told.append(event)
        return event

    def _offer(self, frame: frames.AltSvcFrame, told: list[events.Event]) -> None:
        """Of another service: of its own origin, or of a stream's until its answer has begun."""
        if self.state_machine.state is ConnectionState.IDLE:
            self.state_machine.state = ConnectionState.CLIENT_OPEN
        stream = self.streams.get(frame.stream_id)
        ours = stream is not None and not stream.answered and not frame.origin
        if ours or (frame.stream_id == 0 and frame.origin):
            event = events.AlternativeServiceAvailable()
            event.origin = dict(stream.fields)[b":authority"] if stream is not None else frame.origin
            event.field_value = frame.field
            told.append(event)
