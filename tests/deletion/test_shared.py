"""A volume that two PersistentVolumes name is not deleted from under one of them (delete.md 7.3)."""

from typing import Any

import msgspec
import pytest

from tests.deletion.released import PROVISIONED_BY, bound, reconfigured, released
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


# ---- in-tree form


EBS = "ebs.csi.aws.com"
IN_TREE: dict[str, Any] = {
    "annotations": {PROVISIONED_BY: "kubernetes.io/aws-ebs"},
    "awsElasticBlockStore": {"volumeID": "aws://zone-1/vol-1"},
}
CSI_FORM: dict[str, Any] = {"csi": {"driver": EBS, "volumeHandle": "vol-1"}}


@pytest.mark.parametrize(("first", "second"), [(IN_TREE, CSI_FORM), (CSI_FORM, IN_TREE), (IN_TREE, IN_TREE)])
async def test_the_form_of_a_volume_does_not_matter(
    site: Installation, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """The one that waits is woken as soon as the other has gone."""
    await reconfigured(site, msgspec.structs.replace(site.config, name=EBS))
    released(site, **first)
    released(site, "kept", persistentVolumeReclaimPolicy="Retain", **second)
    await site.start()
    kept = await site.event("pv", "VolumeFailedDelete")
    assert "while PersistentVolume kept (claim default/gone) names the same volume" in kept["message"]
    await site.rest(2000)
    assert site.calls("DeleteVolume") == []
    site.edit(VOLUME, "kept", lambda volume: volume["metadata"].pop("finalizers"))
    site.delete(VOLUME, "kept")
    await site.until(lambda: site.find(VOLUME, "pv") is None, limit=5.0)
    assert [call.request.volume_id for call in site.calls("DeleteVolume")] == ["vol-1"]


# ---- the secret


NO_SECRET = {f"{SECRET}-name": "", f"{SECRET}-namespace": ""}
IN_CLASS = {
    "parameters": {f"csi.storage.k8s.io/provisioner-secret-{part}": "default" for part in ("name", "namespace")}
}


@pytest.mark.parametrize("other_class", ["", "another", "gone"])
async def test_whoever_is_deleted_without_a_secret_is_the_same_volume_in_every_class(
    site: Installation, other_class: str
) -> None:
    """Such as one that people wrote by hand after the one that we made."""
    site.storage_class("another")
    handle = released(site, annotations=NO_SECRET)
    other = {"driver": site.config.name, "volumeHandle": handle}
    released(site, "kept", persistentVolumeReclaimPolicy="Retain", csi=other, storageClassName=other_class)
    await site.start()
    await site.event("pv", "VolumeFailedDelete")
    await site.rest(100)
    assert site.calls("DeleteVolume") == []


@pytest.mark.parametrize(("named", "is_same"), [("default", True), ("theirs", False)])
async def test_a_secret_is_the_same_wherever_it_is_named(site: Installation, named: str, is_same: bool) -> None:
    site.storage_class("fast", **IN_CLASS)
    site.secret("default")
    handle = released(site)
    other = {"driver": site.config.name, "volumeHandle": handle}
    annotations = {f"{SECRET}-name": named, f"{SECRET}-namespace": "default"}
    released(
        site, "kept", persistentVolumeReclaimPolicy="Retain", csi=other, storageClassName="", annotations=annotations
    )
    await site.start()
    await site.rest(100)
    assert (site.calls("DeleteVolume") == []) == is_same
