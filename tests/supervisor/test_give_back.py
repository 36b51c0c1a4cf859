"""A leader needs a driver: without one it gives the lease back, and leads again once the driver answers (design.md 4).

The lease is 15 s, renewed every 5 s.
"""

from typing import Any

import msgspec
import trio
from msgspec.structs import replace

from csi_provisioner.settings import ElectionSettings
from tests.installation import NAMESPACE, VOLUME, Installation

LEASE = "sandbox-csi-example-com"
ELECTION = ElectionSettings(enabled=True, namespace=NAMESPACE)
LEFT = "giving the lease back"


def _whole(site: Installation) -> Any:
    found = site.objects.find("Lease", LEASE, NAMESPACE)
    assert found is not None
    return found


def _lease(site: Installation) -> Any:
    return _whole(site)["spec"]


def _is_held(site: Installation) -> bool:
    return bool(_lease(site)["holderIdentity"])


async def _leader(site: Installation, election: ElectionSettings = ELECTION) -> None:
    site.storage_class()
    await site.start(election=election)
    assert _is_held(site)


async def test_a_short_restart_of_the_driver_keeps_the_lease(site: Installation) -> None:
    await _leader(site)
    site.kill_driver()
    await site.rest(12)
    await site.serve()
    site.claim()
    await site.bound("data")
    assert _is_held(site)
    assert _lease(site)["leaseTransitions"] == 0
    assert site.logged(LEFT) == []


async def test_a_leader_without_a_driver_gives_the_lease_back_and_leads_again_with_it(site: Installation) -> None:
    await _leader(site)
    site.kill_driver()
    since = trio.current_time()
    await site.until(lambda: not _is_held(site))
    assert 14 < trio.current_time() - since < 17
    assert _lease(site)["leaseDurationSeconds"] == 1
    site.claim()
    await site.rest(300)
    version, asked = _whole(site)["metadata"]["resourceVersion"], len(site.requests)
    await site.rest(300)
    assert _whole(site)["metadata"]["resourceVersion"] == version, "it does not compete"
    assert len(site.requests) == asked, "its caches have ended"
    await site.serve()
    await site.bound("data")
    assert _lease(site)["leaseTransitions"] == 1
    told = {event["message"].partition(" ")[2]: event["count"] for event in site.events(LEASE)}
    assert told == {"became leader": 2, "stopped leading": 1}
    assert len(site.logged(LEFT)) == 1
    assert await site.stop() == 0
    assert not _is_held(site)


async def test_a_driver_that_stays_up_too_short_to_be_ready_is_away(site: Installation) -> None:
    await _leader(site)
    site.kill_driver()
    site.fault(rpc="Probe", not_ready=True)
    await site.rest(5)
    await site.serve()
    await site.until(lambda: not _is_held(site), limit=30)
    site.driver.faults.clear()
    await site.until(lambda: _is_held(site), limit=30)


async def test_a_driver_that_comes_and_goes_makes_a_leader_each_time(site: Installation) -> None:
    await _leader(site)
    for number in range(1, 6):
        site.kill_driver()
        await site.rest(40)
        assert not _is_held(site)
        await site.serve()
        await site.rest(10)
        assert _is_held(site)
        assert _lease(site)["leaseTransitions"] == number
    site.claim()
    await site.bound("data")


async def test_without_an_election_the_driver_is_waited_for(site: Installation) -> None:
    site.storage_class()
    site.claim()
    await site.start()
    site.kill_driver()
    await site.rest(1000)
    assert site.logged(LEFT) == []
    assert site.logged("Caches are synced")[1:] == []
    await site.serve()
    await site.bound("data")


async def test_a_standby_sees_its_driver_go_and_does_not_compete(site: Installation) -> None:
    spec = {"holderIdentity": "them", "leaseDurationSeconds": 3600}
    site.objects.create("Lease", {"metadata": {"name": LEASE}, "spec": spec}, NAMESPACE)
    with trio.move_on_after(5):
        await site.start(election=ELECTION)
    site.kill_driver()
    await site.until(lambda: site.logged("Lost connection to CSI driver"), limit=5)
    site.objects.edit("Lease", LEASE, NAMESPACE, change=lambda lease: lease["spec"].update(holderIdentity=""))
    await site.rest(60)
    assert not _is_held(site)
    await site.serve()
    await site.until(lambda: _is_held(site), limit=10)


async def test_a_standby_leads_with_what_the_driver_can_do_by_then(site: Installation) -> None:
    spec = {"holderIdentity": "them", "leaseDurationSeconds": 30}
    site.objects.create("Lease", {"metadata": {"name": LEASE}, "spec": spec}, NAMESPACE)
    with trio.move_on_after(5):
        await site.start(election=ELECTION)
    site.kill_driver()
    await site.rest(1)
    await site.serve(msgspec.structs.replace(site.config, controller=()))
    site.storage_class()
    site.claim()
    await site.event("data", "ProvisioningFailed")
    assert site.calls() == []


async def test_a_stop_while_the_driver_is_away_and_nobody_leads_ends_at_once(site: Installation) -> None:
    await _leader(site)
    site.kill_driver()
    await site.until(lambda: not _is_held(site))
    since = trio.current_time()
    assert await site.stop() == 0
    assert trio.current_time() - since < 1


async def _unsaved(site: Installation, election: ElectionSettings = ELECTION) -> str:
    """A volume is made and cannot be saved, and the driver is away. Returns its id."""
    await _leader(site, election)
    site.refuse("create", VOLUME)
    site.claim()
    await site.until(lambda: site.driver.state.volumes)
    await site.until(lambda: site.logged("Could not save the PersistentVolume"))
    site.kill_driver()
    [volume_id] = site.driver.state.volumes
    return volume_id


async def test_saves_are_tried_until_the_lease_is_given_back_and_the_next_term_begins_anew(site: Installation) -> None:
    volume_id = await _unsaved(site)
    await site.until(lambda: not _is_held(site))
    [line] = site.logged("is made and its PersistentVolume is not written")
    assert line.keys["volumeID"] == volume_id
    site.api.clear()
    await site.rest(100)
    assert site.find(VOLUME, site.volume_of("data")) is None, "nothing is written while nobody leads"
    await site.serve()
    await site.bound("data")
    assert list(site.driver.state.volumes) == [volume_id]
    assert len(site.calls()) == 2


async def test_a_save_that_succeeds_before_that_is_one(site: Installation) -> None:
    await _unsaved(site)
    await site.rest(5)
    site.api.clear()
    await site.until(lambda: site.find(VOLUME, site.volume_of("data")) is not None, limit=10)


async def test_at_a_stop_a_driver_that_has_gone_too_leaves_saves_their_whole_time(site: Installation) -> None:
    """The pod ends, and its containers with it."""
    site.storage_class()
    site.refuse("create", VOLUME)
    site.claim()
    await site.start(election=ELECTION, shutdown_grace=40.0)
    await site.until(lambda: site.logged("Could not save the PersistentVolume"))
    async with trio.open_nursery() as nursery:
        site.kill_driver()
        nursery.start_soon(site.stop)
        await trio.sleep(20)
        site.api.clear()
    assert site.find(VOLUME, site.volume_of("data")) is not None
    assert site.logged(LEFT) == []
    assert site.events("data", "DriverUnavailable") == [], "it is nobody's trouble"
    assert not _is_held(site)


async def test_after_a_goodbye_a_driver_that_is_not_ready_loses_the_lease(site: Installation) -> None:
    await _leader(site)
    site.fault(rpc="Probe", not_ready=True)
    site.driver.say_goodbye()
    await site.until(lambda: not _is_held(site), limit=20)


async def test_an_unsaved_volume_whose_claim_is_gone_is_told_at_the_give_back(site: Installation) -> None:
    volume_id = await _unsaved(site)
    site.delete("PersistentVolumeClaim", "data")
    await site.until(lambda: not _is_held(site))
    assert any(volume_id in str(line.keys) for line in site.logged("may be left over"))


async def test_with_a_volume_journal_the_next_leader_deletes_it(site: Installation) -> None:
    volume_id = await _unsaved(site, replace(ELECTION, own_namespace=NAMESPACE))
    site.delete("PersistentVolumeClaim", "data")
    await site.until(lambda: not _is_held(site))
    assert site.logged("may be left over") == []
    assert list(site.driver.state.volumes) == [volume_id]
    site.api.clear()
    await site.serve()
    await site.until(lambda: not site.driver.state.volumes, limit=120)
    assert site.logged("may be left over") == []
    assert site.objects.all(VOLUME) == []


# ---- an outage is told


READY = "csi_provisioner_driver_ready"


async def _outage(site: Installation, seconds: float) -> None:
    site.kill_driver()
    await site.rest(seconds)
    await site.serve()
    await site.rest(3)


async def test_a_claim_that_waits_for_the_driver_is_told_so_once_an_outage(site: Installation) -> None:
    site.fault("UNAVAILABLE")
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(site.calls)
    assert (await site.metrics())[READY] == 1
    site.kill_driver()
    await site.rest(8)
    assert site.events("data", "DriverUnavailable") == []
    assert (await site.metrics())[READY] == 0
    await site.rest(100)
    [event] = site.events("data", "DriverUnavailable")
    assert (event["type"], event["count"]) == ("Warning", 1)
    assert "sandbox.csi.example.com does not answer" in event["message"]
    await site.serve()
    await site.rest(3)
    await _outage(site, 20)
    [event] = site.events("data", "DriverUnavailable")
    assert event["count"] == 2
    assert (await site.metrics())[READY] == 1


async def test_a_restart_of_the_driver_is_not_told(site: Installation) -> None:
    site.fault("UNAVAILABLE")
    site.storage_class()
    site.claim()
    await site.start()
    for _ in range(3):
        await _outage(site, 8)
    assert site.events("data", "DriverUnavailable") == []


async def test_only_the_oldest_of_a_crowd_and_those_that_wait_for_us_are_told(site: Installation) -> None:
    site.fault("UNAVAILABLE")
    site.storage_class()
    site.cluster.storage_class("late", site.config.name, late=True)
    for number in range(105):
        site.claim(f"data-{number}")
    site.claim("late", "late")
    site.claim("without-class", "missing")
    await site.start()
    await site.until(lambda: len(site.calls()) > 105)
    await _outage(site, 30)
    told = {
        event["involvedObject"]["name"] for event in site.objects.all("Event") if event["reason"] == "DriverUnavailable"
    }
    assert len(told) == 100
    assert told <= {f"data-{number}" for number in range(105)}
