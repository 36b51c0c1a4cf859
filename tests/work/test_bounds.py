"""Calls of a class have a bound, over all lanes and over creations and deletions together (design.md 7)."""

import pytest
import trio
import trio.testing

from csi_provisioner.model.state import Lane, LaneState
from csi_provisioner.planning.wellknown import CLAIM_KIND
from csi_provisioner.work.bounds import Bounds, StoppedError
from csi_provisioner.work.workers import Workers

FAST, CLONES, OTHER = Lane("fast"), Lane("fast", CLAIM_KIND), Lane("other")


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


class Calls:
    """Two pools with the bounds in common; every call takes a second."""

    def __init__(self, bounds: Bounds) -> None:
        self.creates, self.deletes = Workers(10, bounds=bounds), Workers(10, bounds=bounds)
        self.running: dict[str, int] = {}
        self.stopped = 0

    async def call(self, workers: Workers, lane: Lane) -> None:
        try:
            async with workers.call(lane):
                self.running[lane.class_] = self.running.get(lane.class_, 0) + 1
                await trio.sleep(1)
                self.running[lane.class_] -= 1
        except StoppedError:
            self.stopped += 1

    def all_at_once(self, nursery: trio.Nursery, count: int) -> None:
        for _ in range(count):
            for workers, lane in ((self.creates, FAST), (self.creates, CLONES), (self.deletes, FAST)):
                nursery.start_soon(self.call, workers, lane)
            nursery.start_soon(self.call, self.creates, OTHER)


def test_of_flag_and_annotation_the_smaller_wins() -> None:
    bounds = Bounds({"fast": 4})
    assert bounds.of("other") is None
    for annotated, expected in ((7, 4), (2, 2), (0, 0), (None, 4)):
        bounds.annotate("fast", annotated)
        assert bounds.of("fast") == expected


async def test_a_bound_holds_over_all_lanes_and_creations_and_deletions_together() -> None:
    bounds = Bounds({"fast": 3})
    calls = Calls(bounds)
    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        calls.all_at_once(nursery, 6)
        await trio.sleep(0.5)
        assert calls.running == {"fast": 3, "other": 6}
        assert not calls.creates.is_short, "a full lane is no shortage of workers"
        for _ in range(6):
            seen.append(calls.running["fast"])
            await trio.sleep(1)
        assert calls.running["fast"] == 0
    assert seen == [3] * 6


async def test_a_bound_that_is_changed_holds_at_once() -> None:
    bounds = Bounds({})
    calls = Calls(bounds)
    bounds.annotate("fast", 1)
    async with trio.open_nursery() as nursery:
        calls.all_at_once(nursery, 4)
        await trio.sleep(0.5)
        assert calls.running["fast"] == 1
        bounds.annotate("fast", 5)
        await trio.sleep(0.1)
        assert calls.running["fast"] == 5
        bounds.annotate("fast", 2)
        await trio.sleep(1)
        assert calls.running["fast"] == 2
        bounds.annotate("fast", None)
        await trio.sleep(0.1)
        assert calls.running["fast"] == 7


async def test_nought_sends_away_who_waits_and_who_comes() -> None:
    bounds = Bounds({})
    calls = Calls(bounds)
    bounds.annotate("fast", 1)
    async with trio.open_nursery() as nursery:
        calls.all_at_once(nursery, 2)
        await trio.sleep(0.5)
        bounds.annotate("fast", 0)
        await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert calls.stopped == 5
        assert calls.running["fast"] == 1, "what runs goes on"
        calls.all_at_once(nursery, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert calls.stopped == 11
        assert calls.creates.tasks().room(FAST, 50), "each is told that it has to wait"


async def test_the_state_of_the_lanes_is_told() -> None:
    workers = Workers(2, bounds=Bounds({"other": 1}), limit=10.0)
    tasks = workers.tasks()
    tasks.add("due", CLONES, "ns", 0.0)
    calls = Calls(Bounds({}))
    calls.creates = workers
    async with trio.open_nursery() as nursery:
        for lane in (FAST, OTHER, OTHER):
            nursery.start_soon(calls.call, workers, lane)
        await trio.sleep(0.5)
        assert sorted(workers.states(tasks), key=lambda state: state.lane) == [
            LaneState(FAST, 1, 0, 4, 0, 0.0),
            LaneState(CLONES, 0, 1, 4, 0, 0.0),
            LaneState(OTHER, 1, 1, 1, 0, 0.0),
        ]
        await trio.sleep(1)
        assert [state.waited for state in workers.states(tasks) if state.lane == OTHER] == [1.0]


async def test_no_lane_of_a_bounded_class_waits_for_another_to_have_nothing_left() -> None:
    bounds = Bounds({"fast": 2})
    calls = Calls(bounds)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(calls.call, calls.creates, FAST)
        await trio.sleep(0.5)
        async with trio.open_nursery() as others:
            for workers, lane in ((calls.creates, CLONES), (calls.deletes, FAST)):
                for _ in range(5):
                    others.start_soon(calls.call, workers, lane)
        assert trio.current_time() - began < 15
        nursery.cancel_scope.cancel()
