"""A volume that two PersistentVolumes name is not deleted from under one of them (delete.md 7.3)."""

from tests.deletion.released import bound, released
from tests.installation import CLAIM, VOLUME, Installation

SECRET = "volume.kubernetes.io/provisioner-deletion-secret"


async def test_two_claims_that_were_given_one_volume_are_told_and_the_first_to_go_deletes_nothing(
    site: Installation,
) -> None:
    site.fault(volume_id="twin")
    site.storage_class()
    site.claim("one")
    await site.start()
    await site.bound("one")
    site.claim("two")
    await site.bound("two")
    told = await site.event("two", "VolumeShared")
    first, second = site.volume_of("one"), site.volume_of("two")
    assert f"volume twin, which PersistentVolume {first} (claim default/one) has already" in told["message"]
    site.delete(CLAIM, "one")
    kept = await site.event(first, "VolumeFailedDelete")
    assert f"while PersistentVolume {second} (claim default/two) names the same volume" in kept["message"]
    await site.rest(2000)
    assert site.calls("DeleteVolume") == []
    site.delete(CLAIM, "two")
    await site.until(lambda: site.find(VOLUME, first) is None and site.find(VOLUME, second) is None)
    assert {call.request.volume_id for call in site.calls("DeleteVolume")} == {"twin"}


async def test_the_last_one_is_deleted_as_soon_as_the_other_object_has_gone(site: Installation) -> None:
    handle = released(site)
    other = {"driver": site.config.name, "volumeHandle": handle}
    released(site, "kept", phase="Available", persistentVolumeReclaimPolicy="Retain", csi=other, finalizers=())
    site.edit(VOLUME, "kept", lambda volume: volume["metadata"].pop("finalizers"))
    await site.start()
    await site.event("pv", "VolumeFailedDelete")
    await site.rest(1000)
    assert site.calls("DeleteVolume") == []
    site.delete(VOLUME, "kept")
    await site.until(lambda: site.find(VOLUME, "pv") is None)


async def test_an_id_that_another_secret_opens_is_another_volume(site: Installation) -> None:
    handle = released(site)
    other = {"driver": site.config.name, "volumeHandle": handle}
    bound(site, "other", csi=other, annotations={f"{SECRET}-name": "theirs", f"{SECRET}-namespace": "default"})
    await site.start()
    await site.until(lambda: site.find(VOLUME, "pv") is None)
    assert len(site.calls("DeleteVolume")) == 1
