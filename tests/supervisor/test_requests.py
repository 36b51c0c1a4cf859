"""What a claim costs the API server: the requests of its whole way, but for those of the volume journal."""

import collections

import trio

from tests.installation import Installation

SNAPSHOT = {"kind": "VolumeSnapshot", "apiGroup": "snapshot.storage.k8s.io", "name": "before"}


def asked(site: Installation) -> collections.Counter[str]:
    """By the provisioner, since the requests were last forgotten."""
    calls = [call for call in site.requests if call.agent.startswith("csi-provisioner/") and call.kind != "Lease"]
    return collections.Counter(f"{call.verb} {call.kind}" for call in calls if call.verb != "watch")


async def asked_for(site: Installation, name: str, **spec: object) -> collections.Counter[str]:
    """From when the claim is made until it is bound and nothing more comes."""
    site.requests.clear()
    site.claim(name, **spec)
    await site.bound(name)
    await trio.sleep(60)
    return asked(site)


async def test_a_claim_is_two_requests_and_a_restore_five_more_and_a_deletion_is_two(site: Installation) -> None:
    site.storage_class()
    site.snapshot("before")
    await site.start()
    plain = await asked_for(site, "data")
    assert plain == {"create PersistentVolume": 1, "create Event": 1}
    restored = await asked_for(site, "restored", dataSource=SNAPSHOT)
    more = restored - plain
    assert sum(more.values()) <= 5, more
    volume = site.volume_of("restored")
    site.requests.clear()
    site.delete("PersistentVolumeClaim", "restored")
    await site.until(lambda: site.find("PersistentVolume", volume) is None)
    await trio.sleep(60)
    assert asked(site) == {"delete PersistentVolume": 1, "patch PersistentVolume": 1}
