"""A large backlog: the first keys begin at once, nobody waits long for the rest, and the rest is served in its turn."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.metrics import Metrics
from csi_provisioner.model.outcome import DONE, Attempt, Outcome
from csi_provisioner.model.state import Lane
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import Loop, Reconcile


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


def loop(work: Reconcile, place: Callable[[str], tuple[Lane, str]] = lambda key: (Lane(), "")) -> Loop:
    queue = Metrics().queue("claims")
    return Loop("claims", work, workers=100, backoff=Backoff(1, 8), exclusive=Exclusive(), metrics=queue, place=place)


async def test_of_a_large_backlog_some_begin_at_once_and_all_others_in_their_turn() -> None:
    """The first keys need not wait until all are in their lanes; nor has the first namespace all the workers then."""
    order: list[str] = []
    filed: list[str] = []

    async def work(key: str, _attempt: Attempt) -> Outcome:
        if not order:
            assert len(filed) <= 200
        order.append(key)
        await trio.sleep(1)
        return DONE

    def place(key: str) -> tuple[Lane, str]:
        filed.append(key)
        return Lane(), key.partition("/")[0]

    claims = loop(work, place)
    for number in range(2000):
        claims.wake(f"many/{number}")
    claims.wake("few/0")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        await trio.sleep(0.5)
        assert len(order) == 100
        assert order.index("few/0") < 20
        claims.stop()


async def test_what_the_first_keys_ask_for_is_sent_before_many_more_are_in_their_lanes() -> None:
    """The first calls of a backlog wait for one write of the journal."""
    filed: list[str] = []

    async def work(_key: str, _attempt: Attempt) -> Outcome:
        for _ in range(2):
            await trio.lowlevel.checkpoint()
        seen.append(len(filed))
        await trio.sleep(1)
        return DONE

    def place(key: str) -> tuple[Lane, str]:
        filed.append(key)
        return Lane(), ""

    claims, seen = loop(work, place), list[int]()
    for number in range(2000):
        claims.wake(str(number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        await trio.sleep(0.5)
        claims.stop()
    assert min(seen) <= 500


async def test_while_keys_are_put_into_their_lanes_others_get_their_turn() -> None:
    filed, most = list[str](), 0

    async def work(key: str, _attempt: Attempt) -> Outcome:
        await trio.sleep(1000)
        return DONE

    def place(key: str) -> tuple[Lane, str]:
        filed.append(key)
        return Lane(), ""

    async def watch() -> None:
        nonlocal most
        while len(filed) < 5000:
            before = len(filed)
            await trio.lowlevel.checkpoint()
            most = max(most, len(filed) - before)
        claims.stop()

    claims = loop(work, place)
    for number in range(5000):
        claims.wake(str(number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        nursery.start_soon(claims.run)
    assert 0 < most <= 2000  # a turn of the loop on either side of the watch's own


async def test_all_workers_are_busy_soon_though_each_turn_of_the_others_takes_its_time() -> None:
    """What is not filed yet must not keep them idle for thousands of turns: a queue that takes nothing is a restart."""
    begun = turns = 0

    async def work(key: str, _attempt: Attempt) -> Outcome:
        nonlocal begun
        begun += 1
        await trio.sleep(1000)
        return DONE

    claims = loop(work)
    for number in range(20_000):
        claims.wake(str(number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        while begun < 100:
            await trio.lowlevel.checkpoint()
            turns += 1
        nursery.cancel_scope.cancel()
    assert turns < 100
