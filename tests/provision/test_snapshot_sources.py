"""The finalizer on a source snapshot: put there before the call, taken off after it (provision.md 12.1, 9.6)."""

import pytest

from tests.installation import CLAIM, SNAPSHOT, Installation
from tests.journeys.objects import SNAPSHOT_FINALIZER, from_snapshot

OTHERS = ["example.com/first", "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"]


async def _ready(site: Installation) -> None:
    """A snapshot with others' finalizers, and the provisioner; its first sweep is over."""
    site.storage_class()
    site.snapshot("snap", finalizers=OTHERS)
    await site.start()
    await site.until(lambda: len(site.requests.of("list", SNAPSHOT)) >= 2)


async def test_a_snapshot_is_protected_while_the_driver_reads_it_p19_sources_7(site: Installation) -> None:
    """provision.md 12.1."""
    await _ready(site)
    site.fault(gate="reading", times=1)
    site.claim(**from_snapshot("snap"))
    await site.until(site.calls)
    assert site.finalizers(SNAPSHOT, "snap") == [*OTHERS, SNAPSHOT_FINALIZER]
    site.driver.faults.gate("reading").set()
    await site.bound("data")
    assert site.finalizers(SNAPSHOT, "snap") == OTHERS


async def test_a_restore_reads_a_snapshot_once_for_each_change(site: Installation) -> None:
    """What was read is what is changed: the resourceVersion says whether it still stands."""
    await _ready(site)
    site.claim(**from_snapshot("snap"))
    await site.bound("data")
    assert site.finalizers(SNAPSHOT, "snap") == OTHERS
    made = {verb: len(site.requests.of(verb, SNAPSHOT)) for verb in ("get", "update")}
    assert made == {"get": 2, "update": 2}


async def test_a_snapshot_stays_protected_when_the_try_fails(site: Installation) -> None:
    """provision.md 12.1."""
    await _ready(site)
    site.fault("INTERNAL", times=3)
    site.claim(**from_snapshot("snap"))
    await site.until(lambda: len(site.calls()) == 3)
    assert site.finalizers(SNAPSHOT, "snap") == [*OTHERS, SNAPSHOT_FINALIZER]
    await site.bound("data")
    assert len(site.requests.of("update", SNAPSHOT)) == 2


async def test_without_the_right_to_protect_a_snapshot_it_is_used_unprotected_p19_sources_7(site: Installation) -> None:
    """provision.md 12.1."""
    await _ready(site)
    site.refuse("update", SNAPSHOT, 403)
    site.claim(**from_snapshot("snap"))
    await site.bound("data")
    assert site.calls()[0].request.volume_content_source.snapshot.snapshot_id
    [line] = site.logged("used without protection")
    assert "default/snap" in line.message
    assert "403" in str(line.keys["err"])


@pytest.mark.parametrize(("size", "fits"), [(1 << 30, True), (2 << 30, False)])
async def test_the_size_of_a_snapshot_may_be_a_number(site: Installation, size: int, fits: bool) -> None:
    """A quantity is read from either, and not every cluster's schema of snapshots insists on text
    (provision.md 8.7)."""
    await _ready(site)
    site.edit(SNAPSHOT, "snap", lambda snapshot: snapshot["status"].update(restoreSize=size), status=True)
    site.claim(**from_snapshot("snap"))
    if fits:
        await site.bound("data")
    else:
        assert "less than" in (await site.event("data", "ProvisioningFailed"))["message"]


@pytest.mark.parametrize("code", [409, 500, 503])
async def test_a_snapshot_that_cannot_be_protected_is_tried_again_before_the_call(
    site: Installation, code: int
) -> None:
    """provision.md 12.1."""
    await _ready(site)
    site.refuse("update", SNAPSHOT, code, times=2)
    site.claim(**from_snapshot("snap"))
    failed = await site.event("data", "ProvisioningFailed", 2)
    assert failed["message"].startswith("VolumeSnapshot default/snap cannot be the source of claim default/data")
    assert site.calls() == []
    await site.bound("data")
    assert len(site.calls()) == 1


async def test_a_snapshot_that_changes_between_read_and_write_is_a_conflict(site: Installation) -> None:
    """provision.md 12.1."""
    await _ready(site)
    site.refuse("update", SNAPSHOT, 0, delay=1.0, times=1)
    site.claim(**from_snapshot("snap"))
    await site.until(lambda: site.requests.of("update", SNAPSHOT))
    site.touch(SNAPSHOT, "snap", "a")
    failed = await site.event("data", "ProvisioningFailed")
    assert "modified" in failed["message"]
    await site.bound("data")
    assert site.get(SNAPSHOT, "snap")["metadata"]["labels"] == {"touched": "a"}


@pytest.mark.parametrize("verb", ["get", "update"])
@pytest.mark.parametrize("code", [403, 404, 409, 500])
async def test_a_failed_release_of_a_snapshot_fails_nothing(site: Installation, verb: str, code: int) -> None:
    """The sweep comes for it: not in the same second, but in five minutes (provision.md 9.6)."""
    await _ready(site)
    site.fault(gate="reading", times=1)
    site.claim(**from_snapshot("snap"))
    await site.until(site.calls)
    trouble = site.refuse(verb, SNAPSHOT, code)
    site.driver.faults.gate("reading").set()
    await site.bound("data")
    await site.event("data", "ProvisioningSucceeded")
    assert trouble.hits == 1
    assert site.events("data", "ProvisioningFailed") == []
    assert SNAPSHOT_FINALIZER in site.finalizers(SNAPSHOT, "snap")
    site.api.clear()
    await site.until(lambda: site.finalizers(SNAPSHOT, "snap") == OTHERS, limit=301)


async def test_a_snapshot_that_went_meanwhile_fails_nothing(site: Installation) -> None:
    """provision.md 9.6."""
    await _ready(site)
    site.refuse("update", SNAPSHOT, 403)  # unprotected
    site.edit(SNAPSHOT, "snap", lambda snapshot: snapshot["metadata"].pop("finalizers"))
    site.fault(gate="reading", times=1)
    site.claim(**from_snapshot("snap"))
    await site.until(site.calls)
    site.delete(SNAPSHOT, "snap")
    site.driver.faults.gate("reading").set()
    await site.bound("data")


async def test_a_snapshot_is_released_before_the_volume_is_written(site: Installation) -> None:
    """provision.md 9.6."""
    await _ready(site)
    site.claim(**from_snapshot("snap"))
    await site.bound("data")
    writes = [(call.verb, call.kind) for call in site.requests if call.verb in ("create", "update")]
    assert [write for write in writes if write[1] in (SNAPSHOT, "PersistentVolume")] == [
        ("update", SNAPSHOT),
        ("update", SNAPSHOT),
        ("create", "PersistentVolume"),
    ]


async def test_a_snapshot_is_released_also_while_another_claim_reads_it_quirk_12(site: Installation) -> None:
    """provision.md 9.6."""
    await _ready(site)
    site.fault(gate="reading", match="/slow$", times=1)
    site.claim("slow", **from_snapshot("snap"))
    await site.until(site.calls)
    site.claim("quick", **from_snapshot("snap"))
    await site.bound("quick")
    assert site.finalizers(SNAPSHOT, "snap") == OTHERS
    site.driver.faults.gate("reading").set()
    await site.bound("slow")


async def test_the_snapshot_of_a_claim_that_went_without_a_volume_is_swept_p19_sources_7(site: Installation) -> None:
    """provision.md 12.3."""
    await _ready(site)
    site.fault("INTERNAL")
    site.claim(**from_snapshot("snap"))
    await site.until(site.calls)
    site.delete(CLAIM, "data")
    await site.rest(100)
    assert SNAPSHOT_FINALIZER in site.finalizers(SNAPSHOT, "snap")
    await site.until(lambda: site.finalizers(SNAPSHOT, "snap") == OTHERS, limit=301)
