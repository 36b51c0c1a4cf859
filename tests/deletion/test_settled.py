"""Claims and volumes for which nothing was to be done any more, of which a provisioner keeps a few bytes: what happens
to them later is met as ever."""

from typing import Any

import pytest

from csi_provisioner.kube.reflector import RESYNC
from tests.deletion.released import PROVISIONED_BY, bound, released
from tests.installation import CLAIM, VOLUME, Installation
from tests.journeys.objects import CLONE_FINALIZER, VOLUME_FINALIZER, from_claim
from tests.leading import term

KINDS = (CLAIM, VOLUME)


def caches() -> Any:
    return term()._caches


async def settled(site: Installation, *claims: str) -> None:
    """Has them made, and waits until nobody holds them."""
    site.storage_class()
    for name in claims:
        site.claim(name)
    await site.start()
    await site.bound(*claims)
    await site.rest(10)
    for store in (caches().claims, caches().volumes):
        assert store.values() == []
        assert len(store) == len(claims)


def lists_again(site: Installation, *kinds: str) -> None:
    """What happens next is shown by a list alone."""
    for kind in kinds:
        site.refuse("watch", kind, 410, times=1)
        site.api.cut_watches(kind)


@pytest.mark.parametrize("by", ["events", "a list"])
async def test_claims_that_have_settled_go_with_their_volumes(site: Installation, by: str) -> None:
    names = [f"c{number}" for number in range(5)]
    await settled(site, *names)
    kept = site.volume_of("c0")
    if by == "a list":
        lists_again(site, *KINDS)
    for name in names[1:]:
        site.delete(CLAIM, name)
    await site.until(lambda: len(site.objects.all(VOLUME)) == 1)
    await site.rest(60)
    assert len(site.driver.state.volumes) == 1
    assert len(site.calls("DeleteVolume")) == 4
    assert site.find(VOLUME, kept) is not None
    assert len(site.calls()) == 5, "none was asked for again"


async def test_of_what_has_settled_nothing_is_told_or_asked_again(site: Installation) -> None:
    await settled(site, "data")
    seen = len(site.requests.of())
    await site.rest(2.5 * RESYNC)
    assert {call.verb for call in site.requests.of()[seen:]} <= {"watch", "list"}
    lists_again(site, *KINDS)
    site.touch(CLAIM, "data", "1")
    site.touch(VOLUME, site.volume_of("data"), "1")
    await site.rest(60)
    assert len(site.calls()) == 1
    assert caches().claims.values() == caches().volumes.values() == []


async def test_a_policy_that_people_change_is_met(site: Installation) -> None:
    await settled(site, "data")
    volume = site.volume_of("data")
    site.edit(VOLUME, volume, lambda obj: obj["spec"].update(persistentVolumeReclaimPolicy="Retain"))
    await site.until(lambda: VOLUME_FINALIZER not in site.finalizers(VOLUME, volume))
    await site.rest(10)
    assert caches().volumes.values() == []
    site.delete(CLAIM, "data")
    await site.rest(60)
    assert site.calls("DeleteVolume") == []
    site.edit(VOLUME, volume, lambda obj: obj["spec"].update(persistentVolumeReclaimPolicy="Delete"))
    await site.until(lambda: site.find(VOLUME, volume) is None)
    assert len(site.calls("DeleteVolume")) == 1


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_a_volume_whose_going_only_a_list_shows_is_told_with_its_id(site: Installation, policy: str) -> None:
    handle = bound(site, persistentVolumeReclaimPolicy=policy)
    by_hand = bound(site, "by-hand", persistentVolumeReclaimPolicy="Retain")
    site.edit(VOLUME, "by-hand", lambda volume: volume["metadata"]["annotations"].pop(PROVISIONED_BY))
    await site.start()
    await site.rest(10)
    assert caches().volumes.values() == []
    lists_again(site, VOLUME)
    for name in ("pv", "by-hand"):
        site.delete(VOLUME, name)
        if site.find(VOLUME, name) is not None:
            site.edit(VOLUME, name, lambda volume: volume["metadata"].update(finalizers=[]))
    told = await site.event("pv", "VolumeDropped")
    assert f"volume {handle} is left" in told["message"]
    assert ("Retain" in told["message"]) == (policy == "Retain")
    await site.rest(60)
    assert site.events("by-hand") == []
    assert by_hand in site.driver.state.volumes


async def test_one_that_is_adopted_and_has_settled_is_not_told(site: Installation) -> None:
    handle = bound(site, persistentVolumeReclaimPolicy="Retain")
    bound(site, "adopted", csi={"driver": site.config.name, "volumeHandle": handle})
    await site.start()
    await site.rest(10)
    assert caches().volumes.values() == []
    lists_again(site, VOLUME)
    site.delete(VOLUME, "pv")
    site.edit(VOLUME, "pv", lambda volume: volume["metadata"].update(finalizers=[]))
    await site.rest(60)
    assert site.events("pv", "VolumeDropped") == []


async def test_a_volume_that_one_of_which_only_a_record_is_kept_names_too_is_not_deleted(site: Installation) -> None:
    handle = bound(site, "kept")
    await site.start()
    await site.rest(10)
    assert caches().volumes.values() == []
    released(site, csi={"driver": site.config.name, "volumeHandle": handle})
    told = await site.event("pv", "VolumeFailedDelete")
    assert "while PersistentVolume kept (claim default/claim-of-kept) names the same volume" in told["message"]
    site.refuse("get", VOLUME, times=1)
    await site.rest(1000)
    assert site.calls("DeleteVolume") == []
    site.delete(CLAIM, "claim-of-kept")
    await site.until(lambda: site.objects.all(VOLUME) == [])
    assert {call.request.volume_id for call in site.calls("DeleteVolume")} == {handle}


async def test_the_deletion_goes_on_when_only_a_list_shows_that_the_other_one_is_gone(site: Installation) -> None:
    handle = bound(site, "kept", persistentVolumeReclaimPolicy="Retain", finalizers=())
    await site.start()
    await site.rest(10)
    released(site, csi={"driver": site.config.name, "volumeHandle": handle})
    await site.event("pv", "VolumeFailedDelete")
    await site.rest(1000)
    lists_again(site, VOLUME)
    site.delete(VOLUME, "kept")
    site.edit(VOLUME, "kept", lambda volume: volume["metadata"].update(finalizers=[]))
    await site.until(lambda: site.find(VOLUME, "pv") is None, limit=60)


async def test_a_claim_that_has_settled_is_cloned_and_held_while_it_is_read(site: Installation) -> None:
    await settled(site, "source")
    site.fault(delay=8.0, times=1)
    site.claim("copy", **from_claim("source"))
    await site.until(lambda: CLONE_FINALIZER in site.finalizers(CLAIM, "source"))
    await site.until(lambda: len(site.calls()) == 2)
    site.delete(CLAIM, "source")
    await site.rest(5)
    assert CLONE_FINALIZER in site.finalizers(CLAIM, "source")
    await site.bound("copy")
    await site.until(lambda: site.find(CLAIM, "source") is None)
    reads = site.requests.of("get", CLAIM, name="source")
    assert len(reads) == 1, "what was read is what is changed"


async def test_a_source_that_cannot_be_read_just_now_is_said_and_read_again(site: Installation) -> None:
    await settled(site, "source")
    site.refuse("get", CLAIM, times=1)
    site.claim("copy", **from_claim("source"))
    told = await site.event("copy", "ProvisioningFailed")
    assert (
        "PersistentVolumeClaim default/source cannot be the source of claim default/copy: cannot read it"
        in (told["message"])
    )
    await site.bound("copy")
