"""What can go wrong with the API server, in one class: everything below (HTTP, TLS, JSON, credentials) is mapped to it.

An answer's status is mapped here, what goes wrong on a connection in `connection`, what the decoder says in `answer`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from csi_provisioner.advice import kustomization
from csi_provisioner.model.outcome import TryError

# Bodies of proxies and load balancers are whole pages; a line of one is enough to know it
LONGEST_TEXT = 300
# Seconds of `Retry-After` that are obeyed: something broken in between must not stop the work for a year
LONGEST_WAIT = 3600.0
# What the API server itself says is longer, such as all that is wrong with an object; an event takes half of this
LONGEST_MESSAGE = 2048
# What msgspec raises: beside its own errors those of text that is no UTF-8 and of a thousand nested brackets
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(eq=False, repr=False)
class KubeError(TryError):
    """A request that was not answered as wanted. `str()` is for people: what was done to what, and what came back."""

    code: int
    """The HTTP status, or that of an ERROR event; 0: there was no answer, or none that makes sense."""
    reason: str = ""
    """The API's word, such as `AlreadyExists`; without an answer a word of ours, such as `Timeout`."""
    message: str = ""
    retry_after: float | None = None
    causes: tuple[str, ...] = ()
    """Reasons of `details.causes`, such as `ResourceVersionTooLarge`."""
    missing: tuple[str, str] | None = None
    """Plural kind and name of what does not exist, by the API server's own word (a Status of reason NotFound)."""
    doing: str = ""
    """Such as `get PersistentVolume pvc-1`."""
    not_found: bool = False
    """That is the very object that was asked for. Any other 404 says nothing about it: a namespace, a kind that is not
    served just now, a load balancer."""

    def __post_init__(self) -> None:
        if self.retry_after is not None:
            self.retry_after = max(0.0, min(self.retry_after, LONGEST_WAIT))
        self.kind = f"api {self.code}"

    def __str__(self) -> str:
        answered = f"{self.code} {self.reason}".strip() if self.code else self.reason
        text = f"{self.message} ({answered})" if self.message and answered else self.message or answered
        return f"{self.doing}: {text}" if self.doing else text

    @property
    def already_exists(self) -> bool:
        return self.code == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """Somebody else has written in between."""
        return self.code == 409 and self.reason != "AlreadyExists"

    @property
    def forbidden(self) -> bool:
        return self.code == 403

    @property
    def unavailable(self) -> bool:
        """Asking the same again later may well work."""
        # A 404 that names nothing comes from something in between, or of a kind that is not served just now.
        return self.code in (0, 429) or self.code >= 500 or (self.code == 404 and self.missing is None)


class Troubles:
    """What keeps a part of the process from its work: people are told once when it begins, and once when it is over.

    `told_by_all` are the causes that any part has told: an outage that all of them meet is one line.
    """

    def __init__(self, told_by_all: set[str]) -> None:
        self._told_by_all = told_by_all
        self._told: dict[str, set[str]] = {}

    def __contains__(self, what: str) -> bool:
        return what in self._told

    def is_news(self, what: str, cause: str) -> bool:
        told = self._told.setdefault(what, set())
        news = cause not in told | self._told_by_all
        told.add(cause)
        self._told_by_all.add(cause)
        return news

    def over(self, *whats: str) -> bool:
        """Whether anything was told of them, that nobody else has found to be over meanwhile."""
        causes = {cause for what in whats for cause in self._told.pop(what, ())} & self._told_by_all
        self._told_by_all -= causes
        return bool(causes)


@contextmanager
def unless_gone() -> Iterator[None]:
    """That the very object does not exist any more is no error."""
    try:
        yield
    except KubeError as error:
        if not error.not_found:
            raise


class _Cause(msgspec.Struct, gc=False):
    reason: str = ""


class _Details(msgspec.Struct, gc=False):
    group: str = ""
    kind: str = ""
    name: str = ""
    causes: list[_Cause] | None = None
    retryAfterSeconds: float | None = None


class Status(msgspec.Struct, gc=False):
    """The fields of the API's `Status` that somebody reads."""

    kind: str = ""
    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


def from_status(body: bytes, code: int = 0, retry_after: float | None = None) -> KubeError:
    """The error an answer tells of. What is not a `Status` (a proxy's page) is quoted, shortened."""
    try:
        status = msgspec.json.decode(body, type=Status, strict=False)  # a code may be text
    except UNDECODABLE:
        status = Status()
    if status.kind != "Status":
        text = " ".join(body[: 8 * LONGEST_TEXT].decode("utf-8", "replace").split())
        return KubeError(code, "", text[:LONGEST_TEXT], retry_after=retry_after)
    details = status.details or _Details()
    causes = tuple(cause.reason for cause in details.causes or ())
    if retry_after is None:
        retry_after = details.retryAfterSeconds
    code = code or status.code
    missing = (details.kind, details.name) if code == 404 and status.reason == "NotFound" and details.name else None
    text, reason = status.message[:LONGEST_MESSAGE], status.reason[:LONGEST_TEXT]
    verb = text.partition(" cannot ")[2].partition(" ")[0]  # nothing where a quota or a webhook does not want it
    folder = kustomization(details.group, details.kind, verb)
    if code == 403 and folder and verb:
        text += f"; kustomize/{folder} grants it"
    return KubeError(code, reason, text, retry_after=retry_after, causes=causes, missing=missing)
