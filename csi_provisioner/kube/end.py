"""When this process has to be over, and what may be begun and finished until then (design.md 3, rule 9).

Two things end it. A stop: its moment only comes nearer. And the lease, unless it is renewed: counted from the sending
of the last renewal that succeeded, on Trio's clock and on one that also runs while the machine sleeps.
"""

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

# Seconds for all that is shielded, where no lease sets them
SHIELDED = 5.0

Moment = tuple[float, float]
"""The same moment on both clocks."""


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class End:
    """`shielded`: the seconds that all shields together have, once what surrounds them is cancelled."""

    def __init__(self, shielded: float = SHIELDED, clock: Callable[[], float] = boottime) -> None:
        self.shielded = shielded
        self._clock = clock
        self.gone_by = math.inf
        """When the process has to be over, on Trio's clock, as far as is known now."""
        self.in_doubt = False
        """The last renewal failed: the API server may be away, and the cluster another one when it is back."""
        self._lease: Moment = (math.inf, math.inf)
        self._scopes: set[trio.CancelScope] = set()

    def now(self) -> Moment:
        return trio.current_time(), self._clock()

    def renewed(self, sent: Moment, duration: float) -> None:
        """The lease is ours for another `duration` from that moment on."""
        self._lease, self.in_doubt = (sent[0] + duration, sent[1] + duration), False

    def may_begin(self) -> bool:
        """Whether the lease, if there is one, is still ours for certain."""
        return self._left() > 0

    def deadline(self) -> float:
        """On Trio's clock, as far as is known now."""
        return min(self.gone_by, trio.current_time() + self._left())

    def _left(self) -> float:
        """Seconds of the lease, by the clock that has gone further."""
        here, awake = self._lease
        return min(here - trio.current_time(), awake - self._clock())

    def stop_by(self, moment: float) -> None:
        """`moment` is on Trio's clock; it holds for open shields too."""
        # Never later: a second wish to stop may only hurry.
        self.gone_by = min(self.gone_by, moment)
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, self.gone_by)

    @asynccontextmanager
    async def shield(self, seconds: float, hurry: Callable[[], None] | None = None) -> AsyncIterator[trio.CancelScope]:
        """Its body goes on for `seconds`, even if what surrounds it is cancelled: then for no longer than is left, and
        `hurry` is called. The code after it is always reached."""

        async def shrink() -> None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                # Kept here: else the shield's own end would raise it, before anybody can say what was not finished.
                scope.deadline = min(scope.deadline, trio.current_time() + self.shielded, self.deadline())
                if hurry is not None:
                    hurry()

        async with trio.open_nursery() as nursery:
            # In peace the lease sets no limit: it is renewed meanwhile.
            deadline = min(trio.current_time() + seconds, self.gone_by)
            with trio.CancelScope(shield=True, deadline=deadline) as scope:
                self._scopes.add(scope)
                nursery.start_soon(shrink)
                try:
                    yield scope
                finally:
                    self._scopes.discard(scope)
            nursery.cancel_scope.cancel()
