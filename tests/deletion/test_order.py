"""The three writes of a deletion, in their order, each repeated until it is done (delete.md 5, 6 and 9)."""

import pytest

from tests.deletion.released import PROTECTION, released
from tests.installation import CLAIM, NAMESPACE, VOLUME, Installation
from tests.journeys.objects import VOLUME_FINALIZER

SERIES = "controller_persistentvolume_delete"
TRIES = 'workqueue_work_duration_seconds_count{name="volumes"}'


async def _gone(site: Installation, name: str = "pv") -> None:
    await site.until(lambda: site.find(VOLUME, name) is None)


async def test_the_volume_goes_then_the_object_then_the_finalizer_d13_8(site: Installation) -> None:
    """Each step waits for the one before it; nothing stays Terminating (delete.md 6)."""
    handle = released(site)
    site.fault(rpc="DeleteVolume", gate="deleting")
    await site.start()
    await site.until(lambda: site.calls("DeleteVolume"))
    await site.rest(1)
    assert site.requests.of("delete", VOLUME) == []
    assert site.requests.of("patch", VOLUME) == []
    object_write = site.refuse("delete", VOLUME, 0, delay=1.0)
    site.driver.faults.gate("deleting").set()
    await site.until(lambda: object_write.hits)
    assert handle not in site.driver.state.volumes
    assert site.requests.of("patch", VOLUME) == []
    assert VOLUME_FINALIZER in site.finalizers(VOLUME, "pv")
    await _gone(site)
    assert [call.verb for call in site.requests if call.kind == VOLUME and call.verb in ("delete", "patch")] == [
        "delete",
        "patch",
    ]
    assert site.calls("DeleteVolume")[0].request.volume_id == handle


async def test_without_any_finalizer_two_writes_are_enough(site: Installation) -> None:
    """delete.md 6."""
    released(site, finalizers=())
    site.edit(VOLUME, "pv", lambda volume: volume["metadata"].pop("finalizers"))
    await site.start()
    await _gone(site)
    assert site.requests.of("patch", VOLUME) == []


async def test_an_object_deleted_before_its_claim_goes_with_its_volume_d13_7(site: Installation) -> None:
    """delete.md 6."""
    site.storage_class()
    site.claim()
    await site.start()
    await site.bound("data")
    name = site.volume_of("data")
    site.delete(VOLUME, name)
    await site.rest(100)
    assert VOLUME_FINALIZER in site.finalizers(VOLUME, name)
    assert site.calls("DeleteVolume") == []
    site.fault(rpc="DeleteVolume", delay=5.0)
    site.delete(CLAIM, "data")
    await _gone(site, name)
    assert len(site.calls("DeleteVolume")) == 1
    await site.rest(1)
    found = await site.metrics()
    assert found["csi_provisioner_release_to_gone_seconds_count"] == 1
    assert found["csi_provisioner_release_to_gone_seconds_sum"] == pytest.approx(5, abs=1)


@pytest.mark.parametrize("write", ["delete", "patch"])
@pytest.mark.parametrize("code", [403, 409, 500, 503])
async def test_the_driver_is_asked_once_whatever_fails_after_it_d13_8(
    site: Installation, write: str, code: int
) -> None:
    """delete.md 6."""
    released(site)
    trouble = site.refuse(write, VOLUME, code, times=4)
    await site.start()
    await _gone(site)
    assert trouble.hits == 4
    assert len(site.calls("DeleteVolume")) == 1
    assert len(site.events("pv")) == (code == 403)  # only a person can change that
    found = await site.metrics()
    assert found[f'{SERIES}_failed_total{{class="fast"}}'] == 4
    assert found[f'{SERIES}_total{{class="fast"}}'] == 1


async def test_a_lost_answer_to_a_deletion_is_no_harm(site: Installation) -> None:
    """delete.md 6."""
    released(site)
    site.refuse("delete", VOLUME, 0, cut="after", times=1)
    site.refuse("patch", VOLUME, 0, cut="after", times=1)
    await site.start()
    await _gone(site)
    assert len(site.calls("DeleteVolume")) == 1


async def test_an_object_that_is_gone_ends_its_deletion(site: Installation) -> None:
    """delete.md 12: an error once, then quiet."""
    released(site)
    trouble = site.refuse("delete", VOLUME, 404)
    await site.start()
    await site.until(lambda: trouble.hits)
    await site.rest(500)
    assert trouble.hits == 1
    assert len(site.calls("DeleteVolume")) == 1
    assert (await site.metrics())[f'{SERIES}_failed_total{{class="fast"}}'] == 1


@pytest.mark.parametrize("write", ["delete", "patch"])
async def test_a_404_that_does_not_name_the_volume_does_not_end_its_deletion(site: Installation, write: str) -> None:
    """Of a load balancer, say: taken for the API server's word, the volume would stay Terminating until a restart
    (delete.md 6)."""
    released(site)
    trouble = site.refuse(write, VOLUME, 404, page="404 page not found\n", times=4)
    await site.start()
    await site.until(lambda: site.find(VOLUME, "pv") is None, limit=30)  # long before the next resync
    assert trouble.hits == 4
    assert len(site.calls("DeleteVolume")) == 1


async def test_a_finalizer_that_the_cache_shows_too_late_asks_nobody_again_d13_8(site: Installation) -> None:
    """Put on by another instance, say: what made the object Terminating has to take it off once it is seen
    (delete.md 6)."""
    released(site, finalizers=())
    site.fault(rpc="DeleteVolume", gate="deleting")
    await site.start()
    await site.until(lambda: site.calls("DeleteVolume"))
    site.api.stall_watches(VOLUME)
    site.edit(VOLUME, "pv", lambda volume: volume["metadata"]["finalizers"].append(VOLUME_FINALIZER))
    site.driver.faults.gate("deleting").set()
    await site.until(lambda: "deletionTimestamp" in site.get(VOLUME, "pv")["metadata"])
    site.api.resume_watches()
    await _gone(site)
    assert len(site.calls("DeleteVolume")) == 1


async def test_finalizers_of_others_stay_in_their_order_d13_9(site: Installation) -> None:
    """delete.md 6."""
    released(site, finalizers=("example.com/first", VOLUME_FINALIZER, "example.com/last"))
    await site.start()
    await site.until(lambda: VOLUME_FINALIZER not in site.finalizers(VOLUME, "pv"))
    await site.rest(100)
    assert [entry for entry in site.finalizers(VOLUME, "pv") if entry != PROTECTION] == [
        "example.com/first",
        "example.com/last",
    ]
    assert len(site.calls("DeleteVolume")) == 1
    assert len(site.requests.of("patch", VOLUME)) == 1


async def test_one_deletion_is_counted_once(site: Installation) -> None:
    """delete.md 9."""
    site.fault(rpc="DeleteVolume", delay=3.0)
    released(site)
    await site.start()
    await _gone(site)
    await site.rest(10)
    found = await site.metrics()
    assert found[f'{SERIES}_total{{class="fast"}}'] == 1
    assert found[f'{SERIES}_duration_seconds_count{{class="fast"}}'] == 1
    assert found[f'{SERIES}_duration_seconds_sum{{class="fast"}}'] == pytest.approx(3.0, abs=0.1)
    assert f'{SERIES}_failed_total{{class="fast"}}' not in found


async def test_a_deletion_that_the_watch_tells_of_late_is_counted_once(site: Installation) -> None:
    """The news of our own writes come when all is done (delete.md 9)."""
    site.fault(rpc="DeleteVolume", delay=3.0)
    released(site)
    await site.start()
    await site.until(lambda: site.calls("DeleteVolume"))
    site.api.stall_watches(VOLUME)
    await _gone(site)
    site.api.resume_watches()
    await site.rest(10)
    assert (await site.metrics())[f'{SERIES}_total{{class="fast"}}'] == 1
    assert len(site.requests.of("patch", VOLUME)) == 1


async def test_failed_and_retained_volumes_are_not_deleted(site: Installation) -> None:
    """delete.md 5."""
    released(site, phase="Failed")
    released(site, "retained", persistentVolumeReclaimPolicy="Retain")
    await site.start()
    await site.rest(1000)
    assert site.calls("DeleteVolume") == []
    assert VOLUME_FINALIZER in site.finalizers(VOLUME, "pv")
    assert VOLUME_FINALIZER not in site.finalizers(VOLUME, "retained")


async def test_a_volume_under_a_name_used_again_is_another_one(site: Installation) -> None:
    """What the driver has deleted is remembered by the object's UID (delete.md 6)."""
    first = released(site)
    await site.start()
    await _gone(site)
    second = released(site)
    await _gone(site)
    assert [call.request.volume_id for call in site.calls("DeleteVolume")] == [first, second]


async def test_a_claim_made_anew_gets_another_volume(site: Installation) -> None:
    """While the old one is still being deleted, and after it (delete.md 1)."""
    site.storage_class()
    site.claim()
    await site.start()
    await site.bound("data")
    old = site.volume_of("data")
    site.fault(rpc="DeleteVolume", gate="deleting")
    site.delete(CLAIM, "data")
    await site.until(lambda: site.calls("DeleteVolume"))
    site.claim()
    await site.bound("data")
    assert site.volume_of("data") != old
    site.driver.faults.gate("deleting").set()
    await _gone(site, old)
    assert len(site.driver.state.volumes) == 1
    assert site.objects.find(CLAIM, "data", NAMESPACE)


@pytest.mark.parametrize("verb", ["delete", "patch"])
async def test_the_news_of_our_own_writes_is_no_work(site: Installation, verb: str) -> None:
    """It comes while the rest of them is under way, or when all are done."""
    site.refuse(verb, VOLUME, 0, delay=5.0, times=1)
    released(site)
    await site.start()
    await _gone(site)
    await site.rest(10)
    assert (await site.metrics())[TRIES] == 1
