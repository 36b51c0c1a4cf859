"""Delays run on the Trio clock, so that tests need not wait for them."""

from pathlib import Path

import pytest
import trio
import trio.testing

from sandbox.driver import Driver, Fault
from tests.sandbox.driver.client import connected, creation


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


async def test_a_delayed_answer_comes_late(tmp_path: Path) -> None:
    driver = Driver()
    driver.faults.add(Fault(delay=3600))
    async with trio.open_nursery() as nursery:
        await nursery.start(driver.serve, tmp_path / "s")
        began = trio.current_time()
        with connected(tmp_path / "s") as client:
            call = client.start("CreateVolume", creation("a"), timeout=None)
            response = await trio.to_thread.run_sync(call.result, 20)
        assert response.volume.volume_id
        assert trio.current_time() - began >= 3600
        nursery.cancel_scope.cancel()
