"""The end of the process: what runs may end, nothing begins, nothing made is lost (process.md 10, design.md 2, 3)."""

import signal
from collections.abc import Iterator

import pytest
import trio

from csi_provisioner.settings import ElectionSettings
from tests.deletion.released import released
from tests.installation import CLAIM, NAMESPACE, VOLUME, Installation

LEFT = "A volume may be left over"


async def _stopped_after(site: Installation) -> tuple[int, float]:
    """Exit code and the seconds it took."""
    since = trio.current_time()
    code = await site.stop()
    return code, trio.current_time() - since


async def _creating(site: Installation, seconds: float, **start: float) -> None:
    site.fault(delay=seconds)
    site.storage_class()
    site.claim()
    await site.start(**start)  # type: ignore[arg-type]
    await site.until(site.calls)


async def test_a_call_that_runs_may_end_and_its_volume_is_written(site: Installation) -> None:
    await _creating(site, 15.0, call_timeout=30.0, shutdown_grace=25.0)
    code, seconds = await _stopped_after(site)
    assert (code, seconds) == (0, pytest.approx(15.0, abs=0.5))
    assert site.calls()[0].code == "OK"
    await site.bound("data")
    assert len(site.events("data", "ProvisioningSucceeded")) == 1


async def test_a_deletion_that_runs_may_end_with_all_its_writes(site: Installation) -> None:
    released(site)
    site.fault(rpc="DeleteVolume", delay=5.0)
    await site.start()
    await site.until(lambda: site.calls("DeleteVolume"))
    code, seconds = await _stopped_after(site)
    assert (code, seconds) == (0, pytest.approx(5.0, abs=0.5))
    await site.until(lambda: site.find(VOLUME, "pv") is None, limit=1)


async def test_not_longer_than_the_grace_period(site: Installation) -> None:
    await _creating(site, 1000.0, call_timeout=600.0, shutdown_grace=10.0)
    code, seconds = await _stopped_after(site)
    assert (code, seconds) == (0, pytest.approx(3.0, abs=0.5))  # what is shielded and the events have the rest
    await site.rest(0.1)
    assert site.calls()[0].cancelled


async def test_with_nothing_running_it_ends_at_once(site: Installation) -> None:
    site.fault("INTERNAL")
    site.storage_class()
    site.claim()
    await site.start()
    await site.event("data", "ProvisioningFailed", 4)
    code, seconds = await _stopped_after(site)
    assert (code, seconds) == (0, pytest.approx(0, abs=0.1))
    calls = len(site.calls())
    await site.rest(100)
    assert len(site.calls()) == calls


async def test_nothing_new_begins(site: Installation) -> None:
    await _creating(site, 8.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.stop)
        await site.rest(1)
        site.claim("late")
        released(site)
    assert len(site.calls()) == 1
    assert site.calls("DeleteVolume") == []
    await site.bound("data")


async def test_before_the_caches_are_there_nothing_is_waited_for(site: Installation) -> None:
    site.refuse("list", CLAIM)
    with trio.move_on_after(30):
        await site.start()
    assert await _stopped_after(site) == (0, pytest.approx(0, abs=0.1))


async def test_while_the_driver_is_away(site: Installation) -> None:
    site.storage_class()
    await site.start()
    site.kill_driver()
    site.claim()
    await site.rest(30)
    assert await _stopped_after(site) == (0, pytest.approx(0, abs=0.1))


async def test_also_without_grace_a_made_volume_gets_its_last_try(site: Installation) -> None:
    """One claim's call uses up the whole grace period; the other's volume is written all the same (provision.md 13)."""
    site.fault(match="/slow$", hang=True)
    site.storage_class()
    site.claim("slow")
    site.claim("made")
    site.refuse("create", VOLUME)
    await site.start(call_timeout=600.0, shutdown_grace=10.0)
    await site.until(lambda: site.logged("Could not save the PersistentVolume"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.stop)
        await site.rest(5)
        site.api.clear()
    await site.bound("made")


async def test_tries_left_open_are_said_at_the_end(site: Installation) -> None:
    """The claim is deleted, the driver has not been certain, and no later process will know (provision.md 3.2)."""
    await _creating(site, 1000.0, call_timeout=5.0, shutdown_grace=1.0)
    await site.until(lambda: len(site.calls()) == 2)
    name = site.volume_of("data")
    site.delete(CLAIM, "data")
    await site.until(lambda: site.find(CLAIM, "data") is None)
    assert site.logged(LEFT) == []
    await site.stop()
    [line] = site.logged(LEFT)
    assert (line.keys["volume"], line.keys["volumeID"]) == (name, "unknown")
    assert "certain" in str(line.keys["reason"])


async def test_tries_whose_claim_is_there_are_left_to_the_next_process(site: Installation) -> None:
    """provision.md 3.2."""
    await _creating(site, 1000.0, call_timeout=5.0, shutdown_grace=1.0)
    await site.until(lambda: len(site.calls()) == 2)
    await site.stop()
    assert site.logged(LEFT) == []
    site.driver.faults.clear()
    await site.start()
    await site.bound("data")
    assert len(site.driver.state.volumes) == 1


async def test_a_lost_lease_ends_all_and_says_what_is_open(site: Installation) -> None:
    site.fault(hang=True)
    site.storage_class()
    site.claim("there")
    site.claim("gone")
    await site.start(call_timeout=5.0, election=ElectionSettings(enabled=True, namespace=NAMESPACE))
    await site.until(lambda: len(site.calls()) == 2)
    name = site.volume_of("gone")
    site.delete(CLAIM, "gone")
    await site.rest(30)
    site.refuse("*", "Lease")
    assert await site.ended() == 1
    assert [line.keys["volume"] for line in site.logged(LEFT)] == [name]
    await site.rest(0.1)
    assert site.driver.made("CreateVolume", running=True) == []


async def test_after_a_lost_lease_all_is_over_before_another_can_lead(site: Installation) -> None:
    """Also where the lease ends soon after its renewal is given up: the last tries get what is left of it
    (design.md 3, rule 9)."""
    site.storage_class()
    site.claim()
    site.refuse("create", VOLUME)
    tight = ElectionSettings(enabled=True, namespace=NAMESPACE, lease_duration=3, renew_deadline=2, retry_period=0.5)
    await site.start(election=tight)
    await site.until(lambda: site.logged("Could not save"))
    site.api.clear()
    site.refuse("create", VOLUME, delay=1000)
    site.refuse("*", "Lease")
    since = trio.current_time()
    assert await site.ended() == 1
    assert trio.current_time() - since <= tight.lease_duration


@pytest.fixture
def too_early() -> Iterator[list[int]]:
    """The signals that the handler gets which is there before the supervisor's, and ends the process on the spot."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda number, _frame: received.append(number)) for number in numbers]
    yield received
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_more_signals_than_two_cut_nothing_off(
    site: Installation, too_early: list[int], number: signal.Signals
) -> None:
    """process.md 10.2."""
    site.fault(capacity_delta=-1)
    site.fault(rpc="DeleteVolume", hang=True)
    site.storage_class()
    site.claim()
    await site.start(signals=True)
    await site.until(lambda: site.calls("DeleteVolume"))
    for _ in range(4):
        signal.raise_signal(number)
        await site.rest(0.4)
    assert await site.ended() == 1
    assert len(site.logged(LEFT)) == 1
    assert too_early == []
