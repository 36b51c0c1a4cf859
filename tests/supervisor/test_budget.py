"""The end has one budget: calls and saves go on, then what is shielded, the lease, events; gone when it is used up.

All of it counts from the signal (design.md 3 rule 9 and the row SIGTERM of its section 4; process.md 10).
"""

import signal
from dataclasses import dataclass

import msgspec
import pytest
import trio
from msgspec.structs import replace

from csi_provisioner.settings import ElectionSettings
from sandbox.api.faults import Fault
from tests.installation import CLAIM, NAMESPACE, VOLUME, Installation

ELECTION = ElectionSettings(enabled=True, namespace=NAMESPACE)
LEASE = "sandbox-csi-example-com"
LEFT = "A volume may be left over"
UNSAVED = "A volume is made and its PersistentVolume is not written"
SHIELDED, EVENTS = 5.0, 2.0


def _freeze(site: Installation) -> None:
    """The API server takes connections and requests, and says nothing any more."""
    site.api.clear()
    site.api.stall_watches()
    site.api.add(Fault(agent="csi-provisioner*", delay=1e6, times=None))


async def _unsaved(site: Installation, **settings: object) -> None:
    """`made` has its volume, and the API server does not take the object."""
    site.refuse("create", VOLUME)
    site.storage_class()
    site.claim("made")
    await site.start(**{"call_timeout": 600.0} | settings)  # type: ignore[arg-type]
    await site.until(lambda: site.logged("Could not save the PersistentVolume"))


@dataclass(frozen=True)
class Row:
    grace: float
    election: bool
    frozen: bool
    hanging: bool
    seconds: float | None
    """None: as long as the lease is ours."""
    code: int = 0


ROWS = {
    "25 s, API server frozen": Row(25, False, True, False, 25 - EVENTS),
    "25 s, driver hanging": Row(25, False, False, True, 25 - SHIELDED - EVENTS),
    "25 s, both": Row(25, False, True, True, 25 - EVENTS),
    "5 s, API server frozen": Row(5, False, True, False, 5),
    "5 s, driver hanging": Row(5, False, False, True, 0),
    "5 s, both": Row(5, False, True, True, 5),
    "0 s, API server frozen": Row(0, False, True, False, 0),
    "0 s, driver hanging": Row(0, False, False, True, 0),
    "0 s, both": Row(0, False, True, True, 0),
    "leader, 25 s, API server frozen": Row(25, True, True, False, None, 1),
    "leader, 25 s, driver hanging": Row(25, True, False, True, 25 - SHIELDED - EVENTS),
    "leader, 25 s, both": Row(25, True, True, True, None, 1),
    "leader, 5 s, API server frozen": Row(5, True, True, False, 5),
    "leader, 5 s, driver hanging": Row(5, True, False, True, 0),
    "leader, 5 s, both": Row(5, True, True, True, 5),
    "leader, 0 s, API server frozen": Row(0, True, True, False, 0),
    "leader, 0 s, driver hanging": Row(0, True, False, True, 0),
    "leader, 0 s, both": Row(0, True, True, True, 0),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
async def test_the_end_has_one_budget(site: Installation, row: Row) -> None:
    await _unsaved(site, shutdown_grace=float(row.grace), election=ELECTION if row.election else ElectionSettings())
    if row.hanging:
        site.fault(hang=True)
        site.claim("slow")
        await site.until(lambda: len(site.calls()) == 2)
    if row.frozen:
        _freeze(site)
    else:
        site.api.clear()
        await site.bound("made")
    await site.rest(1)
    renewed = max((call.at for call in site.requests.of("update", "Lease") if call.code == 200), default=0.0)
    since = trio.current_time()
    assert await site.stop() == row.code
    ended = trio.current_time()
    if row.seconds is None:
        assert ended == pytest.approx(renewed + ELECTION.lease_duration, abs=0.3)
    else:
        assert ended - since == pytest.approx(row.seconds, abs=0.3)
    [made] = site.driver.state.volumes.values()
    told = [(line.keys["volumeID"], line.keys["claim"]) for line in site.logged(UNSAVED)]
    assert told == ([(made.id, f"{NAMESPACE}/made")] if row.frozen else [])
    assert site.logged(LEFT) == []  # the claim is there, and the next process asks for it again
    await site.rest(1)
    assert not any(call.running for call in site.calls())
    if row.election and not row.frozen and row.grace:
        assert site.objects.find("Lease", LEASE, NAMESPACE)["spec"]["holderIdentity"] == ""  # type: ignore[index]


async def test_a_driver_that_comes_back_with_other_capabilities_does_not_prolong_the_end(site: Installation) -> None:
    await _unsaved(site)
    since = trio.current_time()
    site.kill_driver()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.stop)
        await site.rest(3)
        await site.serve(msgspec.structs.replace(site.config, controller=("CREATE_DELETE_VOLUME",)))
    assert trio.current_time() - since == pytest.approx(25 - EVENTS, abs=0.5)


@pytest.mark.parametrize("election", [ElectionSettings(), ELECTION], ids=["alone", "leader"])
@pytest.mark.parametrize("outage", [6.0, 16.0, 20.0, 22.5])
async def test_a_made_volume_is_saved_as_soon_as_the_api_server_is_back(
    site: Installation, outage: float, election: ElectionSettings
) -> None:
    """Also when only the shielded time is left; a renewal succeeds now and then, or the lease would be lost."""
    await _unsaved(site, election=election)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.stop)
        await site.rest(outage)
        site.api.clear()
        since = trio.current_time()
        await site.until(lambda: site.objects.all(VOLUME), limit=30)
        assert trio.current_time() - since < 12
    assert site.logged(UNSAVED) == []
    assert len(site.events("made", "ProvisioningSucceeded")) == 1


async def test_what_hangs_does_not_take_the_time_of_the_last_saves(site: Installation) -> None:
    """They share it side by side: the undo hangs until all is over, the save is done at once."""
    await _unsaved(site, shutdown_grace=5.0)
    site.fault(match="/odd$", capacity_delta=-1)
    site.fault(rpc="DeleteVolume", hang=True)
    site.claim("odd")
    await site.until(lambda: site.calls("DeleteVolume"))
    since = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.stop)
        await site.rest(4)
        site.api.clear()
    assert trio.current_time() - since == pytest.approx(5, abs=0.3)
    assert site.cluster.is_bound("made")
    [line] = site.logged(LEFT)
    assert line.keys["claim"] == f"{NAMESPACE}/odd"
    assert "not done within" in str(line.keys["reason"])


async def test_one_that_no_later_process_can_know_is_a_suspect(site: Installation) -> None:
    await _unsaved(site)
    site.delete(CLAIM, "made")
    await site.rest(1)
    _freeze(site)
    assert await site.stop() == 0
    [volume] = site.driver.state.volumes.values()
    [line] = site.logged(LEFT)
    assert (line.keys["volumeID"], line.keys["claim"]) == (volume.id, f"{NAMESPACE}/made")


async def test_a_migrated_volume_is_told_with_the_driver_s_id(site: Installation) -> None:
    site.kill_driver()
    await site.rest(0.1)
    await site.serve(replace(site.config, name="ebs.csi.aws.com"))
    old = {"metadata": {"name": "old"}, "provisioner": "kubernetes.io/aws-ebs", "volumeBindingMode": "Immediate"}
    site.objects.create("StorageClass", old)
    site.claim("moved", "old")
    told = {
        "volume.kubernetes.io/storage-provisioner": "ebs.csi.aws.com",
        "pv.kubernetes.io/migrated-to": "ebs.csi.aws.com",
    }
    site.edit(CLAIM, "moved", lambda claim: claim["metadata"].setdefault("annotations", {}).update(told))
    site.refuse("create", VOLUME)
    await site.start(shutdown_grace=1.0)
    await site.until(lambda: site.logged("Could not save the PersistentVolume"))
    await site.stop()
    [volume] = site.driver.state.volumes.values()
    [line] = site.logged(UNSAVED)
    assert line.keys["volumeID"] == volume.id


async def test_a_driver_that_came_back_changed_does_not_lose_what_is_unsaved(site: Installation) -> None:
    """The stop comes while the caches of the next life cannot be read."""
    await _unsaved(site)
    site.kill_driver()
    site.refuse("list", CLAIM)
    await site.rest(1)
    await site.serve(replace(site.config, controller=("CREATE_DELETE_VOLUME",)))
    await site.until(lambda: site.logged("CSI driver is back with other capabilities"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.stop)
        await site.rest(10)
        site.api.clear()
    await site.bound("made")


async def test_gone_when_the_time_is_used_up_also_with_something_left_to_tell(site: Installation) -> None:
    site.storage_class()
    await site.start()
    site.refuse("create", "Event", code=0, delay=1e6)
    site.fault(delay=2.0, times=1)  # so that both its events are to be written
    site.claim()
    await site.bound("data")
    since = trio.current_time()
    assert await site.stop() == 0
    assert trio.current_time() - since == pytest.approx(25, abs=0.3)


async def test_events_have_the_rest(site: Installation) -> None:
    """Many volumes at the last moment: each is told, though the claims that are still due are no reason to wait."""
    site.storage_class()
    names = [f"data-{number}" for number in range(30)]
    site.fault(delay=3.0)
    for name in names:
        site.claim(name)
    site.refuse("create", "Event", code=0, delay=0.2)
    await site.start()
    await site.until(lambda: len(site.calls()) == len(names))
    for number in range(80):
        site.claim(f"late-{number}")
    since = trio.current_time()
    assert await site.stop() == 0
    assert trio.current_time() - since < 7  # the calls, and a fifth of a second for each event by four writers
    await site.bound(*names)
    assert [name for name in names if not site.events(name, "ProvisioningSucceeded")] == []


async def test_events_are_logged_when_they_happen(site: Installation) -> None:
    site.storage_class()
    site.claim()
    site.refuse("create", "Event", code=0, delay=1e6)
    await site.start()
    await site.bound("data")
    said = [line.keys["reason"] for line in site.logged("Event occurred") if line.keys["kind"] == CLAIM]
    assert said == ["Provisioning", "ProvisioningSucceeded"]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_two_signals_within_half_a_second_are_one_wish(site: Installation, second: signal.Signals) -> None:
    site.fault(delay=8.0)
    site.storage_class()
    site.claim()
    await site.start(signals=True)
    await site.until(site.calls)
    signal.raise_signal(signal.SIGTERM)
    await site.rest(0.4)
    signal.raise_signal(second)
    assert await site.ended() == 0
    await site.bound("data")


async def test_a_second_signal_later_ends_at_once(site: Installation) -> None:
    """Nothing is waited for, and what is left is still said."""
    await _unsaved(site, signals=True)
    site.fault(match="/odd$", capacity_delta=-1)
    site.fault(rpc="DeleteVolume", hang=True)
    site.claim("odd")
    await site.until(lambda: site.calls("DeleteVolume"))
    signal.raise_signal(signal.SIGTERM)
    await site.rest(0.6)
    since = trio.current_time()
    signal.raise_signal(signal.SIGTERM)
    assert await site.ended() == 1
    assert trio.current_time() - since == pytest.approx(0, abs=0.1)
    assert len(site.logged(UNSAVED)) == 1
    assert len(site.logged(LEFT)) == 1
