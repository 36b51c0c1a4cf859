"""Faults on order: which request is delayed, refused, or cut off, and which watches stand still.

A test adds a `Fault`; the next matching requests meet it, `times` times. The connection can be cut before the write
took effect, after it, or in the middle of the answer: the three a client cannot tell apart.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, Protocol

from sandbox.api.errors import ApiError
from sandbox.api.requests import Call

_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(slots=True)
class Fault:
    """What goes wrong for requests that match. Patterns are shell-like; verbs are those of RBAC (get, list, watch,
    create, update, patch, delete, deletecollection)."""

    verb: str = "*"
    kind: str = "*"
    namespace: str = "*"
    name: str = "*"
    subresource: str = "*"
    agent: str = "*"  # the User-Agent of the client
    skip: int = 0  # let this many matching requests pass first
    times: int | None = 1  # None: for ever
    delay: float = 0.0  # seconds before anything else happens
    code: int = 0  # answer with this status and without any effect; in a watch, 410 comes as an event
    message: str = "injected by the test"
    page: str | None = None  # the answer of something in between, which knows of no Status; in a watch all it shows
    retry_after: int | None = None
    cut: Literal["", "before", "after", "answer"] = ""
    hits: int = 0

    def matches(self, call: Call) -> bool:
        return all(
            fnmatchcase(value, pattern)
            for value, pattern in (
                (call.verb, self.verb),
                (call.kind, self.kind),
                (call.namespace, self.namespace),
                (call.name, self.name),
                (call.subresource, self.subresource),
                (call.agent, self.agent),
            )
        )

    def error(self, plural: str, group: str, name: str) -> ApiError:
        """What the API server itself says; it names what it does not have, or does not give."""
        reason = _REASONS.get(self.code, "Unknown")
        named = (self.code == 404 and name) or self.code == 403
        details = {"kind": plural, "group": group, "name": name} if named else {}
        return ApiError(self.code, reason, self.message, details=details, retry_after=self.retry_after)


class OpenWatch(Protocol):
    """A watch as faults see it."""

    call: Call

    def stall(self) -> None: ...
    def resume(self) -> None: ...
    def cut(self) -> None: ...


class Faults:
    """All faults in force, and the watches that are open."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._stalled: list[str] = []
        self.on_review: Callable[[str, str], None] = lambda _asked, _agent: None
        self.denied: set[tuple[str, str]] = set()  # verb and resource that an access review says no to
        self.watches: set[OpenWatch] = set()

    def add(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        self._faults.clear()
        self.denied.clear()
        self.resume_watches()

    def meet(self, call: Call) -> Fault | None:
        """The fault this request runs into, counted as a hit."""
        for fault in self._faults:
            if not fault.matches(call):
                continue
            if fault.skip:
                fault.skip -= 1
            elif fault.times is None or fault.hits < fault.times:
                fault.hits += 1
                return fault
        return None

    def stall_watches(self, kind: str = "*") -> None:
        """Watches of this kind, open now or later, send nothing and stay open, until resumed."""
        self._stalled.append(kind)
        for watch in self._open(kind):
            watch.stall()

    def resume_watches(self) -> None:
        self._stalled.clear()
        for watch in self.watches:
            watch.resume()

    def cut_watches(self, kind: str = "*") -> int:
        """Close the connections of open watches; says how many there were."""
        open_now = list(self._open(kind))
        for watch in open_now:
            watch.cut()
        return len(open_now)

    def opened(self, watch: OpenWatch) -> None:
        self.watches.add(watch)
        if any(fnmatchcase(watch.call.kind, kind) for kind in self._stalled):
            watch.stall()

    def closed(self, watch: OpenWatch) -> None:
        self.watches.discard(watch)

    def _open(self, kind: str) -> Iterator[OpenWatch]:
        return (watch for watch in self.watches if fnmatchcase(watch.call.kind, kind))
