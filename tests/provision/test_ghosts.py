"""A PersistentVolume that arrived though its answer was lost is not written again after its end (provision.md 13)."""

from typing import Any

import msgspec
import pytest

from sandbox.api.kinds import Kind
from sandbox.api.storage import Change
from tests.installation import CLAIM, CLASS, VOLUME, Installation

LOST = ["after", "answer"]
"""The write took effect, and its answer did not come."""


async def _written_without_an_answer(site: Installation, cut: str, **fields: Any) -> str:
    """Its name; all that is tried after that is refused."""
    site.refuse("create", VOLUME, code=0, cut=cut, times=1)
    site.refuse("create", VOLUME)
    site.storage_class(**fields)
    site.claim()
    name = site.volume_of("data")
    await site.start()
    await site.until(lambda: site.find(VOLUME, name))
    return name


def _posts(site: Installation) -> int:
    return len(site.requests.of("create", VOLUME))


@pytest.mark.parametrize("cut", LOST)
async def test_a_volume_whose_answer_was_lost_is_written_once_the_watch_shows_it(site: Installation, cut: str) -> None:
    """provision.md 13."""
    name = await _written_without_an_answer(site, cut)
    event = await site.event("data", "ProvisioningSucceeded")
    assert name in event["message"]
    await site.bound("data")
    site.delete(CLAIM, "data")
    await site.until(lambda: site.find(VOLUME, name) is None)
    posts = _posts(site)
    site.api.clear()
    await site.rest(300)
    assert _posts(site) == posts
    assert site.objects.all(VOLUME) == []
    assert site.driver.state.volumes == {}
    assert len(site.calls()) == 1


@pytest.mark.parametrize("cut", LOST)
async def test_a_retained_volume_that_an_administrator_deleted_is_not_written_again(
    site: Installation, cut: str
) -> None:
    """provision.md 13."""
    name = await _written_without_an_answer(site, cut, reclaimPolicy="Retain")
    await site.bound("data")
    site.delete(CLAIM, "data")
    await site.until(lambda: site.get(VOLUME, name)["status"]["phase"] == "Released")
    site.delete(VOLUME, name)
    await site.until(lambda: site.find(VOLUME, name) is None)
    site.api.clear()
    await site.rest(300)
    assert site.objects.all(VOLUME) == []


async def test_where_the_watch_is_late_the_claim_says_that_its_volume_is_written(site: Installation) -> None:
    """provision.md 13."""
    site.api.stall_watches(VOLUME)
    name = await _written_without_an_answer(site, "after")
    await site.bound("data")
    posts = _posts(site)
    await site.event("data", "ProvisioningSucceeded")
    assert _posts(site) <= posts + 1
    site.edit(VOLUME, name, lambda volume: volume["metadata"].update(finalizers=[]))
    site.delete(VOLUME, name)
    site.api.clear()
    await site.rest(300)
    assert site.objects.all(VOLUME) == []


async def test_a_volume_that_is_neither_shown_nor_bound_is_written_again(site: Installation) -> None:
    """provision.md 13."""
    site.api.stall_watches(VOLUME)
    site.refuse("create", VOLUME, code=0, cut="before", times=3)
    site.storage_class()
    site.claim()
    await site.start()
    await site.bound("data")
    assert _posts(site) == 4
    assert len(site.calls()) == 1


async def test_a_volume_whose_claim_is_gone_and_that_nobody_shows_is_written_again(site: Installation) -> None:
    """A DeleteVolume too many does no harm; a volume that nobody knows stays for ever (provision.md 13)."""
    site.refuse("create", VOLUME, code=0, cut="before")
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(lambda: _posts(site) > 3)
    site.delete(CLAIM, "data")
    await site.rest(10)
    site.api.clear()
    await site.until(lambda: site.calls("DeleteVolume"))
    await site.until(lambda: site.objects.all(VOLUME) == [])
    assert site.driver.state.volumes == {}


async def test_while_nobody_can_say_what_became_of_the_claim_its_volume_is_not_written(site: Installation) -> None:
    """provision.md 13."""
    site.refuse("create", VOLUME, code=0, cut="before", times=2)
    asked = site.refuse("get", CLAIM, 503)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(lambda: asked.hits > 3)
    posts = _posts(site)
    await site.rest(60)
    assert _posts(site) == posts
    site.api.clear()
    await site.bound("data")


async def test_no_volume_is_written_for_which_deletevolume_was_called(site: Installation) -> None:
    """Refused as it is, its volume is asked for anew, and that answer is undone: both name the same volume
    (provision.md 13)."""
    refused = site.refuse("create", VOLUME, 422)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(lambda: refused.hits > 2)
    [first] = site.driver.state.volumes.values()
    site.fault(capacity_delta=-1)
    site.touch(CLAIM, "data", "a")
    await site.until(lambda: [call.request.volume_id for call in site.calls("DeleteVolume")] == [first.id])
    site.api.clear()
    posts = _posts(site)
    await site.rest(300)
    assert _posts(site) == posts
    assert site.objects.all(VOLUME) == []
    site.driver.faults.clear()
    await site.bound("data")
    [volume] = site.objects.all(VOLUME)
    assert volume["spec"]["csi"]["volumeHandle"] in site.driver.state.volumes


async def test_what_the_watch_shows_while_the_claim_is_asked_for_counts(site: Installation) -> None:
    """provision.md 13."""
    site.refuse("create", VOLUME, code=0, cut="after", times=1)
    asked = site.refuse("get", CLAIM, code=0, delay=5, times=1)
    site.api.stall_watches(VOLUME)
    site.storage_class(reclaimPolicy="Retain")
    site.claim()
    name = site.volume_of("data")
    await site.start()
    await site.until(lambda: asked.hits)
    site.delete(CLAIM, "data")
    site.edit(VOLUME, name, lambda volume: volume["metadata"].update(finalizers=[]))
    site.delete(VOLUME, name)
    site.api.resume_watches()
    await site.rest(300)
    assert site.objects.all(VOLUME) == []
    assert _posts(site) == 1


SAME: dict[str, Any] = {"volume_id": "same", "volume_context": {"pool": "a"}}


async def _undone(site: Installation, **answer: Any) -> int:
    """The PersistentVolume is refused as it is; the driver is asked anew, and that answer is undone. The POSTs so far,
    once the API server would take it again."""
    refused = site.refuse("create", VOLUME, 422)
    await site.start()
    await site.until(lambda: refused.hits > 2)
    await site.rest(110)  # until it is sent every half minute, and the next time is far
    site.driver.faults.clear()
    site.fault(capacity_delta=-1, **answer)
    site.touch(CLAIM, "data", "a")
    await site.until(lambda: site.calls("DeleteVolume"))
    site.api.clear()
    return _posts(site)


async def test_a_volume_made_anew_under_the_id_of_one_that_was_deleted_is_written_at_once(
    site: Installation,
) -> None:
    """Many drivers make the id of the name (provision.md 13)."""
    site.fault(**SAME)
    site.storage_class()
    site.claim()
    await _undone(site, **SAME)
    site.driver.faults.clear()
    site.fault(**SAME)
    await site.until(lambda: site.cluster.is_bound("data"), limit=60)
    [volume] = site.objects.all(VOLUME)
    assert volume["spec"]["csi"]["volumeHandle"] == "same"


EBS, IN_TREE = "ebs.csi.aws.com", "kubernetes.io/aws-ebs"


async def test_no_migrated_volume_is_written_for_which_deletevolume_was_called(site: Installation) -> None:
    """Its in-tree form does not tell the driver's id (provision.md 13)."""
    site.kill_driver()
    await site.rest(0.1)
    await site.serve(msgspec.structs.replace(site.config, name=EBS))
    old = {"metadata": {"name": "old"}, "provisioner": IN_TREE, "volumeBindingMode": "Immediate"}
    site.objects.create(CLASS, old)
    site.claim("data", "old")
    moved = {"volume.kubernetes.io/storage-provisioner": EBS, "pv.kubernetes.io/migrated-to": EBS}
    site.edit(CLAIM, "data", lambda claim: claim["metadata"].setdefault("annotations", {}).update(moved))
    posts = await _undone(site)
    await site.rest(300)
    assert _posts(site) == posts
    assert site.objects.all(VOLUME) == []
    site.driver.faults.clear()
    await site.until(lambda: site.cluster.is_bound("data"), limit=600)
    [volume] = site.objects.all(VOLUME)
    assert volume["spec"]["awsElasticBlockStore"]["volumeID"] in site.driver.state.volumes


async def test_a_claim_whose_volume_was_deleted_before_it_was_bound_is_asked_for_at_once(site: Installation) -> None:
    """No event of its own would wake it before the next resync (provision.md 13)."""
    gone: list[str] = []

    def delete(kind: Kind, change: Change) -> None:
        name = change.now.obj["metadata"]["name"]
        if kind.name == VOLUME and not gone:
            gone.append(name)
            site.edit(VOLUME, name, lambda volume: volume["metadata"].update(finalizers=[]))
            site.delete(VOLUME, name)

    site.objects.storage.listen(delete)
    site.refuse("create", VOLUME, code=0, cut="after", times=1)
    site.refuse("get", CLAIM, times=3)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(lambda: site.cluster.is_bound("data"), limit=60)
    assert gone == [site.volume_of("data")]
    assert len(site.calls()) == 2
