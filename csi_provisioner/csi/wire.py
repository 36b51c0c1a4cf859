"""Messages to bytes and back, for the kinds of fields CSI has; the bytes are betterproto2's, in a tenth of the time.

betterproto2 decides anew for every value what its field is, and serialising one CreateVolumeRequest costs as much as
sending it; this does it once a class, from betterproto2's own description of the fields. What a newer driver sends
beyond them is skipped. No kind of field that `protos/csi.proto` does not use is understood: making the table of such a
class fails, which the tests would show.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_type_hints

import betterproto2
from betterproto2 import FieldMetadata, Message

MessageT = TypeVar("MessageT", bound=Message)
Writer = Callable[[Any, bytearray], None]
Taker = Callable[[Message, Any], None]
"""Puts a number, or the bytes of a length-delimited field, into its message."""

_NUMBER, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types
_NUMBERS = (betterproto2.TYPE_BOOL, betterproto2.TYPE_INT32, betterproto2.TYPE_INT64, betterproto2.TYPE_ENUM)
_MAP_KEY, _MAP_VALUE = 1 << 3 | _BYTES, 2 << 3 | _BYTES  # tags in a map's entry
# The bytes of all short lengths, made once: most texts are that short.
_SHORT = [bytes([number]) for number in range(128)]

# Fields of a message, with all that is within: a volume with 10,000 topologies of three keys. The millions that fit
# into 4 MiB would take seconds and a gigabyte.
MOST = 100_000


class _Reading(threading.local):
    """One message at a time and thread, as reading never waits."""

    left = 0  # of MOST


_reading = _Reading()


def encode(message: Message) -> bytes:
    out = bytearray()
    for name, always, write in _writers(type(message)):
        value = getattr(message, name)
        # A field without presence is left out when it has its default value, which is false for every kind.
        if value if not always else value is not None:
            write(value, out)
    return bytes(out)


def decode(data: bytes, message_class: type[MessageT]) -> MessageT:
    _reading.left = MOST
    return _filled(message_class(), data)


@cache
def _writers(message_class: type[Message]) -> list[tuple[str, bool, Writer]]:
    """Of each field its name, whether it has presence (it is written unless None then), and what writes it."""
    return [
        (name, bool(field.optional or field.group), _writer(field, field.number))
        for name, field in _described(message_class).items()
    ]


def _described(message_class: type[Message]) -> dict[str, FieldMetadata]:
    declared = fields(message_class)  # type: ignore[arg-type]  # every message is a dataclass, its base is not
    return {field.name: FieldMetadata.get(field) for field in declared}


def _writer(field: FieldMetadata, number: int) -> Writer:
    if field.proto_type in _NUMBERS and not field.repeated:
        return _number_writer(_varint_of(number << 3 | _NUMBER))
    tag = _varint_of(number << 3 | _BYTES)
    if field.map_meta is not None:
        return _map_writer(tag, *field.map_meta)
    to_bytes = _to_bytes(field)

    def write(value: Any, out: bytearray) -> None:
        data = to_bytes(value)
        out += tag
        out += _varint_of(len(data))
        out += data

    def write_each(values: Any, out: bytearray) -> None:
        for value in values:
            write(value, out)

    return write_each if field.repeated else write


def _number_writer(tag: bytes) -> Writer:
    def write(value: Any, out: bytearray) -> None:
        out += tag
        out += _varint_of(int(value) & 0xFFFFFFFFFFFFFFFF)  # negative numbers as their 64-bit complement

    return write


def _map_writer(tag: bytes, key_field: FieldMetadata, value_field: FieldMetadata) -> Writer:
    """On the wire a map is a list of messages, each with a key and a value."""
    write_key, write_value = _writer(key_field, 1), _writer(value_field, 2)

    def write(values: Any, out: bytearray) -> None:
        for key, value in values.items():
            entry = bytearray()
            write_key(key, entry)
            write_value(value, entry)
            out += tag
            out += _varint_of(len(entry))
            out += entry

    return write


def _to_bytes(field: FieldMetadata) -> Callable[[Any], bytes]:
    if field.proto_type == betterproto2.TYPE_STRING:
        return str.encode
    if field.proto_type == betterproto2.TYPE_MESSAGE and field.unwrap is None:
        return encode
    if field.proto_type == betterproto2.TYPE_MESSAGE:
        wrapper: Any = field.unwrap() if field.unwrap else None
        return lambda value: encode(wrapper.from_wrapped(value))
    raise NotImplementedError(field)


def _varint_of(number: int) -> bytes:
    """Most are short lengths."""
    if number < 128:
        return _SHORT[number]
    out = bytearray()
    while number >= 128:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _filled(message: MessageT, data: bytes) -> MessageT:
    takers = _takers(type(message))
    for tag, value in _values(data):
        take = takers.get(tag)
        if take is not None:
            take(message, value)
    return message


@cache
def _takers(message_class: type[Message]) -> dict[int, Taker]:
    """By the tag: number and wire type. A field that comes with another wire type is as good as unknown."""
    hints = get_type_hints(message_class)
    described = _described(message_class)
    takers = {}
    for name, field in described.items():
        others = [other for other, of in described.items() if field.group and of.group == field.group and other != name]
        taker = _taker(name, field, hints[name])
        wire_type = _NUMBER if field.proto_type in _NUMBERS else _BYTES
        takers[field.number << 3 | wire_type] = _instead_of(others, taker) if others else taker
    return takers


def _instead_of(others: list[str], taker: Taker) -> Taker:
    """Of the fields of a oneof only the last that came is set."""

    def take(message: Message, value: Any) -> None:
        for other in others:
            setattr(message, other, None)
        taker(message, value)

    return take


def _taker(name: str, field: FieldMetadata, hint: Any) -> Taker:
    if field.map_meta is not None:
        return _map_taker(name, *field.map_meta)
    kind = next((of for of in get_args(hint) if of is not NoneType), hint)  # of `Kind | None` and `list[Kind]`
    read = _reader(field, kind)
    if field.repeated:
        return lambda message, value: getattr(message, name).append(read(value))
    if field.proto_type != betterproto2.TYPE_MESSAGE or field.unwrap is not None:
        return lambda message, value: setattr(message, name, read(value))

    def merge(message: Message, value: bytes) -> None:
        """A message may come in parts."""
        present = getattr(message, name)
        if present is None:
            setattr(message, name, read(value))
        else:
            _filled(present, value)

    return merge


def _map_taker(name: str, key_field: FieldMetadata, value_field: FieldMetadata) -> Taker:
    if (key_field.proto_type, value_field.proto_type) != (betterproto2.TYPE_STRING, betterproto2.TYPE_STRING):
        raise NotImplementedError(name)

    def take(message: Message, entry: bytes) -> None:
        parts = dict(_values(entry))
        getattr(message, name)[parts.get(_MAP_KEY, b"").decode()] = parts.get(_MAP_VALUE, b"").decode()

    return take


def _reader(field: FieldMetadata, kind: Any) -> Callable[[Any], Any]:
    match field.proto_type:
        case betterproto2.TYPE_STRING:
            return bytes.decode
        case betterproto2.TYPE_BOOL:
            return bool
        case betterproto2.TYPE_INT64:
            return _signed
        case betterproto2.TYPE_INT32:
            return lambda number: _signed(number, 32)
        case betterproto2.TYPE_ENUM:
            return lambda number: kind(_signed(number, 32))
        case betterproto2.TYPE_MESSAGE if field.unwrap is None:
            return lambda data: _filled(kind(), data)
        case betterproto2.TYPE_MESSAGE:
            wrapper = cast(type[Any], field.unwrap())  # type: ignore[misc]  # not None, says the case above
            return lambda data: _filled(wrapper(), data).to_wrapped()
    raise NotImplementedError(field)


def _signed(number: int, bits: int = 64) -> int:
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


def _values(data: bytes) -> Iterator[tuple[int, Any]]:
    """Tag and raw value of every field: a number, bytes, or None for the kinds nobody here reads."""
    position, end = 0, len(data)
    value: Any
    while position < end:
        _reading.left -= 1
        if _reading.left < 0:
            raise ValueError(f"more than {MOST} fields")
        # Most tags and lengths are one byte: these are read here, which saves a third of the time.
        tag, position = data[position], position + 1
        if tag > 127:
            tag, position = _varint(data, position - 1)
        wire_type = tag & 7
        if wire_type == _BYTES:
            if position < end and data[position] < 128:
                length, position = data[position], position + 1
            else:
                length, position = _varint(data, position)
            value, position = data[position : position + length], position + length
        elif wire_type == _NUMBER:
            value, position = _varint(data, position)
        elif wire_type in (_EIGHT, _FOUR):
            value, position = None, position + (8 if wire_type == _EIGHT else 4)
        else:
            raise ValueError(f"wire type {wire_type}")
        if position > end:
            raise ValueError("cut short")
        yield tag, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    # 64 bits are ten bytes of seven; a longer number is not read on, however long it is.
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 128:
            return number, position
        shift += 7
    raise ValueError("cut short, or a number without end")
