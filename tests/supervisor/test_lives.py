"""The driver goes and comes back: work pauses, and begins anew if it can do other things (design.md 4)."""

from pathlib import Path

import msgspec
import pytest
import trio

from csi_provisioner.supervisor import connection
from sandbox.driver.config import CONTROLLER_CAPABILITIES, Config
from tests.installation import CLAIM, VOLUME, Installation
from tests.journeys.objects import from_claim

WITHOUT_CLONES = tuple(name for name in CONTROLLER_CAPABILITIES if name != "CLONE_VOLUME")
OVER = "starting the work over"


def _other(site: Installation) -> Config:
    """The same driver in another version."""
    mine = site.config.controller
    other = WITHOUT_CLONES if "CLONE_VOLUME" in mine else CONTROLLER_CAPABILITIES
    return msgspec.structs.replace(site.config, controller=other)


async def _away(site: Installation, seconds: float, back: Config | None = None) -> None:
    site.kill_driver()
    await site.rest(seconds)
    await site.serve(back)


async def _second_life(site: Installation) -> None:
    """The driver comes back as another version."""
    synced = len(site.logged("Caches are synced"))
    await _away(site, 5, _other(site))
    await site.until(lambda: len(site.logged("Caches are synced")) > synced)
    assert site.logged(OVER)


async def test_while_it_is_away_nothing_is_tried(site: Installation) -> None:
    site.fault("INTERNAL", times=3)
    site.storage_class()
    site.claim()
    await site.start()
    failed = await site.event("data", "ProvisioningFailed", 3)
    await _away(site, 1000)
    await site.bound("data")
    assert (await site.event("data", "ProvisioningFailed"))["message"] == failed["message"]
    assert len(site.calls()) == 4
    assert len(site.logged("Lost connection to CSI driver")) == 1


async def test_on_its_return_all_that_waits_is_released_spread_over_a_moment(site: Installation) -> None:
    names = [f"data-{number}" for number in range(20)]
    site.fault("UNAVAILABLE")
    site.storage_class()
    for name in names:
        site.claim(name)
    await site.start()
    await site.until(lambda: len(site.calls()) >= 20 * 8)
    site.kill_driver()
    await site.rest(10)
    site.driver.faults.clear()
    heard = len(site.asked)
    await site.serve()
    await site.bound(*names)
    at = [when for when, call in site.asked[heard:] if call.rpc == "CreateVolume"]
    assert len(at) == 20
    assert 0.5 < max(at) - min(at) <= 2.1
    assert len(site.logged("Caches are synced")) == 1


async def test_saving_needs_no_driver(site: Installation) -> None:
    site.refuse("create", VOLUME)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(lambda: site.logged("Could not save"))
    site.kill_driver()
    await site.rest(10)
    site.api.clear()
    await site.bound("data")


async def test_a_driver_that_has_another_name_than_the_flag_says_is_refused(site: Installation) -> None:
    await site.start(expected_driver="other.example.com")
    assert await site.ended() == 255
    [line] = site.logged("The process ends")
    assert "'sandbox.csi.example.com', but --provisioner says 'other.example.com'" in str(line.keys["err"])


@pytest.mark.parametrize("expected", ["", "sandbox.csi.example.com"], ids=["", "with --provisioner"])
async def test_another_name_ends_the_process(
    site: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, expected: str
) -> None:
    monkeypatch.setattr(connection, "TERMINATION_LOG", tmp_path / "termination-log")
    await site.start(expected_driver=expected)
    await _away(site, 1, msgspec.structs.replace(site.config, name="other.example.com\x1b[2J\u202e"))
    assert await site.ended() == 1
    left = (tmp_path / "termination-log").read_text()
    assert "other.example.com" in left
    assert left.isprintable()
    [line] = [line for line in site.logged("came back as") if line.level == "ERROR"]
    assert "other.example.com" in str(line.keys["err"])
    assert str(line.keys["err"]).count("sandbox.csi.example.com") == 1


async def test_a_second_life_knows_the_new_capabilities_p19_engine_11(site: Installation) -> None:
    await _away(site, 1, _other(site))
    site.storage_class()
    site.claim("source")
    await site.start()
    await site.bound("source")
    site.claim("clone", **from_claim("source"))
    failed = await site.event("clone", "ProvisioningFailed")
    assert "CLONE_VOLUME" in failed["message"]
    await _second_life(site)
    await site.bound("clone")
    assert [len(site.calls(rpc)) for rpc in ("GetPluginInfo", "ControllerGetCapabilities")] == [2, 2]


async def test_a_second_life_goes_on_with_what_was_open(site: Installation) -> None:
    """A deleted claim whose volume may be there: only the memory knows of it."""
    site.fault("DEADLINE_EXCEEDED", created=True)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(site.calls)
    site.delete(CLAIM, "data")
    await site.until(lambda: site.find(CLAIM, "data") is None)
    assert len(site.driver.state.volumes) == 1
    await _second_life(site)
    site.driver.faults.clear()
    await site.until(lambda: site.calls("DeleteVolume"))
    await site.until(lambda: not site.driver.state.volumes)
    assert site.logged("A volume may be left over") == []


async def test_a_second_life_saves_what_is_unsaved(site: Installation) -> None:
    site.refuse("create", VOLUME)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(lambda: site.logged("Could not save"))
    await _second_life(site)
    site.touch(CLAIM, "data", "a")
    await site.rest(60)
    assert len(site.calls()) == 1
    site.api.clear()
    await site.bound("data")
    assert len(site.calls()) == 1


async def test_a_second_life_does_not_ask_earlier_for_what_is_infeasible(site: Installation) -> None:
    site.fault("INVALID_ARGUMENT", times=1)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(site.calls)
    await site.rest(100)
    await _second_life(site)
    await site.bound("data")
    assert site.pauses() == [pytest.approx(300.0, abs=0.5)]


async def test_a_second_life_does_not_lose_a_call_that_ran(site: Installation) -> None:
    site.fault(gate="held", created=True, times=1)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(site.calls)
    await _second_life(site)
    await site.bound("data")
    assert len({call.request.name for call in site.calls()}) == 1
    assert len(site.driver.state.volumes) == 1


@pytest.mark.parametrize("rpc", ["Probe", "GetPluginInfo", "GetPluginCapabilities", "ControllerGetCapabilities"])
async def test_one_that_dies_before_it_is_known_is_waited_for(site: Installation, rpc: str) -> None:
    """process.md 4.4."""
    site.fault(rpc=rpc, hang=True, times=1)
    site.storage_class()
    site.claim()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.start)
        await site.until(lambda: site.calls(rpc))
        site.kill_driver()
        await site.rest(100)
        await site.serve()
    await site.bound("data")
    assert len(site.logged("Lost connection to CSI driver before it was met")) == 1
    assert site.logged("reconnecting; nothing is tried") == []


async def test_one_that_refuses_to_say_what_it_can_do_is_not_lost(site: Installation) -> None:
    """process.md 10.3."""
    site.fault("UNAVAILABLE", rpc="ControllerGetCapabilities")
    await site.start()
    assert await site.ended() == 255
    assert site.logged("Lost connection") == []


async def test_one_that_is_not_ready_yet_is_waited_for(site: Installation) -> None:
    await site.start()
    site.fault(rpc="Probe", not_ready=True)
    await _away(site, 1)
    site.storage_class()
    site.claim()
    await site.rest(60)
    assert site.calls() == []
    site.driver.faults.clear()
    await site.bound("data")


async def test_one_that_is_back_and_of_no_use_is_said_once(site: Installation) -> None:
    await site.start()
    site.fault("UNAVAILABLE", rpc="Probe")
    await _away(site, 1)
    await site.rest(30)
    assert len(site.calls("Probe")) > 10
    assert len(site.logged("CSI driver is not usable yet")) == 1
    site.driver.faults.clear()
    await site.until(lambda: site.logged("CSI driver is back"))
