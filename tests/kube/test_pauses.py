"""How often a watch is read: seldom while it has much to tell, at once when it has been quiet (process.md 5.3)."""

from typing import Any

import pytest
import trio
import trio.testing

from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from tests.kube.test_client import CLAIM, HEAD, chunk, client_of, line
from tests.kube.wire import Asked


@pytest.fixture
def anyio_backend() -> Any:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


async def test_a_watch_that_goes_on_telling_is_read_less_and_less_often() -> None:
    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(HEAD)
        for _ in range(2):
            await trio.sleep(1)
            for _ in range(50):
                await stream.send_all(chunk(line("ADDED", CLAIM)))
                await trio.sleep(0.005)
        await stream.send_all(b"0\r\n\r\n")

    at = list[float]()
    async with (
        client_of(answer) as (client, _server),
        client.watch(PersistentVolumeClaim, resource_version="7", timeout_seconds=300, pause=0.01) as events,
    ):
        begun = trio.current_time()
        async for _event in events:
            at.append(round(trio.current_time() - begun, 3))
    first = [1, 1.01, 1.03, 1.06, 1.1, 1.15, 1.2, 1.25]
    assert sorted(set(at)) == pytest.approx([*first, *(when + 1.25 for when in first)], abs=0.006)
    assert len(at) == 100
