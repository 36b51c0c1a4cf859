"""Who gets a free worker: design.md 6."""

import trio
import trio.testing

from csi_provisioner.work.workers import ONE_IN, Workers


async def _take(workers: Workers, got: list[str], name: str, *, low: bool = False) -> None:
    await workers.acquire(low=low)
    got.append(name)


async def test_a_free_worker_goes_to_whoever_asks() -> None:
    workers, got = Workers(2), list[str]()
    await _take(workers, got, "recovery", low=True)
    await _take(workers, got, "claim")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_take, workers, got, "third")
        await trio.testing.wait_all_tasks_blocked()
        assert got == ["recovery", "claim"]
        workers.release()
    assert got == ["recovery", "claim", "third"]


async def test_living_claims_go_first_and_one_in_eight_is_for_recoveries() -> None:
    workers, got = Workers(1), list[str]()
    await workers.acquire()
    async with trio.open_nursery() as nursery:
        for number in range(ONE_IN * 2):
            nursery.start_soon(_take, workers, got, "claim")
            if number < 4:
                nursery.start_soon(lambda: _take(workers, got, "recovery", low=True))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(ONE_IN * 2 + 4):
            workers.release()
            await trio.testing.wait_all_tasks_blocked()
    assert [place for place, name in enumerate(got, start=1) if name == "recovery"] == [8, 16, 19, 20]


async def test_a_worker_handed_to_somebody_who_is_just_cancelled_goes_on_to_the_next() -> None:
    workers, got = Workers(1), list[str]()
    await workers.acquire()
    async with trio.open_nursery() as nursery:
        leaving = trio.CancelScope()

        async def leave() -> None:
            with leaving:
                await _take(workers, got, "cancelled")

        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(_take, workers, got, "next")
        await trio.testing.wait_all_tasks_blocked()
        leaving.cancel()
        workers.release()
    assert got == ["next"]
