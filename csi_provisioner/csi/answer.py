"""Reading one gRPC answer from an HTTP/2 stream: its frame, its bounds, its status. A part of `channel`.

The stream is grpclib's, the rules are gRPC's: the status in the trailers decides, an answer of nothing but headers has
it there, and a peer that is no gRPC server is told by its HTTP status or its content type.
"""

import struct
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import betterproto2
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import Stream

from csi_provisioner.csi.errors import CallError
from csi_provisioner.model.codes import Code

ResponseT = TypeVar("ResponseT", bound=betterproto2.Message)

LARGEST = 4 * 1024 * 1024
"""Bytes of a message that may be received (process.md 4.1)."""

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


class StatusError(Exception):
    """The stream gave a status instead of a message, or something from which one follows."""

    def __init__(self, code: int, message: str, *, not_grpc: bool = False) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.not_grpc = not_grpc


def framed(message: bytes) -> bytes:
    """Uncompressed, with its length before it."""
    return struct.pack(">BI", 0, len(message)) + message


def complete(stream: Stream) -> bool:
    """Whether the status is there: nothing that happens to the stream from now on matters."""
    return stream.trailers is not None or (stream.headers is not None and "grpc-status" in dict(stream.headers))


async def receive(stream: Stream) -> bytes:
    """The message of a unary answer. Waits; raises StatusError or StreamTerminatedError."""
    headers = dict(await stream.recv_headers())
    if "grpc-status" in headers:
        raise status(headers)
    _check_is_grpc(headers)
    message = await _message(stream)
    trailers = dict(await stream.recv_trailers())
    if trailers.get("grpc-status") != "0":
        raise status(trailers)
    if message is None:
        raise StatusError(Code.INTERNAL, "the driver answered OK without a message")
    return message


async def _message(stream: Stream) -> bytes | None:
    """None if the status comes without one, as it does for an error after the headers."""
    frame = await _read(stream, 5)
    if not frame:
        return None
    compressed, length = struct.unpack(">BI", frame)
    if compressed:
        raise StatusError(Code.INTERNAL, "the driver compressed its answer although nobody offered that")
    if length > LARGEST:
        raise StatusError(Code.RESOURCE_EXHAUSTED, f"the answer is larger than allowed ({length} vs. {LARGEST} bytes)")
    return await _read(stream, length)


async def _read(stream: Stream, size: int) -> bytes:
    try:
        data = await stream.recv_data(size)
    except AssertionError as error:  # grpclib's way to say that the stream ended in the middle
        raise StreamTerminatedError("the answer was cut short") from error
    if not data and stream.trailers is None:
        raise StreamTerminatedError("the answer ended without a status")
    return data


def _check_is_grpc(headers: Mapping[str, str]) -> None:
    http_status = headers.get(":status")
    if http_status != "200":
        raise StatusError(_OF_HTTP.get(http_status or "", Code.UNKNOWN), f"HTTP status {http_status}", not_grpc=True)
    if not headers.get("content-type", "").startswith("application/grpc"):
        raise StatusError(Code.UNKNOWN, f"not a gRPC answer but {headers.get('content-type')!r}", not_grpc=True)


def status(headers: Mapping[str, str]) -> StatusError:
    """The status a driver sent. A number without a name stays that number."""
    number = headers.get("grpc-status", "")
    if not number.isascii() or not number.isdigit():
        return StatusError(Code.UNKNOWN, f"the driver answered with the status {number!r}", not_grpc=True)
    # Percent-encoded UTF-8; some servers leave out the percent-encoding, and the bytes came as Latin-1.
    message = unquote_to_bytes(headers.get("grpc-message", "").encode("latin-1")).decode("utf-8", "replace")
    return StatusError(int(number), message)


def decode(method: str, body: bytes, response_type: type[ResponseT]) -> ResponseT:
    try:
        return response_type.parse(body)
    except Exception as error:
        raise CallError(Code.INTERNAL, f"the answer is no {response_type.__name__}: {error}", method) from error
