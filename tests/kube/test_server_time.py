"""The API server's clock, as its answers tell it: ages of what several processes wrote go by it (design.md 6)."""

import time

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.kube.client import connect, resolve
from csi_provisioner.settings import ClusterSettings
from tests.kube.wire import Asked, serving


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.mark.parametrize(
    "nonsense",
    [
        "some day",
        "Thu, 01 Jan 2026 10:00:00 +99999999999999999999",
        "Thu, 01 Jan 2026 10:00:00 PST",
        "Thu, 31 Feb 2026 10:00:00 GMT",
        "Thu, 01 Jan 2026 99:00:00 GMT",
        "Thu, 01 Jen 2026 10:00:00 GMT",
        "Thursday, 01-Jan-26 10:00:00 GMT",
    ],
)
async def test_the_servers_clock_goes_on_from_its_last_answer(nonsense: str) -> None:
    dates = ["Date: Thu, 01 Jan 2026 00:00:00 GMT", "X: y", f"Date: {nonsense}"]

    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{dates.pop(0)}\r\nContent-Length: 2\r\n\r\n"
        await stream.send_all(head.encode() + b"{}")

    async with serving(answer) as server:
        client = connect(resolve(ClusterSettings(master=f"http://127.0.0.1:{server.port}")), user_agent="test/1")
        for waited in (0, 60):
            await client.discover("/version")
            await trio.sleep(60)
            assert client.server_time() == pytest.approx(1767225600 + 60 + waited, abs=1)
        await client.discover("/version")
        assert client.server_time() == pytest.approx(time.time(), abs=30)  # not understood: our own
        client.close()
