"""What begins is told with its end, if that comes within a moment."""

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.kube import events
from csi_provisioner.kube.events import EventRecorder
from tests.kube.event_api import CLAIM, EventApi, recording
from tests.kube.objects import claim


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.fixture
def api() -> EventApi:
    return EventApi()


def begin(recorder: EventRecorder) -> None:
    recorder.record(CLAIM, "Normal", "Provisioning", "for claim", hold=True)


def succeed(recorder: EventRecorder) -> None:
    recorder.record(CLAIM, "Normal", "ProvisioningSucceeded", "done", ends="Provisioning")


async def test_a_beginning_whose_end_comes_within_a_second_is_not_written(api: EventApi) -> None:
    async with recording(api) as recorder:
        begin(recorder)
        await trio.sleep(events.HELD - 0.01)
        assert api.writes == []
        succeed(recorder)
        await recorder.wait_written()
        await trio.sleep(60)
        assert api.writes == ["new ProvisioningSucceeded x1"]
        assert not recorder._lines, "nothing more is expected of the object, so nothing is remembered of it"


@pytest.mark.parametrize("pause", [0.0, 0.5, events.HELD])
async def test_any_other_end_brings_the_beginning_with_it(api: EventApi, pause: float) -> None:
    async with recording(api) as recorder:
        begin(recorder)
        await trio.sleep(pause)
        recorder.record(CLAIM, "Warning", "ProvisioningFailed", "no", "final")
        await trio.sleep(0.05)
        assert api.writes == ["new Provisioning x1", "new ProvisioningFailed x1"]


async def test_a_beginning_is_held_back_for_a_second(api: EventApi) -> None:
    async with recording(api) as recorder:
        begin(recorder)
        await trio.sleep(events.HELD + 0.01)
        assert api.writes == ["new Provisioning x1"]
        succeed(recorder)
        await recorder.wait_written()
        assert api.writes == ["new Provisioning x1", "new ProvisioningSucceeded x1"]


async def test_a_beginning_that_waits_behind_volumes_is_not_written_after_its_end(api: EventApi) -> None:
    volumes = True
    async with recording(api, busy=lambda: volumes) as recorder:
        begin(recorder)
        await trio.sleep(events.HELD + 1)
        succeed(recorder)
        volumes = False
        await recorder.wait_written()
        assert api.writes == ["new ProvisioningSucceeded x1"]


async def test_of_a_try_that_failed_all_is_written_however_late(api: EventApi) -> None:
    volumes = True
    async with recording(api, busy=lambda: volumes) as recorder:
        begin(recorder)
        recorder.record(CLAIM, "Warning", "ProvisioningFailed", "no", "final")
        recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
        succeed(recorder)
        volumes = False
        await recorder.wait_written()
    assert api.writes == ["new Provisioning x2", "new ProvisioningFailed x1", "new ProvisioningSucceeded x1"]


async def test_at_a_stop_what_is_held_back_is_written(api: EventApi) -> None:
    async with recording(api) as recorder:
        begin(recorder)
        begun = trio.current_time()
        await recorder.wait_written()
        assert (api.writes, trio.current_time()) == (["new Provisioning x1"], begun)


async def test_an_object_that_is_told_of_again_is_remembered_again(api: EventApi) -> None:
    async with recording(api) as recorder:
        succeed(recorder)
        recorder.record(CLAIM, "Warning", "ProvisioningFailed", "no", "final")
        await recorder.wait_written()
        succeed(recorder)
        await recorder.wait_written()
    assert api.writes == ["new ProvisioningSucceeded x1", "new ProvisioningFailed x1", "ProvisioningSucceeded x2"]


async def test_an_object_that_is_forgotten_while_nothing_is_left_to_say_of_it_ends_nothing(
    api: EventApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LINES", 10)
    async with recording(api) as recorder:
        for number in range(int(events.BURST) - 1):
            recorder.record(CLAIM, "Warning", "ProvisioningFailed", "no", f"class {number}")
        await recorder.wait_written()
        begin(recorder)  # its last write, which its end takes away
        succeed(recorder)
        for number in range(events.LINES):
            recorder.record(claim(f"c{number}", 1), "Normal", "Provisioning", "for claim")
        await trio.sleep(events.HELD + 1)
        await recorder.wait_written()
        assert not recorder._held
