"""The lease is given back while an undo or a write of protection is under way: nobody's change comes after it."""

from typing import Any

import pytest
import trio
from msgspec.structs import replace

from tests.installation import CLAIM, NAMESPACE, VOLUME, Installation
from tests.journeys.objects import CLONE_FINALIZER, from_claim
from tests.supervisor.test_give_back import ELECTION, _is_held, _leader

CHANGES = ("create", "update", "patch", "delete")


def _changes(site: Installation) -> int:
    """Requests that change the cluster, but for the events that tell of it."""
    return sum(len(site.requests.of(verb, kind)) for verb in CHANGES for kind in (CLAIM, VOLUME, "Lease"))


async def _given_back(site: Installation, since: float) -> None:
    """As without anything in flight, and then nothing changes while nobody leads."""
    await site.until(lambda: not _is_held(site))
    assert trio.current_time() - since < 20
    changes = _changes(site)
    await site.rest(60)
    assert _changes(site) == changes
    assert not _is_held(site)


@pytest.mark.parametrize("journal", [False, True], ids=["alone", "with a journal"])
async def test_an_undo_in_flight_holds_up_no_give_back_and_leaves_one_volume(site: Installation, journal: bool) -> None:
    site.fault(times=1, capacity_delta=-1)
    site.fault(rpc="DeleteVolume", gate="undo", times=1)
    await _leader(site, replace(ELECTION, own_namespace=NAMESPACE) if journal else ELECTION)
    site.claim()
    await site.until(lambda: site.calls("DeleteVolume"))
    site.kill_driver()
    await _given_back(site, trio.current_time())
    site.driver.faults.gate("undo").set()
    await site.serve()
    await site.bound("data")
    await site.rest(100)
    assert len(site.driver.state.volumes) == 1
    [volume] = site.objects.all(VOLUME)
    assert volume["spec"]["csi"]["volumeHandle"] in site.driver.state.volumes


async def test_a_claim_that_goes_during_an_undo_in_flight_leaves_no_volume(site: Installation) -> None:
    site.fault(times=1, capacity_delta=-1)
    site.fault(rpc="DeleteVolume", gate="undo", times=1)
    await _leader(site, replace(ELECTION, own_namespace=NAMESPACE))
    site.claim()
    await site.until(lambda: site.calls("DeleteVolume"))
    site.kill_driver()
    site.delete(CLAIM, "data")
    await _given_back(site, trio.current_time())
    site.driver.faults.gate("undo").set()
    await site.serve()
    await site.until(lambda: not site.driver.state.volumes, limit=200)
    assert site.objects.all(VOLUME) == []


@pytest.mark.parametrize("moment", ["protect", "release"])
async def test_a_write_of_protection_in_flight_ends_before_the_lease_is_given_back(
    site: Installation, moment: str
) -> None:
    """Putting our finalizer on a source, and taking it off."""
    await _leader(site)
    site.claim("source")
    await site.bound("source")
    site.fault(gate="making", times=1)
    slow: dict[str, Any] = {"delay": 60.0, "times": 1, "name": "source"}
    write = site.refuse("update", CLAIM, 0, **slow) if moment == "protect" else None
    site.claim(**from_claim("source"))
    if write is None:
        await site.until(lambda: len(site.calls()) == 2)
        write = site.refuse("update", CLAIM, 0, **slow)
        site.delete(CLAIM, "source")  # ours is what it waits for
    site.driver.faults.gate("making").set()
    await site.until(lambda: write.hits)
    site.kill_driver()
    await _given_back(site, trio.current_time())
    await site.serve()
    await site.bound("data")
    if moment == "protect":
        assert site.finalizers(CLAIM, "source").count(CLONE_FINALIZER) == 1
    else:
        await site.until(lambda: len(site.driver.state.volumes) == 1, limit=200)
