"""Reading one gRPC answer: what came on an HTTP/2 stream in, the message or an error out. Pure; a part of `channel`.

The status in the trailers decides; an answer of nothing but headers has it there; a peer that is no gRPC server is told
by its HTTP status or its content type. A stream that ended before its status is broken, whatever it brought.
"""

import re
import struct
from collections.abc import Iterable, Mapping
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import betterproto2

from csi_provisioner.csi import wire
from csi_provisioner.csi.errors import CallError
from csi_provisioner.model.codes import Code

ResponseT = TypeVar("ResponseT", bound=betterproto2.Message)
Headers = Iterable[tuple[str, str]]

# Bytes of a message that may be received (process.md 4.1).
LARGEST = 4 * 1024 * 1024

# Before each message: whether it is compressed, and its length.
_FRAME = struct.Struct(">BI")

# A status has 32 bits. Not `int()`, which also reads " 5", "+5" and "1_0".
_NUMBER = re.compile("[0-9]{1,10}")

# What a proxy's or web server's answer means: the gRPC specification's "HTTP to gRPC Status Code Mapping".
_OF_HTTP = {
    "400": Code.INTERNAL,
    "401": Code.UNAUTHENTICATED,
    "403": Code.PERMISSION_DENIED,
    "404": Code.UNIMPLEMENTED,
    "429": Code.UNAVAILABLE,
    "502": Code.UNAVAILABLE,
    "503": Code.UNAVAILABLE,
    "504": Code.UNAVAILABLE,
}


def framed(message: bytes) -> bytes:
    return _FRAME.pack(0, len(message)) + message


def too_large(received: bytes | bytearray) -> bool:
    """Whether the message that begins here may not be received; known before most of it has come."""
    return len(received) >= _FRAME.size and _FRAME.unpack_from(received)[1] > LARGEST


def read(
    headers: Headers | None,
    received: bytes | bytearray,
    trailers: Headers | None,
    broken: str | None,
    *,
    lost: bool = False,
) -> bytes:
    """The message of a unary answer that is over; or CallError. `lost`: if `broken`, then with its connection."""
    head = dict(headers or ())
    if too_large(received):
        length = _FRAME.unpack_from(received)[1]
        raise CallError(Code.RESOURCE_EXHAUSTED, f"the answer is larger than allowed ({length} vs. {LARGEST} bytes)")
    # An answer of headers only ("trailers-only"): a driver that fails at once sends no other.
    if "grpc-status" in head:
        raise _status(head)
    # Before the question whether it broke off: a web server at this socket is to be named as such.
    if head:
        _check_is_grpc(head)
    if trailers is None and broken and lost:
        text = f"the connection ended before the answer ({broken}): see the driver's own log"
        raise CallError(Code.UNAVAILABLE, text, lost=True)
    if trailers is None:
        raise CallError(Code.UNAVAILABLE, f"the answer broke off: {broken or 'it ended without a status'}")
    end = dict(trailers)
    if end.get("grpc-status") != "0":
        raise _status(end)
    return _message(received)


def _check_is_grpc(head: Mapping[str, str]) -> None:
    http_status = head.get(":status", "")
    if http_status != "200":
        raise CallError(_OF_HTTP.get(http_status, Code.UNKNOWN), f"HTTP status {http_status}", not_grpc=True)
    if not head.get("content-type", "").startswith("application/grpc"):
        raise CallError(Code.UNKNOWN, f"not a gRPC answer but {head.get('content-type')!r}", not_grpc=True)


def _unusable(text: str) -> CallError:
    return CallError(Code.INTERNAL, text, not_grpc=True)


def _status(headers: Mapping[str, str]) -> CallError:
    """The status a driver sent. A number without a name stays that number."""
    number = headers.get("grpc-status", "")
    if number == "0":
        return _unusable("the driver answered OK without a message")
    if not _NUMBER.fullmatch(number):
        return CallError(Code.UNKNOWN, f"the driver answered with the status {number!r}", not_grpc=True)
    # Percent-encoded UTF-8. Some servers leave the percent-encoding out; the bytes were read as Latin-1.
    message = unquote_to_bytes(headers.get("grpc-message", "").encode("latin-1")).decode("utf-8", "replace")
    return CallError(int(number), message)


def _message(received: bytes | bytearray) -> bytes:
    if not received:
        raise _unusable("the driver answered OK without a message")
    if len(received) < _FRAME.size:
        raise _unusable("the driver's answer is cut short")
    compressed, length = _FRAME.unpack_from(received)
    if compressed:
        raise _unusable("the driver compressed its answer although nobody offered that")
    if len(received) != _FRAME.size + length:
        raise _unusable(f"the driver's answer is not the {length} bytes it announced")
    return bytes(received[_FRAME.size :])


def decode(message: bytes, response_type: type[ResponseT]) -> ResponseT:
    try:
        return wire.decode(message, response_type)
    except Exception as error:
        raise _unusable(f"the driver's answer is no {response_type.__name__}: {error}") from error
