"""The loop on virtual time: merging, limits, exclusion, backoff, pausing and stopping."""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from csi_provisioner.metrics import Metrics
from csi_provisioner.model.outcome import DONE, Attempt, Outcome, Retry, RetryAt
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import Loop, Reconcile


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


def loop(
    work: Reconcile,
    *,
    workers: int = 10,
    exclusive: Exclusive | None = None,
    name: str = "claims",
    first_delay: float = 1.0,
    id_of: Callable[[str], str] = lambda key: key,
) -> Loop:
    return Loop(
        name,
        work,
        workers=workers,
        backoff=Backoff(first_delay, 8.0),
        exclusive=exclusive or Exclusive(),
        metrics=Metrics().queue(name),
        id_of=id_of,
    )


async def test_a_key_that_fails_comes_back_after_1_2_4_8_8_seconds() -> None:
    times: list[float] = []

    async def work(key: str, _attempt: Attempt) -> Outcome:
        times.append(trio.current_time() - start)
        if len(times) == 6:
            claims.stop()
            return DONE
        return Retry("no")

    claims = loop(work)
    start = trio.current_time()
    claims.wake("a")
    await claims.run()
    assert times == [0, 1, 3, 7, 15, 23]
    assert claims.backoff.failures("a") == 0


async def test_no_more_tasks_than_workers_and_every_key_gets_its_turn() -> None:
    now, most, seen = 0, 0, set[str]()

    async def work(key: str, _attempt: Attempt) -> Outcome:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await trio.sleep(1)
        now -= 1
        seen.add(key)
        if len(seen) == 20:
            claims.stop()
        return DONE

    claims = loop(work, workers=3)
    for number in range(20):
        claims.wake(str(number))
    await claims.run()
    assert most == 3
    assert len(seen) == 20


async def test_a_key_woken_while_it_is_worked_on_runs_once_more_afterwards() -> None:
    runs: list[tuple[float, float]] = []

    async def work(key: str, _attempt: Attempt) -> Outcome:
        began = trio.current_time()
        await trio.sleep(5)
        runs.append((began, trio.current_time()))
        if len(runs) == 2:
            claims.stop()
        return DONE

    claims = loop(work)
    start = trio.current_time()
    claims.wake("a")
    async with trio.open_nursery() as nursery:
        await nursery.start(claims.run)
        for _ in range(3):
            await trio.sleep(1)
            claims.wake("a")
    assert [(a - start, b - start) for a, b in runs] == [(0, 5), (5, 10)]


async def test_rule_1_two_loops_never_work_on_the_same_claim_at_once() -> None:
    exclusive, busy = Exclusive(), set[str]()
    order: list[str] = []

    async def work(key: str, _attempt: Attempt) -> Outcome:
        uid = key.removeprefix("pv-")
        assert uid not in busy
        busy.add(uid)
        await trio.sleep(1)
        busy.remove(uid)
        order.append(key)
        if len(order) == 4:
            claims.stop()
            volumes.stop()
        return DONE

    claims = loop(work, exclusive=exclusive)
    volumes = loop(work, exclusive=exclusive, name="volumes", id_of=lambda key: key.removeprefix("pv-"))
    for uid in ("1", "2"):
        claims.wake(uid)
        volumes.wake(f"pv-{uid}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        nursery.start_soon(volumes.run)
    assert sorted(order) == ["1", "2", "pv-1", "pv-2"]


async def test_rule_1_a_key_whose_id_changes_while_it_is_worked_on_waits_for_its_own_task() -> None:
    ids = {"pv-1": "uid-1"}
    runs: list[tuple[float, float]] = []

    async def work(key: str, _attempt: Attempt) -> Outcome:
        began = trio.current_time()
        await trio.sleep(5)
        runs.append((began - start, trio.current_time() - start))
        if len(runs) == 2:
            volumes.stop()
        return DONE

    volumes = loop(work, id_of=lambda key: ids.get(key, key))
    start = trio.current_time()
    volumes.wake("pv-1")
    async with trio.open_nursery() as nursery:
        await nursery.start(volumes.run)
        await trio.sleep(1)
        del ids["pv-1"]  # as when the watch shows the volume's end before its deletion is answered
        volumes.wake("pv-1")
    assert runs == [(0, 5), (5, 10)]


async def test_retry_at_waits_until_then_without_counting_a_failure() -> None:
    times: list[float] = []

    async def work(key: str, _attempt: Attempt) -> Outcome:
        times.append(trio.current_time() - start)
        if len(times) == 2:
            claims.stop()
            return DONE
        return RetryAt(start + 300, "infeasible")

    claims = loop(work)
    start = trio.current_time()
    claims.wake("a")
    await claims.run()
    assert times == [0, 300]


async def test_a_key_is_not_tried_before_its_floor_whatever_wakes_it() -> None:
    times: list[float] = []

    async def work(key: str, _attempt: Attempt) -> Outcome:
        times.append(trio.current_time() - start)
        claims.wake(key)  # while it is worked on, too
        if len(times) == 2:
            claims.stop()
            return DONE
        return Retry("no", floor=60)

    claims = loop(work)
    start = trio.current_time()
    claims.wake("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        for _ in range(5):
            await trio.sleep(10)
            claims.wake("a")
            claims.pause()
            claims.resume(lambda: 1.0)
    assert times == [0, 60]


async def test_an_event_brings_a_waiting_key_forward() -> None:
    times: list[float] = []

    async def work(key: str, _attempt: Attempt) -> Outcome:
        times.append(trio.current_time() - start)
        if len(times) == 2:
            claims.stop()
            return DONE
        return RetryAt(start + 300, "later")

    claims = loop(work)
    start = trio.current_time()
    claims.wake("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        await trio.sleep(10)
        claims.wake("a")
    assert times == [0, 10]


async def test_a_paused_loop_starts_nothing_and_resumes_with_the_given_spread() -> None:
    times: dict[str, float] = {}

    async def work(key: str, _attempt: Attempt) -> Outcome:
        times[key] = trio.current_time() - start
        if len(times) == 2:
            claims.stop()
        return DONE

    claims = loop(work)
    start = trio.current_time()
    claims.pause()
    claims.wake("a")  # overdue by then: no reason to come with all others at once
    claims.wake("b", after=500)
    spread = iter([1.0, 2.0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        await trio.sleep(50)
        claims.resume(lambda: next(spread))
    assert times == {"a": 51, "b": 52}


async def test_an_unexpected_exception_is_contained_and_tried_again() -> None:
    tries = 0

    async def work(key: str, _attempt: Attempt) -> Outcome:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ValueError("a defect")
        claims.stop()
        return DONE

    claims = loop(work)
    claims.wake("a")
    await claims.run()
    assert tries == 2


async def test_stop_waits_for_running_tasks_and_takes_no_new_keys() -> None:
    done: list[str] = []

    async def work(key: str, _attempt: Attempt) -> Outcome:
        await trio.sleep(5)
        done.append(key)
        return DONE

    claims = loop(work)
    claims.wake("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        await trio.sleep(1)
        claims.stop()
        claims.wake("b")
    assert done == ["a"]


async def test_a_cancellation_ends_running_tasks_at_once() -> None:
    async def work(key: str, _attempt: Attempt) -> Outcome:
        await trio.sleep_forever()
        return DONE

    claims = loop(work)
    claims.wake("a")
    with trio.move_on_after(3) as scope:
        await claims.run()
    assert scope.cancelled_caught
    assert claims.running == {}


async def test_the_queue_metrics_tell_what_waits_runs_and_was_retried() -> None:
    """process.md 8.3."""
    metrics = Metrics()
    scrapes: list[bytes] = []

    async def work(key: str, _attempt: Attempt) -> Outcome:
        await trio.sleep(2)
        scrapes.append(metrics.render())
        claims.stop()
        return Retry("no")

    claims = Loop(
        "claims", work, workers=1, backoff=Backoff(1, 8), exclusive=Exclusive(), metrics=metrics.queue("claims")
    )
    claims.wake("a")
    claims.wake("b")
    await claims.run()
    during = scrapes[0].decode()
    assert 'workqueue_depth{name="claims"} 1' in during
    assert 'workqueue_adds_total{name="claims"} 2' in during
    assert 'workqueue_longest_running_processor_seconds{name="claims"} 2' in during
    after = metrics.render().decode()
    assert 'workqueue_retries_total{name="claims"} 1' in after
    assert 'workqueue_work_duration_seconds_count{name="claims"} 1' in after


async def test_what_waits_for_its_time_is_not_in_the_queue() -> None:
    """process.md 8.3."""
    metrics = Metrics()

    async def work(key: str, _attempt: Attempt) -> Outcome:
        return Retry("no")

    claims = Loop(
        "claims", work, workers=1, backoff=Backoff(100, 100), exclusive=Exclusive(), metrics=metrics.queue("claims")
    )
    claims.wake("fails")
    claims.wake("later", after=50)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        await trio.sleep(1)
        assert b'workqueue_depth{name="claims"} 0' in metrics.render()
        claims.pause()
        await trio.sleep(60)
        assert b'workqueue_depth{name="claims"} 1' in metrics.render()
        claims.stop()


async def test_a_key_counts_once_from_its_wait_until_a_worker_takes_it() -> None:
    """Moved to an earlier time, woken at work, held up by another loop, tried again: what was added was taken."""
    metrics, exclusive = Metrics(), Exclusive()

    def counts() -> tuple[float, ...]:
        lines = [line.rpartition(" ") for line in metrics.render().decode().splitlines()]
        found = {series: float(value) for series, _, value in lines if 'name="claims"' in series}
        names = ("workqueue_adds_total", "workqueue_depth", "workqueue_queue_duration_seconds_count")
        return tuple(found[f'{name}{{name="claims"}}'] for name in names)

    async def work(key: str, _attempt: Attempt) -> Outcome:
        await trio.sleep(5)
        return Retry("no") if claims.backoff.failures(key) == 0 else DONE

    claims = Loop(
        "claims", work, workers=1, backoff=Backoff(100, 100), exclusive=exclusive, metrics=metrics.queue("claims")
    )
    claims.wake("a", after=500)
    assert counts() == (0, 0, 0), "what waits for its time is not in the queue"
    claims.wake("a", after=400)
    claims.wake("held", floor=1000)
    claims.wake("held")
    assert counts() == (0, 0, 0), "nor does what the API server wants to be left alone with"
    claims.wake("a")
    claims.wake("b")
    assert counts()[0] == 2
    exclusive.enter("b", "another loop", lambda: None)
    async with trio.open_nursery() as nursery:
        await nursery.start(claims.run)
        await trio.sleep(1)
        claims.wake("a")  # is at work
        claims.wake("a")
        assert counts() == (3, 2, 1)
        await trio.sleep(10)
        exclusive.leave("b")
        await trio.sleep(30)
        assert counts() == (3, 0, 3)
        await trio.sleep(200)
        assert counts() == (4, 0, 4)
        claims.stop()


async def test_stop_ends_a_loop_without_workers() -> None:
    async def work(key: str, _attempt: Attempt) -> Outcome:
        raise AssertionError("--worker-threads=0 works on nothing")

    claims = loop(work, workers=0)
    claims.wake("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        await trio.sleep(1)
        claims.stop()


async def test_a_loop_is_behind_while_what_is_due_waits_for_another_task() -> None:
    async def work(key: str, _attempt: Attempt) -> Outcome:
        await trio.sleep(5)
        return DONE

    claims = loop(work, workers=1)
    claims.wake("a")
    claims.wake("b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        await trio.sleep(1)
        assert claims.is_behind
        await trio.sleep(5)
        assert not claims.is_behind, "nothing else is due"
        claims.stop()
