"""What people are told of keys that fail (process.md 9.2)."""

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.metrics import Metrics
from csi_provisioner.model.outcome import DONE, Attempt, Outcome, Retry
from csi_provisioner.model.state import KeyState, Tried
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import TOLD, Loop


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


async def test_a_failure_is_said_again_when_it_is_another_or_its_wait_is_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kinds = ["Internal", "Internal", "Aborted", "Aborted", "Internal", "Internal", "Internal"]

    async def work(key: str, _attempt: Attempt) -> Outcome:
        if kinds:
            return Retry("no", kind=kinds.pop(0))
        claims.stop()
        return DONE

    backoff, queue = Backoff(1, 300), Metrics().queue("claims")
    claims = Loop("claims", work, workers=1, backoff=backoff, exclusive=Exclusive(), metrics=queue)
    claims.wake("a")
    await claims.run()
    lines = capsys.readouterr().err.splitlines()
    assert [(line[0], line.partition("after=")[2].split()[0]) for line in lines] == [
        ("E", '"1s"'),
        ("W", '"4s"'),  # another class
        ("W", '"16s"'),
        ("W", '"32s"'),
        ("W", '"64s"'),
    ]


async def test_of_a_key_its_tries_its_next_one_and_the_beginning_of_its_last_failure_are_known() -> None:
    async def work(_key: str, attempt: Attempt) -> Outcome:
        if attempt.number == 2:
            claims.stop()
        return Retry("no" * TOLD, kind="api 500", step="save")

    backoff, queue = Backoff(4, 300), Metrics().queue("claims")
    claims = Loop("claims", work, workers=1, backoff=backoff, exclusive=Exclusive(), metrics=queue)
    assert claims.look("a") == KeyState()
    claims.wake("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claims.run)
        await trio.sleep(1)
        assert claims.look("a") == KeyState(3.0, None, 1, Tried("api 500", "no" * (TOLD // 2), 1.0, "save"))
    claims.forget("a")
    assert claims.look("a").last is None
