"""When all has to be over: two clocks, shields that shrink, and a stop that only comes nearer (design.md 3 rule 9)."""

from collections.abc import Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.kube.end import End


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


class Boottime:
    """Goes with Trio's clock, and on while the machine sleeps."""

    def __init__(self) -> None:
        self.slept = 0.0

    def __call__(self) -> float:
        return trio.current_time() + self.slept


async def test_without_a_lease_all_may_begin_for_ever() -> None:
    end = End()
    await trio.sleep(80_000)
    assert end.may_begin()
    assert end.deadline() == float("inf")


async def test_until_the_lease_ends_counted_from_the_sending() -> None:
    end, begun = End(), trio.current_time()
    sent = end.now()
    await trio.sleep(4)
    end.renewed(sent, 15)
    assert end.deadline() == pytest.approx(begun + 15, abs=0.01)
    await trio.sleep(10.9)
    assert end.may_begin()
    await trio.sleep(0.2)
    assert not end.may_begin()
    end.renewed(end.now(), 15)
    assert end.may_begin()


async def test_a_machine_that_slept_has_no_lease_though_its_own_clock_stood_still() -> None:
    clock = Boottime()
    end = End(clock=clock)
    end.renewed(end.now(), 15)
    await trio.sleep(2)
    clock.slept += 12
    assert end.may_begin()
    assert end.deadline() == pytest.approx(trio.current_time() + 1)
    clock.slept += 2
    assert not end.may_begin()
    assert end.deadline() < trio.current_time()


# ---- shields


async def _shielded(end: End, ended: list[float], seconds: float = 30.0) -> None:
    begun = trio.current_time()
    async with end.shield(seconds):
        await trio.sleep_forever()
    ended.append(trio.current_time() - begun)


def _renewed(end: End) -> None:
    end.renewed(end.now(), 8.0)


SHRINKING: dict[str, tuple[Callable[[End], None], float, float]] = {
    "in peace its own time": (lambda end: None, 1000, 30),
    "cancelled, what all have": (lambda end: None, 10, 10 + 5),
    "cancelled near its own end": (lambda end: None, 28, 30),
    "cancelled, not longer than the lease": (_renewed, 6, 8),
    "in peace the lease is renewed, and no limit": (_renewed, 1000, 30),
    "not longer than the stop": (lambda end: end.stop_by(trio.current_time() + 12), 10, 12),
    "the stop needs no cancellation": (lambda end: end.stop_by(trio.current_time() + 12), 1000, 12),
    "cancelled before it begins": (lambda end: None, 0, 5),
}


@pytest.mark.parametrize("row", SHRINKING.values(), ids=SHRINKING.keys())
async def test_a_shield_shrinks(row: tuple[Callable[[End], None], float, float]) -> None:
    prepare, cancelled, expected = row
    end, ended = End(5.0, trio.current_time), list[float]()
    prepare(end)
    with trio.move_on_after(cancelled):
        await _shielded(end, ended)
    assert ended == [pytest.approx(expected)]  # what comes after the shield was reached


async def test_all_together_have_what_is_left() -> None:
    end, ended = End(5.0), list[float]()
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_shielded, end, ended, 12.0)
            nursery.start_soon(_shielded, end, ended)
            nursery.start_soon(partial(_shielded, end, ended, float("inf")))
    assert ended == [pytest.approx(12), pytest.approx(15), pytest.approx(15)]


async def test_a_stop_comes_nearer_only_and_holds_for_what_is_running() -> None:
    end, ended = End(5.0), list[float]()
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_shielded, end, ended)
        await trio.sleep(1)
        end.stop_by(begun + 20)
        end.stop_by(begun + 3)
        end.stop_by(begun + 25)
    assert ended == [pytest.approx(3)]
    assert end.deadline() == pytest.approx(begun + 3)


async def test_done_in_time_it_ends_at_once_and_the_cancellation_goes_on() -> None:
    end = End(5.0)
    begun, reached = trio.current_time(), list[str]()
    with trio.move_on_after(1) as scope:
        async with end.shield(30) as shield:
            await trio.sleep(3)
        reached.append("after the shield")
        await trio.sleep(1)
        reached.append("never")
    assert (scope.cancelled_caught, shield.cancelled_caught) == (True, False)
    assert reached == ["after the shield"]
    assert trio.current_time() - begun == pytest.approx(3)


async def test_what_is_inside_is_told_to_hurry() -> None:
    end, told = End(5.0), trio.Event()
    begun = trio.current_time()
    with trio.move_on_after(2):
        async with end.shield(30, hurry=told.set):
            await told.wait()
    assert trio.current_time() - begun == pytest.approx(2)
