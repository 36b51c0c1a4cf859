"""For how long a queue has taken nothing although it could (process.md 7)."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.diagnostics import health
from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.store import Store
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.outcome import DONE, Attempt, Outcome
from csi_provisioner.model.state import Lane, LeadershipState
from csi_provisioner.supervisor.observer import Observer
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import Loop


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture
def anyio_backend(clock: MockClock) -> object:
    return ("trio", {"clock": clock})


async def nothing(_key: str, _attempt: Attempt) -> Outcome:
    return DONE


class Stuck:
    """A term whose one loop hands nothing out, and its observer."""

    def __init__(self, workers: int = 1) -> None:
        metrics = Metrics().queue("claims")
        self.loop = Loop(
            "claims", nothing, workers=workers, backoff=Backoff(1, 10), exclusive=Exclusive(), metrics=metrics
        )
        self.loop.runs = True
        leadership = SimpleNamespace(state=lambda _begun: LeadershipState())
        self.observer = Observer(cast("Any", leadership), Metrics())
        caches = Caches(claims=Store(), volumes=Store())
        term = SimpleNamespace(loops={self.loop}, caches=caches, began=0.0, pending=lambda **_: ())
        self.observer.term = cast("Any", term)

    def is_alive(self) -> bool:
        return health.text(health.live(self.observer.state()))[0]


async def test_a_key_that_nobody_takes_for_half_a_minute_wants_a_restart() -> None:
    stuck = Stuck()
    stuck.loop.wake("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stuck.observer.run)
        assert stuck.is_alive()
        await trio.sleep(28)
        assert stuck.is_alive()
        await trio.sleep(4)
        assert not stuck.is_alive()
        nursery.cancel_scope.cancel()


async def test_time_in_which_the_process_was_frozen_is_none(clock: MockClock) -> None:
    stuck = Stuck()
    stuck.loop.wake("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stuck.observer.run)
        assert stuck.is_alive()
        await trio.sleep(5)
        clock.jump(60)
        assert stuck.is_alive()
        await trio.sleep(5)
        assert stuck.is_alive()
        nursery.cancel_scope.cancel()


async def test_what_is_taken_now_and_then_is_slow_and_not_stuck() -> None:
    stuck = Stuck()
    stuck.loop.wake("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stuck.observer.run)
        for _ in range(10):
            assert stuck.is_alive()
            await trio.sleep(20)
            stuck.loop.taken += 1
        nursery.cancel_scope.cancel()


async def held_back(stuck: Stuck) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stuck.observer.run)
        for _ in range(10):
            assert stuck.is_alive()
            await trio.sleep(10)
        nursery.cancel_scope.cancel()


async def test_a_pause_a_time_to_come_and_a_stop_hold_a_key_back() -> None:
    paused, later, stopped = Stuck(), Stuck(), Stuck()
    paused.loop.pause()
    paused.loop.wake("a")
    later.loop.wake("a", 3600)
    stopped.loop.stop()
    stopped.loop.wake("a")
    for one in (paused, later, stopped):
        await held_back(one)


async def test_a_loop_that_waits_for_its_caches_is_not_stuck() -> None:
    waiting = Stuck()
    waiting.loop.runs = False
    waiting.loop.wake("a")
    await held_back(waiting)


async def test_without_a_free_worker_a_backlog_waits() -> None:
    busy = Stuck(workers=1)
    busy.loop.lanes.add("at work", Lane(), "", 0.0)
    busy.loop.lanes.pick()
    busy.loop.wake("a")
    await held_back(busy)


async def test_a_key_whose_lane_is_full_is_not_stuck_and_holds_up_no_events() -> None:
    full = Stuck()
    full.loop.lanes.room = lambda lane, running: False
    full.loop.wake("a")
    await held_back(full)
    assert not full.loop.is_behind
