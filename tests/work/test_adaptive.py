"""A lane finds its bound: design.md 7, against a back end with one queue, on virtual time.

The suite has one course of noise; `NOISES=40` in the environment makes so many.
"""

import math
import os

import pytest
import trio
import trio.testing

from csi_provisioner.metrics import Metrics
from csi_provisioner.model.outcome import DONE, Attempt, Outcome, Retry, TryError
from csi_provisioner.model.state import Lane
from csi_provisioner.work.adaptive import Adaptive
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import Loop
from csi_provisioner.work.workers import Workers
from sandbox.driver import config
from sandbox.driver.backend import Queue
from sandbox.driver.state import Refused

LANE = Lane("slow")
NOISES = range(int(os.environ.get("NOISES", "1")))


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


def round_of(adaptive: Adaptive, seconds: float, *, running: int | None = None) -> int:
    """A whole round of such calls; the bound after it."""
    for _ in range(adaptive.bound):
        round_ = adaptive.begin(adaptive.bound if running is None else running)
        adaptive.answered(round_, seconds)
    return adaptive.bound


def test_the_bound_doubles_while_calls_are_quick_and_grows_by_one_after_that() -> None:
    adaptive = Adaptive(10.0)
    assert [round_of(adaptive, 1.0) for _ in range(3)] == [8, 16, 32]
    assert round_of(adaptive, 6.0) == 33
    assert round_of(adaptive, 1.0) == 34, "doubling ends with the first slower round"
    assert round_of(adaptive, 8.0) == 34


def test_after_the_doubling_a_round_that_is_not_quick_shows_the_slowest_tenth() -> None:
    adaptive = Adaptive(10.0)
    adaptive.timed_out(begun=0.0, now=10.0)
    assert [round_of(adaptive, 4.0) for _ in range(3)] == [3, 4, 5]
    adaptive.timed_out(begun=11.0, now=21.0)
    adaptive.timed_out(begun=22.0, now=32.0)

    def bound_after(slow: int) -> int:
        for number in range(20):
            adaptive.answered(adaptive.begin(adaptive.bound), 8.0 if number < slow else 1.0)
        return adaptive.bound

    assert bound_after(slow=2) == 2
    assert bound_after(slow=1) == 3
    assert bound_after(slow=1) == 4


def test_a_bound_that_was_not_in_use_does_not_grow() -> None:
    assert round_of(Adaptive(10.0), 1.0, running=3) == 4


def test_a_call_without_an_answer_cuts_once_for_all_that_began_before() -> None:
    adaptive = Adaptive(10.0)
    round_of(adaptive, 1.0)
    assert adaptive.timed_out(begun=1.0, now=11.0)
    assert adaptive.bound == 5
    assert not adaptive.timed_out(begun=2.0, now=11.5)
    assert not adaptive.timed_out(begun=11.0, now=12.0)
    assert adaptive.timed_out(begun=11.5, now=21.5)
    for began in (30.0, 50.0, 70.0):
        adaptive.timed_out(begun=began, now=began + 10)
    assert (adaptive.bound, adaptive.cuts) == (2, 5)


def test_calls_of_an_earlier_round_do_not_count() -> None:
    adaptive = Adaptive(10.0)
    early = adaptive.begin(4)
    round_of(adaptive, 1.0)
    assert not any(adaptive.answered(early, 9.0) for _ in range(20))
    assert adaptive.bound == 8


class NoAnswerError(TryError):
    timed_out = True


class Claims:
    """`count` of them, made by a driver with such a back end."""

    def __init__(
        self, backend: config.Backend, *, limit: float, adaptive: bool = True, workers: int = 100, seed: int = 0
    ) -> None:
        self.limit = limit
        self.backend = Queue(backend, seed=seed)
        self.workers = Workers(workers, limit=limit if adaptive else None)
        self.failed = 0
        self.made: set[str] = set()
        self.done = trio.Event()
        self.loop = Loop(
            "claims",
            self.reconcile,
            workers=self.workers.tasks(),
            backoff=Backoff(1.0, 300.0),
            exclusive=Exclusive(),
            metrics=Metrics().queue("claims"),
            place=lambda key: (LANE, ""),
        )
        self.workers.changed = self.loop.ranked

    async def reconcile(self, key: str, attempt: Attempt) -> Outcome:
        try:
            async with self.workers.call(attempt.lane, "", attempt.since):
                await self.create(key)
        except (TryError, Refused):
            self.failed += 1
            return Retry("failed")
        self.made.add(key)
        if len(self.made) == self.count:
            self.done.set()
        return DONE

    async def create(self, key: str) -> None:
        with trio.move_on_after(self.limit):
            await self.backend.call(key, trio.lowlevel.checkpoint)
            return
        raise NoAnswerError

    async def minutes(self, count: int, most: float = math.inf) -> float:
        """Until all are made, or that time is over."""
        self.count, since = count, trio.current_time()
        async with trio.open_nursery() as nursery:
            await nursery.start(self.backend.run)
            nursery.start_soon(self.loop.run)
            for number in range(count):
                self.loop.wake(str(number))
            with trio.move_on_after(60 * most):
                await self.done.wait()
            nursery.cancel_scope.cancel()
        return (trio.current_time() - since) / 60


@pytest.mark.parametrize("after", ["drop", "serve", "go_on"])
@pytest.mark.parametrize("limit", [60.0, 10.0])
async def test_a_slow_back_end_makes_all_volumes_in_its_own_time(limit: float, after: str) -> None:
    """15 minutes are what 600 volumes take there, if nothing is lost."""
    claims = Claims(config.Backend(rate=2, requests=3, after_timeout=after), limit=limit)  # type: ignore[arg-type]
    assert await claims.minutes(600) <= 16
    assert claims.failed <= 20


@pytest.mark.parametrize("after", ["drop", "serve", "go_on"])
@pytest.mark.parametrize("seed", NOISES)
async def test_a_noisy_back_end_loses_little(after: str, seed: int) -> None:
    backend = config.Backend(rate=2, requests=3, after_timeout=after, noise=True)  # type: ignore[arg-type]
    claims = Claims(backend, limit=10.0, seed=seed)
    assert await claims.minutes(600) <= 17
    assert claims.failed <= 100


async def test_a_fixed_number_of_workers_makes_hardly_any() -> None:
    claims = Claims(config.Backend(rate=2, requests=3, after_timeout="serve"), limit=10.0, adaptive=False)
    await claims.minutes(600, most=2)
    assert claims.failed > 10 * len(claims.made)


async def test_a_driver_that_is_slow_by_itself_stays_at_four() -> None:
    claims = Claims(config.Backend(rate=1e6), limit=10.0)

    async def create(key: str) -> None:
        await trio.sleep(8.0)

    claims.create = create  # type: ignore[method-assign]
    assert await claims.minutes(40) == pytest.approx(40 / 4 * 8 / 60)
