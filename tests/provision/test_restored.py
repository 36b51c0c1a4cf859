"""While a cluster that was restored is read anew: what the caches show of its volumes may be of a lost future."""

import gc
from typing import Any

from csi_provisioner.supervisor.term import LeaderTerm
from sandbox.api.faults import Fault
from tests.deletion.released import PROVISIONED_BY
from tests.installation import CLAIM, VOLUME, Installation


def caches() -> Any:
    """Of the one term that leads now."""
    terms = [obj for obj in gc.get_objects() if isinstance(obj, LeaderTerm)]
    return max(terms, key=lambda term: term.began)._caches


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


async def test_a_volume_whose_write_was_not_answered_is_known_before_the_watch_shows_it(site: Installation) -> None:
    site.storage_class()
    await site.start()
    site.api.add(Fault("create", VOLUME, cut="after"))
    site.refuse("get", CLAIM, 403)
    site.objects.lag(VOLUME)
    site.claim()
    await site.event("data", "ProvisioningSucceeded")
    assert caches().volumes.get(site.volume_of("data")) is not None
