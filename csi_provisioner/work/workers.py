"""Free workers and who gets one: the bound on what runs side by side, shared by loops of two ranks (design.md 6).

What only heals, such as a recovery, takes a worker that nobody else wants, and one in eight in any case, so that a
backlog of living claims never keeps it waiting for ever.
"""

from collections import deque
from typing import Protocol

import trio

# The share of those that come after, while others wait
ONE_IN = 8


class Pool(Protocol):
    """What a loop takes its workers from."""

    @property
    def is_free(self) -> bool: ...

    async def acquire(self) -> None: ...

    def release(self) -> None: ...


class Workers:
    """`count` of them, for a loop that goes first."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: tuple[deque[trio.Event], deque[trio.Event]] = (deque(), deque())
        self._handed_out = 0

    @property
    def is_free(self) -> bool:
        return self._free > 0

    async def acquire(self, *, low: bool = False) -> None:
        """Waits for a worker. A cancellation leaves it to the next one."""
        if self._free > 0:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._free -= 1
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        # An event each, not a lot to park in: who is woken has the worker, also if it is cancelled just then.
        mine = trio.Event()
        self._waiting[low].append(mine)
        try:
            await mine.wait()
        except trio.Cancelled:
            if mine.is_set():
                self.release()
            else:
                self._waiting[low].remove(mine)
            raise

    def release(self) -> None:
        self._handed_out += 1
        high, low = self._waiting
        queue = low if low and (not high or self._handed_out % ONE_IN == 0) else high
        if queue:
            queue.popleft().set()
        else:
            self._free += 1


class Helpers:
    """At most so many of the workers, for a loop that comes after."""

    def __init__(self, workers: Workers, most: int) -> None:
        self._workers = workers
        self._most = trio.Semaphore(most)

    @property
    def is_free(self) -> bool:
        return self._most.value > 0 and self._workers.is_free

    async def acquire(self) -> None:
        # Its own bound first: who waits for it must not hold one of the shared workers.
        await self._most.acquire()
        try:
            await self._workers.acquire(low=True)
        except trio.Cancelled:
            self._most.release()
            raise

    def release(self) -> None:
        self._workers.release()
        self._most.release()
