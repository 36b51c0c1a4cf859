"""A clock for a world that is all in memory, and sleeping by it: what a history costs is mostly waiting."""

import heapq
import itertools
import math
from typing import Any, cast

import trio


class Clock(trio.abc.Clock):
    """Jumps as soon as everybody waits. As nothing comes from outside, nothing is waited for before it jumps, which
    Trio's own has to do."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, int, trio.lowlevel.Task]] = []
        self._numbers = itertools.count()

    def start_clock(self) -> None:
        return

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        due = min(deadline, self._sleepers[0][0] if self._sleepers else math.inf)
        if due == math.inf:  # the run is over
            return due
        self._now = max(self._now, due)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            trio.lowlevel.reschedule(heapq.heappop(self._sleepers)[2])
        return 0.0


async def sleep_until(due: float) -> None:
    """As Trio's, at a fifth of its cost: without a cancel scope."""
    clock = cast("Clock", trio.lowlevel.current_clock())
    sleeper = (due, next(clock._numbers), trio.lowlevel.current_task())
    heapq.heappush(clock._sleepers, sleeper)

    def abort(_raise: Any) -> trio.lowlevel.Abort:
        clock._sleepers.remove(sleeper)
        heapq.heapify(clock._sleepers)
        return trio.lowlevel.Abort.SUCCEEDED

    await trio.lowlevel.wait_task_rescheduled(abort)


async def sleep(seconds: float) -> None:
    await sleep_until(trio.current_time() + seconds)
