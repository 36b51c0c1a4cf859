"""While a cluster that was restored is read anew: what the caches show of its volumes may be of a lost future."""

from typing import Any

import pytest

from sandbox.api.faults import Fault
from tests.deletion.released import PROVISIONED_BY, released
from tests.installation import CLAIM, VOLUME, Installation
from tests.leading import term


def caches() -> Any:
    return term()._caches


async def test_a_claim_is_not_done_by_a_volume_of_which_nobody_knows_whether_it_is_still_there(
    site: Installation,
) -> None:
    site.storage_class()
    site.fault("UNAVAILABLE", times=1)
    await site.start()
    site.claim()
    name = site.volume_of("data")
    await site.until(lambda: len(site.calls()) == 1)
    source = {"driver": site.config.name, "volumeHandle": "other"}
    site.objects.create(
        VOLUME,
        {
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: site.config.name}},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "another",
                "csi": source,
            },
        },
    )
    caches().unsynced.add(VOLUME)
    await site.rest(20)
    site.delete(VOLUME, name)
    await site.until(lambda: name not in caches().volumes)
    caches().unsynced.discard(VOLUME)
    await site.until(lambda: site.cluster.is_bound("data"), limit=60)


@pytest.mark.parametrize("shown_by", ["the claim", "its name"])
async def test_a_volume_whose_write_was_not_answered_is_known_before_the_watch_shows_it(
    site: Installation, shown_by: str
) -> None:
    site.storage_class()
    await site.start()
    site.api.add(Fault("create", VOLUME, cut="after"))
    if shown_by == "its name":
        site.refuse("get", CLAIM, 403)
    site.objects.lag(VOLUME)
    site.claim()
    await site.event("data", "ProvisioningSucceeded")
    assert caches().volumes.get(site.volume_of("data")) is not None


async def test_a_volume_that_was_deleted_is_deleted_again_where_a_restore_brings_it_back(site: Installation) -> None:
    """Unchanged, as the caches have it still: nothing but the restore says that there is something to do."""
    released(site)
    site.fault(rpc="DeleteVolume", delay=1.0)
    await site.start()
    await site.until(lambda: site.calls("DeleteVolume"))
    volumes = site.objects.storage.of(site.objects.kind(VOLUME))
    before = dict(volumes.objects)
    site.objects.lag(VOLUME)
    await site.until(lambda: site.find(VOLUME, "pv") is None)
    volumes.objects, volumes.keys = before, sorted(before)
    term().look_again()
    await site.until(lambda: site.find(VOLUME, "pv") is None, limit=60)


async def test_an_object_whose_deletion_failed_is_not_deleted_while_it_may_be_wanted_again(site: Installation) -> None:
    released(site)
    refusal = site.refuse("delete", VOLUME, 503, times=1)
    await site.start()
    await site.until(lambda: refusal.hits)
    caches().unsynced.add(VOLUME)
    await site.rest(60)
    assert site.find(VOLUME, "pv") is not None
    caches().unsynced.discard(VOLUME)
    await site.until(lambda: site.find(VOLUME, "pv") is None, limit=400)
