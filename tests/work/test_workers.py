"""Who makes the next call: design.md 7, on virtual time."""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from csi_provisioner.metrics import Metrics
from csi_provisioner.model.outcome import DONE, Attempt, Outcome, Retry
from csi_provisioner.model.state import Lane
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import Loop
from csi_provisioner.work.workers import Workers
from tests.work.test_runner import loop

HANGS, QUICK, RECOVERY = Lane("hangs"), Lane("quick"), Lane(source="recovery")


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


async def test_a_call_waits_until_a_worker_is_free() -> None:
    workers, order = Workers(2), list[str]()

    async def call(name: str) -> None:
        async with workers.call(QUICK):
            order.append(name)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for name in ("first", "second", "third"):
            nursery.start_soon(call, name)
            await trio.testing.wait_all_tasks_blocked()
        assert workers.is_short
        assert len(order) == 2
    assert order == ["first", "second", "third"]


async def test_recoveries_have_a_lane_with_a_bound_beside_the_claims() -> None:
    workers, running, most = Workers(12, fixed={RECOVERY: 4}), {QUICK: 0, RECOVERY: 0}, {QUICK: 0, RECOVERY: 0}

    async def call(lane: Lane) -> None:
        async with workers.call(lane):
            running[lane] += 1
            most[lane] = max(most[lane], running[lane])
            await trio.sleep(1)
            running[lane] -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(call, QUICK)
            nursery.start_soon(call, RECOVERY)
    assert most[RECOVERY] == 4
    assert most[QUICK] >= 8


async def test_a_worker_handed_to_somebody_who_is_just_cancelled_goes_on_to_the_next() -> None:
    workers, got = Workers(1), list[str]()
    leaving, first = trio.CancelScope(), trio.CancelScope()

    last = trio.CancelScope()

    async def call(name: str, scope: trio.CancelScope) -> None:
        with scope:
            async with workers.call(QUICK):
                got.append(name)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for name, scope in (("first", first), ("cancelled", leaving), ("next", last)):
            nursery.start_soon(call, name, scope)
            await trio.testing.wait_all_tasks_blocked()
        leaving.cancel()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert got == ["first", "next"]
        nursery.cancel_scope.cancel()


async def test_eight_lanes_that_ask_for_one_worker_wait_equally_long() -> None:
    workers, waited = Workers(1, several=lambda: True), dict.fromkeys(range(8), 0.0)

    async def ask(number: int) -> None:
        for _ in range(10):
            since = trio.current_time()
            async with workers.call(Lane(str(number))):
                waited[number] += trio.current_time() - since
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for number in waited:
            nursery.start_soon(ask, number)
    assert min(waited.values()) > 60
    assert max(waited.values()) - min(waited.values()) < 8


class Claims:
    """A loop of claims: the reconciler waits for its journal for a moment, calls, and writes the volume. Keys are
    `lane/namespace/number`; calls of the lane `hangs` have no answer until their time is over."""

    def __init__(self, count: int, *, timeout: float = 10.0, takes: Callable[[], float] = lambda: 0.0) -> None:
        self.workers = Workers(count, several=lambda: True)
        self.timeout, self.takes = timeout, takes
        self.begun: list[str] = []
        self.made: dict[str, float] = {}
        self.loop = Loop(
            "claims",
            self.reconcile,
            workers=self.workers.tasks(),
            backoff=Backoff(1.0, 300.0),
            exclusive=Exclusive(),
            metrics=Metrics().queue("claims"),
            place=lambda key: (Lane(key.split("/")[0]), key.split("/")[1]),
        )
        self.workers.changed = self.loop.ranked

    async def reconcile(self, key: str, attempt: Attempt) -> Outcome:
        await trio.sleep(0.05)
        with trio.CancelScope() as scope:
            async with self.workers.call(attempt.lane, key.split("/")[1], attempt.since):
                self.begun.append(key)
                scope.deadline = trio.current_time() + self.timeout
                await trio.sleep(self.timeout * 2 if attempt.lane == HANGS else self.takes())
        if scope.cancelled_caught:
            return Retry("no answer")
        await trio.sleep(0.02)
        self.made[key] = trio.current_time()
        return DONE


@pytest.mark.parametrize("limit", [10.0, 60.0])
@pytest.mark.parametrize("later", [5.0, 0.0], ids=["later", "together"])
async def test_a_class_that_hangs_does_not_keep_the_others_waiting(limit: float, later: float) -> None:
    claims = Claims(100, timeout=limit)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.loop.run)
        for number in range(300):
            claims.loop.wake(f"hangs/a/{number}")
        await trio.sleep(later)
        since = trio.current_time()
        for number in range(300):
            claims.loop.wake(f"quick/a/{number}")
        await trio.sleep(3)
        assert len(claims.made) == 300
        assert max(claims.made.values()) - since <= 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("limit", [10.0, 60.0])
@pytest.mark.parametrize("workers", [4, 8])
async def test_with_few_workers_one_a_second_is_served_at_once(workers: int, limit: float) -> None:
    claims = Claims(workers, timeout=limit)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.loop.run)
        for number in range(300):
            claims.loop.wake(f"hangs/a/{number}")
        await trio.sleep(5)
        for number in range(120):
            claims.loop.wake(f"quick/a/{number}")
            await trio.sleep(1)
            assert f"quick/a/{number}" in claims.made
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("takes", [0.5, 3.0])
@pytest.mark.parametrize("workers", [4, 100])
async def test_five_claims_of_a_small_namespace_are_next(workers: int, takes: float) -> None:
    """Also where all calls take equally long, so that a hundred begin at one moment."""
    claims = Claims(workers, takes=lambda: takes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.loop.run)
        for number in range(5000):
            claims.loop.wake(f"quick/large/{number}")
        await trio.sleep(1.3)
        for number in range(5):
            claims.loop.wake(f"quick/small/{number}")
        before = len(claims.begun)
        await trio.sleep(16 if workers == 4 else 4)
        places = [place for place, key in enumerate(claims.begun[before:], start=1) if "small" in key]
        assert len(places) == 5
        assert max(places) <= 20
        nursery.cancel_scope.cancel()


async def test_the_first_of_a_backlog_go_on_while_the_others_begin() -> None:
    begun, at_first_step = 0, 0

    async def work(key: str, _attempt: Attempt) -> Outcome:
        nonlocal begun, at_first_step
        begun += 1
        await trio.lowlevel.checkpoint()
        at_first_step = at_first_step or begun
        if begun == 100:
            claims.stop()
        return DONE

    claims = loop(work, workers=100)
    for number in range(100):
        claims.wake(str(number))
    await claims.run()
    assert 4 <= at_first_step <= 8
