"""A volume that is still attached: it waits, which is no failure, and goes at once when it can (delete.md 7.2)."""

import msgspec
import pytest
import trio

from csi_provisioner.settings import LogSettings
from sandbox.driver.config import CONTROLLER_CAPABILITIES, Config
from tests.deletion.released import attached, reconfigured, released
from tests.installation import ATTACHMENT, VOLUME, Installation

ATTACHES = msgspec.structs.replace(Config(), controller=(*CONTROLLER_CAPABILITIES, "PUBLISH_UNPUBLISH_VOLUME"))
LOOKS = 'workqueue_work_duration_seconds_count{name="volumes"}'
FAILED = 'controller_persistentvolume_delete_failed_total{class="fast"}'


@pytest.fixture
async def attaching(site: Installation) -> Installation:
    await reconfigured(site, ATTACHES)
    released(site)
    return site


async def _gone(site: Installation, name: str = "pv") -> float:
    since = trio.current_time()
    await site.until(lambda: site.find(VOLUME, name) is None)
    return trio.current_time() - since


@pytest.mark.parametrize("status", [{}, {"attached": True}, {"attached": False}], ids=["unknown", "yes", "no"])
async def test_an_attached_volume_waits_and_goes_with_its_attachment_d13_6(
    attaching: Installation, status: dict[str, bool]
) -> None:
    attached(attaching, "pv", **status)
    await attaching.start(log=LogSettings(verbosity=2))
    event = await attaching.event("pv", "VolumeDelete")
    assert event["type"] == "Normal"
    for fact in ("volume pv", "node node-1", "VolumeAttachment attachment"):
        assert fact in event["message"]
    await attaching.rest(2000)
    assert [event["count"] for event in attaching.events("pv")] == [1]
    assert attaching.logged("Failed, will be tried again") == []
    assert len(attaching.logged("A deletion waits")) == 1
    assert (await attaching.metrics())[FAILED] == 1
    assert attaching.calls("DeleteVolume") == []
    attaching.delete(ATTACHMENT, "attachment")
    assert await _gone(attaching) < 1
    assert len(attaching.calls("DeleteVolume")) == 1
    found = await attaching.metrics()
    assert found[FAILED] == 1
    assert found["csi_provisioner_detach_wait_seconds_sum"] == pytest.approx(2000, abs=1)
    assert found["csi_provisioner_release_to_gone_seconds_count"] == 0  # nobody says when it was released


async def test_a_volume_that_nobody_wakes_is_looked_at_every_fifteen_minutes(attaching: Installation) -> None:
    attached(attaching, "pv")
    await attaching.start()
    await attaching.event("pv", "VolumeDelete")
    before = (await attaching.metrics())[LOOKS]
    for looks in (1, 2, 3):
        await attaching.rest(15 * 60)
        assert (await attaching.metrics())[LOOKS] >= before + looks


async def test_an_attachment_that_is_being_deleted_still_counts_d13_6(attaching: Installation) -> None:
    attached(attaching, "pv")
    attaching.edit(ATTACHMENT, "attachment", lambda obj: obj["metadata"].update(finalizers=["example.com/detaching"]))
    attaching.delete(ATTACHMENT, "attachment")
    await attaching.start()
    await attaching.rest(100)
    assert attaching.calls("DeleteVolume") == []


async def test_a_volume_waits_for_the_last_of_two_attachments_and_tells_when_its_nodes_change_d13_6(
    attaching: Installation,
) -> None:
    attached(attaching, "pv", "one")
    attached(attaching, "pv", "two", node="node-2")
    await attaching.start()
    event = await attaching.event("pv", "VolumeDelete")
    assert "nodes node-1, node-2" in event["message"]
    attaching.delete(ATTACHMENT, "one")
    await attaching.rest(5)
    event = await attaching.event("pv", "VolumeDelete", 2)
    assert "node node-2" in event["message"]
    attached(attaching, "pv", "three", node="node-3")
    await attaching.rest(5)
    event = await attaching.event("pv", "VolumeDelete", 3)
    assert "nodes node-2, node-3" in event["message"]
    attached(attaching, "pv", "four", node="node-3")
    attaching.delete(ATTACHMENT, "three")
    await attaching.rest(5)
    assert (await attaching.event("pv", "VolumeDelete", 3))["count"] == 3
    attaching.delete(ATTACHMENT, "four")
    assert attaching.calls("DeleteVolume") == []
    assert (await attaching.metrics())[FAILED] == 1
    attaching.delete(ATTACHMENT, "two")
    assert await _gone(attaching) < 1


async def test_a_detachment_that_only_a_list_shows_wakes_the_deletion(attaching: Installation) -> None:
    attached(attaching, "pv")
    await attaching.start()
    await attaching.event("pv", "VolumeDelete")
    attaching.api.cut_watches(ATTACHMENT)
    attaching.refuse("watch", ATTACHMENT, 410, times=1)
    attaching.delete(ATTACHMENT, "attachment")
    assert await _gone(attaching) < 40
    assert attaching.requests.of("watch", ATTACHMENT)


async def test_a_wait_does_not_lengthen_the_backoff_of_what_fails_after_it(attaching: Installation) -> None:
    attached(attaching, "pv")
    attaching.fault("INTERNAL", rpc="DeleteVolume", times=1)
    await attaching.start()
    await attaching.rest(2000)
    attaching.delete(ATTACHMENT, "attachment")
    event = await attaching.event("pv", "VolumeFailedDelete")
    assert "attempt 1; next try in 1 s" in event["message"]
    assert await _gone(attaching) < 2


async def test_a_volume_that_is_attached_again_waits_again(attaching: Installation) -> None:
    attached(attaching, "pv", "one")
    attaching.fault("INTERNAL", rpc="DeleteVolume", times=1)
    await attaching.start()
    await attaching.event("pv", "VolumeDelete")
    attaching.delete(ATTACHMENT, "one")
    await attaching.event("pv", "VolumeFailedDelete")
    attached(attaching, "pv", "two")
    await attaching.event("pv", "VolumeDelete", 2)
    assert (await attaching.metrics())[FAILED] == 3


async def test_a_volume_that_is_kept_after_all_ends_its_wait(attaching: Installation) -> None:
    attached(attaching, "pv")
    await attaching.start()
    await attaching.event("pv", "VolumeDelete")
    attaching.edit(VOLUME, "pv", lambda obj: obj["spec"].update(persistentVolumeReclaimPolicy="Retain"))
    await attaching.rest(1)
    attaching.delete(ATTACHMENT, "attachment")
    await attaching.rest(1000)
    assert attaching.calls("DeleteVolume") == []


async def test_attachments_of_other_volumes_do_not_count(attaching: Installation) -> None:
    attached(attaching, "other")
    await attaching.start()
    await _gone(attaching)
    assert attaching.events("pv") == []


async def test_an_attachment_that_came_and_went_while_the_watch_was_cut_does_not_count_d13_6(
    site: Installation,
) -> None:
    await reconfigured(site, ATTACHES)
    await site.start()
    attached(site, "pv")
    await site.rest(1)
    site.api.cut_watches(ATTACHMENT)
    site.refuse("watch", ATTACHMENT, 410, times=1)
    site.delete(ATTACHMENT, "attachment")
    await site.rest(100)
    released(site)
    await _gone(site)
    assert site.events("pv") == []


async def test_a_driver_that_does_not_attach_needs_no_attachments_d13_6_p19_topology_6(site: Installation) -> None:
    released(site)
    attached(site, "pv")
    await site.start()
    await _gone(site)
    assert site.requests.of("*", ATTACHMENT) == []


async def test_a_volume_whose_attachment_was_replaced_unseen_is_never_seen_without_one(site: Installation) -> None:
    """By a list that has much to tell: what is gone comes first in it, and what came in its place last."""
    await reconfigured(site, ATTACHES)
    released(site)
    attached(site, "pv", "one")
    for number in range(2000):
        attached(site, f"other-{number}", f"other-{number}")
    await site.start()
    await site.event("pv", "VolumeDelete")
    site.api.cut_watches(ATTACHMENT)
    site.refuse("watch", ATTACHMENT, 410, times=1)
    site.delete(ATTACHMENT, "one")
    attached(site, "pv", "two", node="node-2")
    for number in range(2000):
        site.delete(ATTACHMENT, f"other-{number}")
    await site.rest(100)
    assert site.calls("DeleteVolume") == []
    site.delete(ATTACHMENT, "two")
    await site.until(lambda: site.calls("DeleteVolume"))
