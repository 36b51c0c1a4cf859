"""The API server of the events' tests, and a recorder that writes to it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from csi_provisioner.kube.client import connect, resolve
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.settings import ClusterSettings
from tests.kube.objects import claim
from tests.kube.wire import Asked, HangupError, gone, reply, serving

TEN_O_CLOCK = 1_792_231_200_000_000_000  # 2026-10-17T10:00:00Z in nanoseconds
CLAIM = claim("c", 7)


class EventApi:
    """Keeps events as the API server does. `script` answers the next requests instead: a status, or "lost"."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.writes: list[str] = []
        self.script: list[tuple[int, str] | str] = []
        self.always: tuple[int, str] | None = None
        self.slow = 0.0
        self.asked = 0

    async def answer(self, asked: Asked, stream: trio.abc.Stream) -> None:
        self.asked += 1
        if self.slow:
            await trio.sleep(self.slow)
        said = self.script.pop(0) if self.script else self.always
        body = json.loads(asked.body)
        if isinstance(said, tuple):
            code, reason, *details = said
            status = {"kind": "Status", "code": code, "reason": reason, "message": reason, "details": (*details, {})[0]}
            await stream.send_all(reply(code, json.dumps(status).encode()))
            return
        code, body = self.create(asked, body) if asked.method == "POST" else self.patch(asked, body)
        if said == "lost":
            raise HangupError
        await stream.send_all(reply(code, json.dumps(body).encode()))

    def create(self, asked: Asked, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = f"{asked.target}/{body['metadata']['name']}"
        if name in self.stored:
            return 409, {"kind": "Status", "code": 409, "reason": "AlreadyExists"}
        self.stored[name] = body
        self.writes.append(f"new {body['reason']} x{body['count']}")
        return 201, body

    def patch(self, asked: Asked, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if asked.target not in self.stored:
            return 404, gone("events", asked.target.rpartition("/")[2])
        assert asked.headers["content-type"] == "application/merge-patch+json"
        self.stored[asked.target] |= body
        self.writes.append(f"{self.stored[asked.target]['reason']} x{body['count']}")
        return 200, self.stored[asked.target]

    def only(self) -> dict[str, Any]:
        (event,) = self.stored.values()
        return event


@asynccontextmanager
async def recording(
    api: EventApi, busy: Callable[[], bool] = lambda: False, now: Callable[[], int] = lambda: TEN_O_CLOCK
) -> AsyncIterator[EventRecorder]:
    async with serving(api.answer) as server, trio.open_nursery() as nursery:
        client = connect(resolve(ClusterSettings(master=f"http://127.0.0.1:{server.port}")), user_agent="test/1")
        recorder = EventRecorder(client, "d_host_1", busy=busy, now=now, random=lambda: 0.5)
        await nursery.start(recorder.run)
        yield recorder
        nursery.cancel_scope.cancel()
        client.close()
