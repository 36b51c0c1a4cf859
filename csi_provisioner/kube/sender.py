"""Sends what is to be asked, and has an answer or a KubeError for it.

`asking` says what; `transport` moves the bytes. Between them, here: the target and the
header, the deadline of each request and its place in the client-side limit, credentials and their renewal on 401,
waiting out `Retry-After`, and the error that a bad status is.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, urlencode

import msgspec
import trio

from csi_provisioner.kube.asking import Ask
from csi_provisioner.kube.config import Cluster
from csi_provisioner.kube.connection import Begin
from csi_provisioner.kube.credentials import header
from csi_provisioner.kube.errors import KubeError, from_status
from csi_provisioner.kube.limits import TokenBucket
from csi_provisioner.kube.transport import Answer, Transport

# Half the API server's own request limit (60 s). A write that takes longer is treated as lost.
DEADLINE = 30.0
# Ten waits of the usual 1 s stay within a request's deadline
MOST_WAITS = 10
MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})


class Sender(msgspec.Struct, eq=False, dict=True):
    """`limit` counts all but streams."""

    transport: Transport
    cluster: Cluster
    user_agent: str
    limit: TokenBucket | None = None

    def __post_init__(self) -> None:
        server = self.cluster.server
        self._prefix = f"{self.cluster.origin}{server.path}/"
        # compressed answers cost both sides more than loopback or a data centre's network does
        common = [("Host", server.authority), ("Accept", "application/json"), ("Accept-Encoding", "identity")]
        self._common = _lines([*common, ("User-Agent", self.user_agent), *self.cluster.headers])
        self._value: str | None = None
        self._head = self._common
        """`_common` and the credential `_value`."""
        self._dated: tuple[bytes, float] | None = None

    def server_time(self) -> float:
        """Seconds since 1970 by the API server's clock, as its last answer told it; by ours before that."""
        if self._dated is not None:
            with suppress(ValueError, OverflowError):
                return _parsed(self._dated[0]) + trio.current_time() - self._dated[1]
        return time.time()

    async def send(self, ask: Ask, begin: Begin = None) -> bytes:
        """The body of a good answer."""
        if self.limit is not None:  # not part of the deadline: the server is not to blame
            await self.limit.admit(ask.method, self._target(ask))
        with trio.move_on_after(DEADLINE):
            return await (await self._accepted(ask, begin)).whole()
        raise _late()

    async def open_stream(self, ask: Ask) -> Answer:
        """A good answer, whose body is read and closed by the caller."""
        with trio.move_on_after(DEADLINE):
            return await self._accepted(ask, stream=True)
        raise _late()

    def _target(self, ask: Ask) -> str:
        target = self._prefix + quote(ask.url)
        return f"{target}?{urlencode(ask.params)}" if ask.params else target

    async def _accepted(self, ask: Ask, begin: Begin = None, *, stream: bool = False) -> Answer:
        method, target, body, about_body = ask.method, self._target(ask), b"", b""
        if ask.data is not None:
            body = msgspec.json.encode(ask.data)
            type_ = (ask.headers or {}).get("Content-Type", "application/json")
            about_body = f"Content-Type: {type_}\r\nContent-Length: {len(body)}\r\n".encode()
        credentials, waits, renewed = self.cluster.credentials, 0, False
        while True:
            value = await credentials.authorization()
            # Most requests have the credential of the one before: its header is made once.
            if value != self._value:
                self._value, self._head = value, self._common
                if value is not None:
                    self._head += _lines([("Authorization", value)])
            head = self._head + about_body
            answer = await self.transport.exchange(method, target, head, body, stream=stream, begin=begin)
            if date := answer.headers.get(b"date"):
                self._dated = date, trio.current_time()
            if 200 <= answer.status < 300:
                return answer
            after = answer.headers.get(b"retry-after", b"")
            error = from_status(await answer.whole(), answer.status, float(after) if after.isdigit() else None)
            # A port of TLS that is asked without it says so in these words.
            if error.code == 400 and self.cluster.server.scheme == "http" and "HTTPS" in error.message:
                raise KubeError(0, "WantsTLS", error.message)
            if error.code == 401 and not renewed and await credentials.refused(value):
                renewed = True
                continue
            pause = pause_before_next(error, method)
            if pause is None or waits == MOST_WAITS:
                raise error
            await trio.sleep(pause)
            waits += 1


@lru_cache(maxsize=1)  # it is the same header for a whole second
def _parsed(date: bytes) -> float:
    # The one form that a server may send (RFC 9110, 5.6.7). The standard library's parser comes with all of `email`.
    _, day, month, year, clock, zone = date.split()
    if len(date) != len("Thu, 01 Jan 2026 00:00:00 GMT") or zone != b"GMT":
        raise ValueError
    hour, minute, second = map(int, clock.split(b":"))
    return datetime(int(year), MONTHS.index(month) + 1, int(day), hour, minute, min(second, 59), tzinfo=UTC).timestamp()


def _late() -> KubeError:
    return KubeError(0, "Timeout", f"no answer within {DEADLINE:g} s")


def _lines(fields: Sequence[tuple[str, str]]) -> bytes:
    """Header lines, in UTF-8: users who are acted for may have any name."""
    return "".join(f"{name}: {header(value)}\r\n" for name, value in fields).encode()


def pause_before_next(error: KubeError, method: str) -> float | None:
    """Seconds the server wants us to wait, if asking again is right: it has refused to look at the request.

    A 503 may come from something in between that does not know, so there only what can be done twice is.
    """
    if error.code != 429 and not (error.code == 503 and method in IDEMPOTENT):
        return None
    pause = error.retry_after
    late = pause is None or trio.current_time() + pause > trio.current_effective_deadline()
    return None if late else pause
