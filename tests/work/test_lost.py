"""When the loop goes on with a call that was lost with the connection, and with a key that was given up."""

import pytest
import trio
import trio.testing

from csi_provisioner.model.outcome import DONE, Attempt, GiveUp, Outcome, Retry
from tests.work.test_runner import loop


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


async def test_a_loss_counts_for_nothing_from_the_second_in_a_row_on_it_is_a_failure() -> None:
    ends = iter([Retry("no"), Retry("lost", lost=True), Retry("no"), *[Retry("lost", lost=True)] * 3, DONE])
    times: list[float] = []
    counts: list[int] = []

    async def work(key: str, _attempt: Attempt) -> Outcome:
        times.append(trio.current_time() - start)
        counts.append(claims.backoff.failures(key))
        end = next(ends)
        if end is DONE:
            claims.stop()
        return end

    claims = loop(work)
    start = trio.current_time()
    claims.wake("a")
    await claims.run()
    assert counts == [0, 1, 1, 2, 2, 3, 4]
    assert times == [0, 1, 1, 3, 3, 7, 15]
    assert claims.attempt("a").excused


async def test_what_was_lost_twice_keeps_its_backoff_when_the_loop_goes_on_and_comes_after_the_others() -> None:
    times: dict[str, list[float]] = {"guilty": [], "beside": [], "other": []}

    async def work(key: str, _attempt: Attempt) -> Outcome:
        times[key].append(trio.current_time() - start)
        return Retry("lost", lost=True) if key == "guilty" else Retry("no")

    claims = loop(work, first_delay=4.0)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        claims.wake("guilty")
        await trio.sleep(1)
        claims.pause()
        claims.wake("beside", after=100)
        claims.wake("guilty")  # as news of the object do
        await trio.sleep(49)
        claims.resume(lambda: 0.5)
        await trio.sleep(3)
        assert times == {"guilty": [0, 0], "beside": [50.5], "other": []}
        await trio.sleep(5)
        claims.stop()
    assert times["guilty"] == [0, 0, 54.5]


async def test_a_loop_that_goes_on_without_a_spread_lets_due_times_stand() -> None:
    times: list[float] = []

    async def work(key: str, _attempt: Attempt) -> Outcome:
        times.append(trio.current_time() - start)
        return Retry("no")

    claims = loop(work, first_delay=4.0)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        claims.wake("a")
        await trio.sleep(1)
        claims.pause()
        await trio.sleep(1)
        claims.resume()
        await trio.sleep(3)
        claims.stop()
    assert times == [0, 4]


async def test_a_key_that_is_given_up_waits_for_an_event_and_begins_anew() -> None:
    times: list[float] = []

    async def work(key: str, attempt: Attempt) -> Outcome:
        times.append(trio.current_time() - start)
        if len(times) == 3:
            assert attempt.number == 1
            claims.stop()
            return DONE
        return Retry("no") if len(times) == 1 else GiveUp("the scheduler has to choose")

    claims = loop(work)
    start = trio.current_time()
    claims.wake("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        await trio.sleep(600)
        claims.wake("a")
    assert times == [0, 1, 600]
