"""What came on a stream, to message or status: one row a shape of answer (process.md 4.1, 8.1; design.md 3 rule 7)."""

import pytest

from csi_provisioner.csi import answer
from csi_provisioner.csi.answer import LARGEST
from csi_provisioner.csi.errors import CallError
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code

OK = [(":status", "200"), ("content-type", "application/grpc")]
DONE = [("grpc-status", "0")]


def frame(length: int, flag: int = 0) -> bytes:
    return bytes([flag]) + length.to_bytes(4, "big")


@pytest.mark.parametrize("message", [b"", b"x", b"x" * LARGEST], ids=["empty", "short", "largest"])
def test_a_message(message: bytes) -> None:
    assert answer.read(OK, bytearray(answer.framed(message)), DONE, None) == message


def test_a_message_that_came_before_the_stream_broke() -> None:
    assert answer.read(OK, answer.framed(b"x"), DONE, "reset") == b"x"


STATUSES = {
    "of a driver": (OK, b"", [("grpc-status", "8"), ("grpc-message", "no space")], Code.RESOURCE_EXHAUSTED, "no space"),
    "with headers only": ([*OK, ("grpc-status", "5"), ("grpc-message", "x")], b"", None, Code.NOT_FOUND, "x"),
    "after a message": (OK, answer.framed(b"x"), [("grpc-status", "10")], Code.ABORTED, ""),
    "percent-encoded": (OK, b"", [("grpc-status", "2"), ("grpc-message", "gr%C3%B6%25%0Ax")], Code.UNKNOWN, "grö%\nx"),
    "not percent-encoded": (
        OK,
        b"",
        [("grpc-status", "2"), ("grpc-message", "größer".encode().decode("latin-1"))],
        Code.UNKNOWN,
        "größer",
    ),
    "no UTF-8": (OK, b"", [("grpc-status", "2"), ("grpc-message", "%FF")], Code.UNKNOWN, "\ufffd"),
    "without a name": (OK, b"", [("grpc-status", "99")], 99, ""),
    "OK but no message": (OK, b"", DONE, Code.INTERNAL, "without a message"),
    "OK with headers only": ([*OK, *DONE], b"", None, Code.INTERNAL, "without a message"),
    "compressed": (OK, frame(1, flag=1) + b"x", DONE, Code.INTERNAL, "compressed"),
    "cut in the frame": (OK, b"\0\0", DONE, Code.INTERNAL, "cut short"),
    "cut in the message": (OK, frame(2) + b"x", DONE, Code.INTERNAL, "2 bytes"),
    "two messages": (OK, answer.framed(b"x") * 2, DONE, Code.INTERNAL, "1 bytes"),
    "too large": (OK, frame(LARGEST + 1), None, Code.RESOURCE_EXHAUSTED, "4194305 vs. 4194304"),
    "broken before headers": (None, b"", None, Code.UNAVAILABLE, "reset"),
    "broken in the message": (OK, frame(2) + b"x", None, Code.UNAVAILABLE, "reset"),
    "broken after the message": (OK, answer.framed(b"x"), None, Code.UNAVAILABLE, "reset"),
}


@pytest.mark.parametrize("row", STATUSES.values(), ids=STATUSES)
def test_a_status(row: tuple[list[tuple[str, str]], bytes, list[tuple[str, str]], int, str]) -> None:
    headers, received, trailers, code, text = row
    with pytest.raises(CallError) as caught:
        answer.read(headers, received, trailers, "reset")
    # OK that cannot be read: the call was carried out, so its outcome must stay open
    unreadable = headers is not None and ("grpc-status", "0") in [*headers, *(trailers or [])]
    assert (caught.value.code, caught.value.not_grpc) == (code, unreadable)
    assert text in caught.value.message


def test_an_answer_that_ends_without_a_status_is_broken() -> None:
    with pytest.raises(CallError, match="without a status") as caught:
        answer.read(OK, answer.framed(b"x"), None, None)
    assert caught.value.code == Code.UNAVAILABLE


NOT_GRPC = {
    "HTTP 404": ([(":status", "404")], None, Code.UNIMPLEMENTED),
    "HTTP 503": ([(":status", "503")], None, Code.UNAVAILABLE),
    "HTTP 418": ([(":status", "418")], None, Code.UNKNOWN),
    "content type": ([(":status", "200"), ("content-type", "text/html")], None, Code.UNKNOWN),
    "trailers without status": (OK, [("x", "y")], Code.UNKNOWN),
    "status no number": (OK, [("grpc-status", "fine")], Code.UNKNOWN),
    "status no ASCII": (OK, [("grpc-status", "²")], Code.UNKNOWN),
    "status too long": (OK, [("grpc-status", "9" * 5000)], Code.UNKNOWN),
}


@pytest.mark.parametrize("row", NOT_GRPC.values(), ids=NOT_GRPC)
def test_no_grpc_answer(row: tuple[list[tuple[str, str]], list[tuple[str, str]] | None, int]) -> None:
    headers, trailers, code = row
    with pytest.raises(CallError) as caught:
        answer.read(headers, b"", trailers, None)
    assert (caught.value.code, caught.value.not_grpc) == (code, True)


@pytest.mark.parametrize("message", [b"\x0a\x05ab", b"\x0a\x01\xff", b"\x0b"], ids=["cut", "no UTF-8", "wire type"])
def test_a_message_nobody_can_read(message: bytes) -> None:
    with pytest.raises(CallError, match="no GetPluginInfoResponse") as caught:
        answer.decode(message, csi.GetPluginInfoResponse)
    assert caught.value.code == Code.INTERNAL


@pytest.mark.parametrize(
    ("code", "not_grpc", "shown", "label"),
    [
        (Code.RESOURCE_EXHAUSTED, False, "ResourceExhausted", "ResourceExhausted"),
        (Code.CANCELED, False, "Canceled", "Canceled"),
        (99, False, "Code(99)", "Code(99)"),
        (100, False, "Code(100)", "Code(other)"),
        (9999999999, False, "Code(9999999999)", "Code(other)"),
        (Code.UNKNOWN, True, "Unknown", "unknown-non-grpc"),
    ],
)
def test_the_text_of_an_error(code: int, not_grpc: bool, shown: str, label: str) -> None:
    error = CallError(code, "no space", "/csi.v1.Controller/CreateVolume", not_grpc=not_grpc)
    assert str(error) == f"CreateVolume: rpc error: code = {shown} desc = no space"
    assert error.label == label


def test_an_error_without_a_text_says_so() -> None:
    error = CallError(Code.DEADLINE_EXCEEDED, "", "/csi.v1.Identity/Probe")
    assert str(error) == "Probe: rpc error: code = DeadlineExceeded desc = (the driver gave no reason)"
