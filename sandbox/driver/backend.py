"""The queue behind the driver, if `config` asks for one: calls wait for their requests, and may be given up."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from sandbox.driver import config
from sandbox.driver.state import Refused


@dataclass(eq=False)
class _Job:
    work: Callable[[], Awaitable[Any]]
    over: trio.Event = field(default_factory=trio.Event)
    answer: Any = None
    error: Exception | None = None
    given_up: bool = False


class Queue:
    """`run` has to run."""

    def __init__(self, backend: config.Backend, *, seed: int = 0) -> None:
        self._config = backend
        self._random = random.Random(seed)
        self._queue = trio.Lock()  # first come, first served
        self._going: set[str] = set()
        self._done: set[str] = set()  # what is there needs no more requests
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def call(self, volume: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do the work for the volume once its requests are served. Raises what it raises, and Refused."""
        if volume in self._done:
            return await work()
        if volume in self._going:
            raise Refused("ABORTED", f"an operation for {volume} is under way")
        if self._config.after_timeout == "drop":
            for _ in range(self._config.requests):
                await self._request()
            self._done.add(volume)
            return await work()
        assert self._nursery is not None
        job = _Job(work)
        self._nursery.start_soon(self._go_on, volume, job)
        try:
            await job.over.wait()
        except trio.Cancelled:
            job.given_up = True
            raise
        if job.error is not None:
            raise job.error
        return job.answer

    async def _go_on(self, volume: str, job: _Job) -> None:
        goes_on = self._config.after_timeout == "go_on"
        if goes_on:
            self._going.add(volume)
        for _ in range(self._config.requests):
            if job.given_up and not goes_on:
                return
            await self._request()
        self._going.discard(volume)
        if goes_on or not job.given_up:
            self._done.add(volume)
            try:
                job.answer = await job.work()
            except Refused as refused:
                job.error = refused
        job.over.set()

    async def _request(self) -> None:
        async with self._queue:
            rate = self._config.rate
            await trio.sleep(self._random.expovariate(rate) if self._config.noise else 1 / rate)
