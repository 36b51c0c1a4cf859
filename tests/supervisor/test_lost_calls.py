"""Calls that ran when the driver died are no tries; but what the driver does not survive twice is one (design.md 4)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import msgspec
import pytest
import trio

from csi_provisioner.model import csi
from sandbox.driver.server import Call
from tests.deletion.released import released
from tests.installation import CLAIM, SECRET, VOLUME, Installation
from tests.provision.test_states import SECRET_PARAMETERS

MANY = [f"data-{number}" for number in range(50)]
GOOD = [f"data-{number}" for number in range(10)]


async def _cut(site: Installation, seconds: float = 5.0) -> None:
    site.kill_driver()
    await site.rest(seconds)
    await site.serve()


async def _in_flight(site: Installation, names: list[str], rpc: str = "CreateVolume") -> None:
    site.fault(rpc=rpc, hang=True, times=len(names))
    site.storage_class()
    for name in names:
        site.claim(name) if rpc == "CreateVolume" else released(site, name)
    await site.start()
    await site.until(lambda: len(site.driver.made(rpc, running=True)) == len(names))


def _warnings(site: Installation) -> list[str]:
    """Of tries that failed; that the driver is away for long is told besides."""
    told = [event for event in site.objects.all("Event") if event["type"] == "Warning"]
    return [event["message"] for event in told if event["reason"] != "DriverUnavailable"]


async def test_fifty_creations_in_flight_are_no_tries(site: Installation) -> None:
    await _in_flight(site, MANY)
    await _cut(site)
    await site.bound(*MANY)
    assert _warnings(site) == []
    assert len(site.calls()) == 2 * len(MANY)
    assert site.logged("Failed, will be tried again") == []
    metrics = await site.metrics()
    assert sum(value for name, value in metrics.items() if "provision_failed_total" in name) == 0
    assert metrics['workqueue_retries_total{name="claims"}'] == 0
    [counted] = [
        value
        for name, value in metrics.items()
        if name.startswith("csi_sidecar_operations_seconds_count") and "CreateVolume" in name and "Unavailable" in name
    ]
    assert counted == len(MANY)


async def test_fifty_deletions_in_flight_are_no_tries(site: Installation) -> None:
    await _in_flight(site, MANY, "DeleteVolume")
    await _cut(site)
    await site.until(lambda: not site.objects.all(VOLUME))
    assert _warnings(site) == []
    assert len(site.calls("DeleteVolume")) == 2 * len(MANY)
    metrics = await site.metrics()
    assert sum(value for name, value in metrics.items() if "delete_failed_total" in name) == 0


async def test_a_lost_call_leaves_number_and_delay_of_the_attempt_as_they_were(site: Installation) -> None:
    site.fault("INTERNAL", times=3)
    site.fault(hang=True, times=1)
    site.fault("INTERNAL", times=1)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(lambda: len(site.calls()) == 4)
    await _cut(site, 5)
    failed = await site.event("data", "ProvisioningFailed", 4)
    assert "attempt 4; next try in 8 s" in failed["message"]
    await site.bound("data")


async def test_a_claim_deleted_while_its_call_is_lost_stays_in_progress(site: Installation) -> None:
    await _in_flight(site, ["data"])
    site.kill_driver()
    site.delete(CLAIM, "data")
    await site.rest(20)
    await site.serve()
    await site.until(lambda: site.calls("DeleteVolume"))
    await site.until(lambda: not site.driver.state.volumes)
    assert site.logged("A volume may be left over") == []


async def test_what_the_driver_says_itself_is_a_try(site: Installation) -> None:
    site.fault("UNAVAILABLE", times=1)
    site.storage_class()
    site.claim()
    await site.start()
    await site.event("data", "ProvisioningFailed")
    await site.bound("data")


async def test_losses_that_are_not_in_a_row_are_no_tries(site: Installation) -> None:
    site.fault(hang=True, times=1)
    site.fault("INTERNAL", times=1)
    site.fault(hang=True, times=1)
    site.storage_class()
    site.claim()
    await site.start()
    for calls in (1, 3):
        await site.until(lambda calls=calls: len(site.calls()) == calls)  # type: ignore[misc]
        await _cut(site, 1)
    await site.bound("data")
    [failed] = _warnings(site)
    assert "Internal" in failed


async def test_a_claim_that_kills_its_driver_backs_off_and_the_others_are_served(site: Installation) -> None:
    site.storage_class()
    for name in ("killer", *GOOD):
        site.claim(name)
    async with deadly(site, "killer"):
        await site.start()
        await site.bound(*GOOD)
        failed = await site.event("killer", "ProvisioningFailed", 5)
    assert "attempt 5" in failed["message"]
    assert "see the driver's own log" in failed["message"]
    assert _backs_off(site, "killer")
    assert not [event for name in GOOD for event in site.events(name) if event["type"] == "Warning"]


@pytest.mark.parametrize("away", [0.2, 10.0])
async def test_claims_that_take_long_are_served_beside_one_that_kills_the_driver(
    site: Installation, away: float
) -> None:
    """They are lost with it again and again, and must part from it."""
    site.fault(match="default/data", delay=5.0)
    site.storage_class()
    for name in ("killer", *GOOD[:4]):
        site.claim(name)
    async with deadly(site, "killer", away=away):
        await site.start()
        await site.bound(*GOOD[:4])


async def test_a_deletion_that_kills_the_driver_backs_off_and_the_others_are_done(site: Installation) -> None:
    for name in ("killer", *GOOD):
        released(site, name)
    async with deadly(site, "killer", "DeleteVolume"):
        await site.start()
        await site.until(lambda: [volume["metadata"]["name"] for volume in site.objects.all(VOLUME)] == ["killer"])
        failed = await site.event("killer", "VolumeFailedDelete", 6)
    assert "attempt 6" in failed["message"]
    assert _backs_off(site, "killer", "DeleteVolume")


async def test_an_undo_that_kills_the_driver_backs_off_too(site: Installation) -> None:
    site.fault(capacity_delta=-1)
    site.storage_class()
    site.claim("killer")
    async with deadly(site, "killer", "DeleteVolume"):
        await site.start()
        await site.event("killer", "ProvisioningFailed", 4)
    assert _backs_off(site, "killer")
    assert len(site.calls("DeleteVolume")) == 2 * len(site.calls())
    assert len(site.logged("A volume may be left over")) == 1


# ---- calls that were about to begin


async def _reading(site: Installation) -> None:
    """The claim's task stands just before its call: it reads a secret, slowly."""
    site.secret()
    site.refuse("get", SECRET, code=0, delay=3.0)
    site.storage_class(parameters=SECRET_PARAMETERS)
    site.claim()
    await site.start()
    await site.until(lambda: site.requests.of(verb="get", kind=SECRET))


async def test_a_call_that_begins_while_the_driver_is_away_waits_for_it(site: Installation) -> None:
    await _reading(site)
    await _cut(site, 8)
    await site.bound("data")
    assert _warnings(site) == []
    assert len(site.calls()) == 1
    asked = [call.rpc for call in site.driver.calls]
    assert asked.index("CreateVolume") == len(asked) - 1


async def test_a_call_that_waits_for_the_driver_in_vain_is_no_try(site: Installation) -> None:
    await _reading(site)
    await _cut(site, 60)
    await site.bound("data")
    assert _warnings(site) == []
    assert len(site.calls()) == 1


async def test_no_call_goes_to_another_driver_that_has_taken_the_socket(site: Installation) -> None:
    await _reading(site)
    site.kill_driver()
    await site.serve(msgspec.structs.replace(site.config, name="other.example.com"))
    assert await site.ended() == 1
    assert site.calls() == []


# ---- drivers that die


@asynccontextmanager
async def deadly(site: Installation, name: str, rpc: str = "CreateVolume", *, away: float = 1.0) -> AsyncIterator[None]:
    """Each such call for that claim or volume kills the driver; it is back after `away` seconds."""
    site.fault(rpc=rpc, match=name, hang=True)
    told, killed = site.driver.on_call, trio.Event()

    def on_call(call: Call) -> None:
        told(call)
        if call.running and call.rpc == rpc and name in _names(site, call):
            killed.set()
            site.kill_driver()

    async def revive() -> None:
        nonlocal killed
        while True:
            await killed.wait()
            killed = trio.Event()
            await site.rest(away)
            await site.serve()

    site.driver.on_call = on_call
    async with trio.open_nursery() as nursery:
        nursery.start_soon(revive)
        yield
        nursery.cancel_scope.cancel()
    site.driver.on_call = told


def _names(site: Installation, call: Call) -> list[str]:
    """The volume's name and its claim's."""
    if isinstance(call.request, csi.DeleteVolumeRequest):
        volume = site.driver.state.volumes.get(call.request.volume_id)
        return [volume.name, volume.parameters.get("csi.storage.k8s.io/pvc/name", "")] if volume else []
    return [call.request.name, call.request.parameters.get("csi.storage.k8s.io/pvc/name", "")]


def _backs_off(site: Installation, name: str, rpc: str = "CreateVolume") -> bool:
    """The first loss is excused, each later one is a try, and the driver's return shortens no wait."""
    at = [when for when, call in site.asked if call.rpc == rpc and name in _names(site, call)]
    pauses = [later - earlier for earlier, later in pairwise(at)]
    return len(pauses) > 3 and all(pause >= 2**number for number, pause in enumerate(pauses[1:]))
