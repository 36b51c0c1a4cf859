"""What people are told of keys that fail (process.md 9.2)."""

import pytest
from trio.testing import MockClock

from csi_provisioner.metrics import Metrics
from csi_provisioner.model.outcome import DONE, Attempt, Outcome, Retry
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import Loop


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
