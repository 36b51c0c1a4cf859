"""The driver ends its connection politely, as at its largest age or before it is replaced (process.md 4.4): what runs
ends in peace, and who answers next is met before it is asked for anything."""

import os

import msgspec
import pytest
import trio

from sandbox.driver import Config, Driver
from sandbox.driver.config import CONTROLLER_CAPABILITIES
from tests.installation import Installation

MEETING = ["Probe", "GetPluginInfo", "GetPluginCapabilities", "ControllerGetCapabilities"]
LOST = "Lost connection to CSI driver"


@pytest.fixture
async def running(site: Installation) -> Installation:
    """Three creations run."""
    site.fault(gate="held", times=3)
    site.storage_class()
    for number in range(3):
        site.claim(f"data-{number}")
    await site.start()
    await site.until(lambda: len(site.calls()) == 3)
    return site


def _warnings(site: Installation) -> list[str]:
    """Of tries that failed; that the driver is away for long is told besides."""
    told = [event for event in site.objects.all("Event") if event["type"] == "Warning"]
    return [event["message"] for event in told if event["reason"] != "DriverUnavailable"]


async def test_what_runs_ends_in_peace_and_the_new_connection_is_met_before_its_first_call(
    running: Installation,
) -> None:
    site = running
    met = len(site.driver.calls)
    site.driver.say_goodbye()
    await site.until(lambda: site.logged("CSI driver is back"))
    site.claim("later")
    await site.bound("later")
    assert [call.rpc for call in site.driver.calls[met:]] == [*MEETING, "CreateVolume"]
    site.driver.faults.gate("held").set()
    await site.bound("data-0", "data-1", "data-2")
    assert len(site.calls()) == 4
    assert not any(call.cancelled for call in site.driver.calls)
    assert _warnings(site) == []
    assert site.logged(LOST) == []
    assert len(site.logged("Caches are synced")) == 1


async def test_nothing_that_waits_is_asked_for_earlier(site: Installation) -> None:
    site.fault("INTERNAL")
    site.storage_class()
    site.claim()
    await site.start()
    for _ in range(20):
        await site.rest(10)
        site.driver.say_goodbye()
    assert site.pauses() == [1, 2, 4, 8, 16, 32, 64]


async def test_no_new_connection_is_the_loss_and_what_runs_ends_in_peace_all_the_same(running: Installation) -> None:
    site = running
    path = site.cluster.socket(site.config)
    os.rename(path, f"{path}.away")
    site.driver.say_goodbye()
    await site.until(lambda: site.logged(LOST))
    site.driver.faults.gate("held").set()
    await site.bound("data-0", "data-1", "data-2")
    site.claim("later")
    await site.rest(60)
    assert len(site.calls()) == 3
    os.rename(f"{path}.away", path)
    await site.bound("later")
    assert _warnings(site) == []
    assert len(site.logged(LOST)) == 1


async def test_another_driver_that_takes_the_socket_ends_the_process_unasked(running: Installation) -> None:
    site = running
    other = await _replaced(site, msgspec.structs.replace(site.config, name="other.example.com"))
    site.claim("later")
    assert await site.ended() == 1
    assert other.made("CreateVolume") == []


async def test_another_version_that_takes_the_socket_begins_a_second_life(running: Installation) -> None:
    site = running
    capabilities = tuple(name for name in CONTROLLER_CAPABILITIES if name != "CLONE_VOLUME")
    other = await _replaced(site, msgspec.structs.replace(site.config, controller=capabilities))
    await site.bound("data-0", "data-1", "data-2")
    assert len(other.made("CreateVolume")) == 3
    assert _warnings(site) == []


async def test_a_driver_that_ends_every_connection_after_a_while_is_no_trouble(site: Installation) -> None:
    names = [f"data-{number}" for number in range(40)]
    site.fault(delay=0.7)
    site.storage_class()
    for name in names:
        site.claim(name)
    await site.start()
    async with trio.open_nursery() as nursery:

        async def ages() -> None:
            while True:
                await site.rest(0.5)
                site.driver.say_goodbye()

        nursery.start_soon(ages)
        await site.bound(*names)
        nursery.cancel_scope.cancel()
    assert len(site.calls()) == len(names)
    assert _warnings(site) == []
    assert site.logged(LOST) == []


async def test_a_driver_that_ends_each_connection_before_it_is_met_is_told_of(site: Installation) -> None:
    site.storage_class()
    await site.start()
    site.fault(rpc="GetPluginInfo", delay=0.3)
    async with trio.open_nursery() as nursery:

        async def never_met() -> None:
            while True:
                await site.rest(0.2)
                site.driver.say_goodbye()

        nursery.start_soon(never_met)
        await site.rest(60)
        nursery.cancel_scope.cancel()
    assert len(site.logged(LOST)) == 1
    assert len([call for call in site.driver.calls if call.rpc == "Probe"]) < 60
    site.claim("later")
    await site.bound("later")


async def _replaced(site: Installation, config: Config) -> Driver:
    """The driver ends what it has taken, and another one has its place on the socket."""
    path = site.cluster.socket(site.config)
    os.rename(path, f"{path}.old")
    other = await site.cluster.driver(config)
    site.driver.say_goodbye()
    return other
