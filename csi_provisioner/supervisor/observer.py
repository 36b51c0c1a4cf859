"""What the process knows of itself, in one value for all who show it (`model/state`)."""

from collections.abc import Iterator

import msgspec
import trio

from csi_provisioner.metrics import Labelled, LaneCounts, Metrics
from csi_provisioner.model.state import Details, DriverState, State
from csi_provisioner.work.runner import Loop

from .connection import Connection
from .leading import Leadership
from .picture import Rates
from .rights import Rights
from .term import LeaderTerm

# Seconds between looks at the queues, and the most that one look counts: time in which the process was frozen or
# throttled is no time in which it could have worked.
TICK, MOST = 1.0, 2.0


class Observer:
    def __init__(self, leadership: Leadership, metrics: Metrics) -> None:
        self.began = trio.current_time()
        self.connection: Connection | None = None
        self.term: LeaderTerm | None = None
        self.rights: Rights | None = None
        self.ended: set[str] = set()
        """Tasks that should run for ever and do not."""
        self.rates = Rates(metrics.totals)
        self._leadership = leadership
        self._doubted = trio.Event()
        self._stalled: dict[Loop, tuple[int, float]] = {}

    def state(self, *, details: bool = False) -> State:
        loops = sorted(self.term.loops, key=lambda loop: loop.name) if self.term is not None else []
        begun = trio.current_time() - self.term.began if self.term is not None else None
        caches = self.term.caches if self.term is not None else None
        # Counting begins with the first probe that finds a key due, and ends by itself.
        if any(loop.may_take for loop in loops):
            self._doubted.set()
        failures = sorted((failure for loop in loops for failure in loop.failures()), key=lambda failure: failure.ago)
        driver = self._driver()
        return State(
            driver=driver,
            leadership=self._leadership.state(begun),
            begun=begun is not None,
            unsynced=tuple(sorted(caches.unsynced)) if caches is not None else (),
            queues=tuple(loop.state(self._stalled.get(loop, (0, 0.0))[1]) for loop in loops),
            failures=tuple(failures),
            rights=self.rights.state if self.rights is not None else State().rights,
            pending=self.term.pending(driver_away=not driver.ready) if self.term is not None else (),
            lags=tuple((kind, lag()) for kind, lag in caches.lags.items()) if caches is not None else (),
            ended=(*sorted(self.ended), *(f"watch of {kind}" for kind in sorted(caches.ended if caches else ()))),
            up=trio.current_time() - self.began,
            details=self._details(driver) if details else None,
        )

    def _details(self, driver: DriverState) -> Details:
        found = self.term.details(driver_ready=driver.ready) if self.term is not None else Details()
        return msgspec.structs.replace(found, rates=self.rates.states())

    def _driver(self) -> DriverState:
        connection = self.connection
        if connection is None or not connection.facts.name:
            return DriverState()
        facts, away = connection.facts, trio.current_time() - connection.away_since if connection.is_away else None
        return DriverState(
            facts.name,
            away is None,
            away,
            connection.driver.version,
            tuple(sorted(facts.plugin)),
            tuple(sorted(facts.controller)),
            facts.topology,
        )

    async def run(self) -> None:
        """Counts until cancelled for how long queues have taken nothing, although they could.

        Only while somebody has asked and one of them could: most of the time nothing is to be counted.
        """
        while True:
            await self._doubted.wait()
            last = trio.current_time()
            while self._count(min(trio.current_time() - last, MOST)):
                last = trio.current_time()
                await trio.sleep(TICK)
            self._doubted = trio.Event()

    def _count(self, seconds: float) -> bool:
        """Whether any queue could take something and does not."""
        counted = {}
        for loop in self.term.loops if self.term is not None else ():
            taken, stalled = self._stalled.get(loop, (loop.taken, 0.0))
            if loop.may_take and loop.taken == taken:
                counted[loop] = taken, stalled + seconds
        self._stalled = counted
        return bool(counted)


def gauges(state: State) -> tuple[Labelled, Labelled, Labelled]:
    """As `Metrics.ask` wants them."""
    pending: dict[tuple[str, ...], float] = {}
    oldest: dict[tuple[str, ...], float] = {}
    for found in state.pending:
        pending[found.class_, found.reason] = found.count
        oldest[(found.class_,)] = max(oldest.get((found.class_,), 0.0), found.oldest)
    return pending, oldest, {(kind,): lag for kind, lag in state.lags}


def lanes(state: State) -> Iterator[LaneCounts]:
    """As `Metrics.lanes` wants them."""
    for queue in state.queues:
        for found in queue.lanes:
            yield LaneCounts(queue.name, *found.lane, found.calls, found.bound, found.cuts, found.waited)
