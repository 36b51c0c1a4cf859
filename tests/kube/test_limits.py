"""The token bucket, on virtual time: process.md 5.2."""

from typing import Any

import pytest
import trio
import trio.testing

from csi_provisioner.kube.client import KubeError, TokenBucket
from csi_provisioner.logs import log
from csi_provisioner.settings import LogSettings


@pytest.fixture
def anyio_backend() -> Any:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


async def admitted(bucket: TokenBucket, times: list[float]) -> None:
    start = trio.current_time()
    await bucket.admit("GET", "/x")
    times.append(round(trio.current_time() - start, 6))


async def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    bucket, times = TokenBucket(5, 10), []  # type: tuple[TokenBucket, list[float]]
    async with trio.open_nursery() as nursery:
        for _ in range(15):
            nursery.start_soon(admitted, bucket, times)
    assert sorted(times) == [0] * 10 + [0.2, 0.4, 0.6, 0.8, 1.0]


async def test_it_fills_up_to_its_size_and_no_further() -> None:
    bucket, times = TokenBucket(1, 3), []  # type: tuple[TokenBucket, list[float]]
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(admitted, bucket, times)
        await trio.sleep(1000)
    assert sorted(times) == [0] * 6 + [1] * 2


async def test_who_gives_up_leaves_the_place_to_others() -> None:
    bucket, times = TokenBucket(1, 1), []  # type: tuple[TokenBucket, list[float]]
    await bucket.admit("GET", "/x")
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(waiting, bucket)
        scope.cancel()
    await admitted(bucket, times)
    assert times == [1]


async def waiting(bucket: TokenBucket, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await bucket.admit("GET", "/x")


async def test_a_wait_beyond_the_deadline_fails_at_once() -> None:
    bucket = TokenBucket(0.1, 1)
    await bucket.admit("GET", "/x")
    before = trio.current_time()
    with trio.fail_after(9), pytest.raises(KubeError, match="a wait of 10 s, beyond the deadline"):
        await bucket.admit("GET", "/x")
    assert trio.current_time() == before
    with trio.fail_after(10.5):
        await bucket.admit("GET", "/x")


@pytest.mark.parametrize(
    ("verbosity", "told"),
    [
        pytest.param(0, [2, 12], id="at-0-over-a-second-once-in-ten"),
        pytest.param(2, [*range(2, 13)], id="at-2-over-a-second-once-a-second"),
        pytest.param(3, [*range(1, 13)], id="at-3-every-wait"),
    ],
)
async def test_what_the_log_says_of_waits(verbosity: int, told: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(LogSettings(verbosity=verbosity))
    bucket, quick = TokenBucket(1, 1), TokenBucket(25, 1)
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(13):
                nursery.start_soon(bucket.admit, "GET", "/x")
            for _ in range(2):  # 40 ms: not worth a word
                nursery.start_soon(quick.admit, "GET", "/quick")
    finally:
        log.configure(LogSettings())
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" delay=")[2].split()[0] for line in lines] == [f'"{seconds}.000s"' for seconds in told]
    assert all('verb="GET" URL="/x"' in line for line in lines)
