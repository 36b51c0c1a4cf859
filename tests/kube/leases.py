"""A Lease on the wire, and processes that want it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import trio

from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.client import connect, resolve
from csi_provisioner.kube.election import LeaderElector
from csi_provisioner.kube.end import End
from csi_provisioner.metrics import Metrics
from csi_provisioner.settings import ClusterSettings, ElectionSettings
from tests.kube.wire import Asked, HangupError, Server, reply, serving


class LeaseApi:
    """Keeps one Lease under its resourceVersion. While `fault` is a status or "hang", that is the answer; "lost": the
    next write is done but not answered. `write_fault`: a status for writes only. `touched_after_get`: somebody writes
    after the next GET. `slow`: seconds before every answer. `watchable`: the Lease may be watched."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.asked: list[tuple[float, str]] = []
        self.fault: int | str | None = None
        self.write_fault: int | None = None
        self.touched_after_get = False
        self.slow = 0.0
        self.events: list[dict[str, Any]] = []
        self.watchable = False
        self.watched: list[tuple[float, str]] = []
        self._watchers: list[trio.MemorySendChannel[bytes]] = []

    async def answer(self, asked: Asked, stream: trio.abc.Stream) -> None:
        if asked.target.endswith("/events"):
            self.events.append(json.loads(asked.body))
            await stream.send_all(reply(201, asked.body))
            return
        if "watch=true" in asked.target:
            self.watched.append((trio.current_time(), asked.target))
            await (self._show(stream) if self.watchable else stream.send_all(reply(403)))
            return
        self.asked.append((trio.current_time(), asked.method))
        await trio.sleep(self.slow)
        if self.fault == "hang":
            await trio.sleep_forever()
        fault = self.write_fault if asked.method != "GET" and self.write_fault else self.fault
        code, body = (fault, None) if isinstance(fault, int) else self.do(asked)
        if self.fault == "lost" and asked.method != "GET":
            self.fault = None
            raise HangupError
        await stream.send_all(reply(code, json.dumps(body or {"kind": "Status", "code": code, "reason": "R"}).encode()))

    def do(self, asked: Asked) -> tuple[int, dict[str, Any] | None]:
        body = json.loads(asked.body) if asked.body else {}
        if asked.method == "GET":
            seen = self.lease
            if seen and self.touched_after_get:
                self.touched_after_get = False
                self.put(seen)
            return (200, seen) if seen else (404, None)
        stored = (self.lease or {"metadata": {}})["metadata"].get("resourceVersion")
        if body["metadata"].get("resourceVersion") != stored:
            return 409, None
        self.put(body)
        return 200, self.lease

    def put(self, lease: dict[str, Any]) -> None:
        self.version += 1
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(self.version)}}
        self.tell("MODIFIED")

    def tell(self, what: str, **fields: Any) -> None:
        """An event to all that watch."""
        line = json.dumps({"type": what, "object": {"kind": "Lease", **(self.lease or {})} | fields}).encode() + b"\n"
        for watcher in self._watchers:
            watcher.send_nowait(b"%x\r\n%b\r\n" % (len(line), line))

    async def _show(self, stream: trio.abc.Stream) -> None:
        send, receive = trio.open_memory_channel[bytes](100)
        self._watchers.append(send)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        async for chunk in receive:
            await stream.send_all(chunk)

    @property
    def holder(self) -> str | None:
        return self.lease["spec"]["holderIdentity"] if self.lease else None


class Candidate:
    """One process: notes when it led; leads until told to stop."""

    def __init__(self, elector: LeaderElector) -> None:
        self.elector = elector
        self.stop = trio.Event()
        self.leads: list[float] = []
        self.ended: list[float] = []
        self.lost: float | None = None

    async def lead(self) -> None:
        self.leads.append(trio.current_time())
        try:
            await self.stop.wait()
        finally:
            self.ended.append(trio.current_time())

    async def run(self) -> None:
        try:
            await self.elector.run(self.lead)
        except Fatal:
            self.lost = trio.current_time()


Start = Callable[..., Awaitable[Candidate]]


@asynccontextmanager
async def candidates(api: LeaseApi, end: End | None = None) -> AsyncIterator[tuple[Start, Server]]:
    with ExitStack() as clients:
        async with serving(api.answer) as server, trio.open_nursery() as nursery:

            async def start(
                identity: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), **settings: Any
            ) -> Candidate:
                cluster = resolve(ClusterSettings(master=f"http://127.0.0.1:{server.port}"))
                may_begin = end.may_begin if end is not None else lambda: True
                client = connect(cluster, user_agent="test/1", may_begin=may_begin)
                clients.callback(client.close)
                candidate = Candidate(
                    LeaderElector(
                        client,
                        ElectionSettings(enabled=True, namespace="ns", **settings),
                        name="lock",
                        identity=identity,
                        metrics=Metrics(),
                        now=now,
                        random=lambda: 0.5,
                        end=end or End(),
                    )
                )
                nursery.start_soon(candidate.run)
                return candidate

            yield start, server
            nursery.cancel_scope.cancel()
