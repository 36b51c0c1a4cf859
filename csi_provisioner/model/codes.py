"""gRPC status codes, by the numbers of the wire and the names Kubernetes metrics use (process.md 8.1)."""

from enum import IntEnum


class Code(IntEnum):
    """A gRPC status code. Codes a newer peer may send beyond these stay plain integers; see `label`."""

    OK = 0
    CANCELED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# The names of the Go library, which dashboards know: all in camel case but OK.
_LABELS = {code: "OK" if code is Code.OK else code.name.title().replace("_", "") for code in Code}


def label(code: int) -> str:
    """`DeadlineExceeded` and so on; `Code(<n>)` for a number without a name."""
    return _LABELS[Code(code)] if code in _LABELS else f"Code({code})"
