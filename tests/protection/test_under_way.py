"""A copy that has begun is seen through, whatever is deleted meanwhile (provision.md 8.7, 8.8, 9.6, 12.2, 12.3)."""

from typing import Any, NamedTuple

import pytest

from csi_provisioner.settings import RetrySettings
from sandbox.api.errors import Object
from tests.installation import CLAIM, SNAPSHOT, VOLUME, Installation
from tests.journeys.objects import CLONE_FINALIZER, SNAPSHOT_FINALIZER, from_claim, from_snapshot

SWEEPS = RetrySettings(snapshot_sweep_interval=60.0)


class Way(NamedTuple):
    """One of the two kinds of sources."""

    kind: str
    source: Object
    finalizer: str


WAYS = {
    "clone": Way(CLAIM, from_claim("source"), CLONE_FINALIZER),
    "snapshot": Way(SNAPSHOT, from_snapshot("source"), SNAPSHOT_FINALIZER),
}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


async def _copying(site: Installation, way: Way, **fault: Any) -> None:
    """The claim `copy`, with whose volume the driver is at work for ever, and says so."""
    site.storage_class()
    if way.kind == CLAIM:
        site.claim("source")
    else:
        site.snapshot("source")
    await site.start(retries=SWEEPS)
    if way.kind == CLAIM:
        await site.bound("source")
    site.fault(match="/copy$", **fault or {"code": "DEADLINE_EXCEEDED", "created": True})
    site.claim("copy", **way.source)
    await site.until(lambda: _asked(site) == 1)


def _asked(site: Installation, name: str = "copy") -> int:
    return sum(call.request.parameters["csi.storage.k8s.io/pvc/name"] == name for call in site.calls())


def _held(site: Installation, way: Way) -> bool:
    return way.finalizer in site.finalizers(way.kind, "source")


async def _gone(site: Installation, way: Way, limit: float = 600.0) -> None:
    await site.until(lambda: site.find(way.kind, "source") is None, limit=limit)


async def test_source_and_claim_deleted_the_copy_is_asked_for_until_it_ends_and_nothing_is_left(
    site: Installation, way: Way
) -> None:
    await _copying(site, way)
    site.delete(CLAIM, "copy")
    site.delete(way.kind, "source")
    await site.until(lambda: site.find(CLAIM, "copy") is None)
    await site.rest(130)  # two sweeps are among that
    assert _asked(site) > 5
    assert _held(site, way)
    site.driver.faults.clear()
    await _gone(site, way)
    await site.until(lambda: site.objects.all(VOLUME) == [])
    names = {volume.name for volume in site.driver.state.volumes.values()}
    assert names <= {"source-of-source"}  # that of the snapshot
    assert site.logged("A volume may be left over") == []


async def test_only_the_source_deleted_the_claim_gets_its_copy(site: Installation, way: Way) -> None:
    await _copying(site, way)
    site.delete(way.kind, "source")
    await site.rest(70)
    assert _held(site, way)
    site.driver.faults.clear()
    await site.bound("copy")
    await _gone(site, way)


async def test_a_restart_does_not_forget_it(site: Installation, way: Way) -> None:
    await _copying(site, way)
    site.delete(way.kind, "source")
    await site.stop()
    site.driver.faults.clear()
    await site.start(retries=SWEEPS)
    await site.bound("copy")
    await _gone(site, way)


@pytest.mark.parametrize("pause", [0.0, 5.0], ids=["within-a-second", "later"])
async def test_claims_made_after_the_deletion_are_refused_and_hold_nothing(
    site: Installation, way: Way, pause: float
) -> None:
    await _copying(site, way)
    site.delete(way.kind, "source")
    await site.rest(pause)
    site.claim("late", **way.source)
    failed = await site.event("late", "ProvisioningFailed", 2)
    assert "being deleted" in failed["message"]
    assert _held(site, way)
    site.driver.faults.clear()
    await site.bound("copy")
    await _gone(site, way)
    assert _asked(site, "late") == 0


async def test_a_volume_that_waits_to_be_written_holds_it(site: Installation, way: Way) -> None:
    """After a crash it would be asked for again."""
    await _copying(site, way, gate="copying")
    refused = site.refuse("create", VOLUME)
    site.delete(CLAIM, "copy")
    site.delete(way.kind, "source")
    site.driver.faults.gate("copying").set()
    await site.until(lambda: refused.hits)
    await site.rest(130)
    assert _held(site, way)
    site.api.clear()
    await _gone(site, way)


@pytest.mark.parametrize("trouble", [{"code": 503}, {"code": 0, "cut": "before"}], ids=["503", "no-answer"])
async def test_an_api_server_that_is_away_releases_nothing(
    site: Installation, way: Way, trouble: dict[str, Any]
) -> None:
    """That a try could not read what it needs says nothing about the copy."""
    await _copying(site, way)
    site.delete(CLAIM, "copy")
    site.delete(way.kind, "source")
    refused = site.refuse("get", VOLUME if way.kind == CLAIM else SNAPSHOT, **trouble)
    await site.until(lambda: refused.hits > 3)
    await site.rest(130)
    assert _held(site, way)
    site.api.clear()
    site.driver.faults.clear()
    await _gone(site, way)


async def test_a_snapshot_being_deleted_stays_for_the_other_copy_too(site: Installation) -> None:
    way = WAYS["snapshot"]
    await _copying(site, way)
    site.fault(gate="other", match="/other$", times=1)
    site.claim("other", **way.source)
    await site.until(lambda: _asked(site, "other"))
    site.delete(SNAPSHOT, "source")
    site.driver.faults.gate("other").set()
    await site.bound("other")
    assert _held(site, way)
    site.driver.faults.clear()
    await site.bound("copy")
    await _gone(site, way)


async def test_a_snapshot_being_deleted_goes_with_its_last_copy_also_without_a_sweep(site: Installation) -> None:
    """provision.md 9.6."""
    site.storage_class()
    site.snapshot("source")
    await site.start(retries=RetrySettings(snapshot_sweep_interval=0.0))
    site.fault(gate="reading", times=1)
    site.claim("copy", **from_snapshot("source"))
    await site.until(site.calls)
    site.delete(SNAPSHOT, "source")
    site.driver.faults.gate("reading").set()
    await site.bound("copy")
    await _gone(site, WAYS["snapshot"], limit=5)
    writes = [call.kind for call in site.requests if call.verb in ("create", "update")]
    assert [kind for kind in writes if kind in (SNAPSHOT, VOLUME)][-2:] == [VOLUME, SNAPSHOT]
