"""A claim's annotations at the driver: taken with the first call, and the same until the volume is settled."""

import pytest

from csi_provisioner.settings import ElectionSettings, LogSettings, ProvisioningSettings
from tests.installation import CLAIM, Installation

KEY = "acme.test/tier"
PREFIXES = ProvisioningSettings(claim_annotation_prefixes=("acme.test/",))


def _annotate(site: Installation, value: str) -> None:
    site.edit(CLAIM, "data", lambda claim: claim["metadata"].setdefault("annotations", {}).update({KEY: value}))


def _asked(site: Installation) -> list[str | None]:
    return [call.request.parameters.get(KEY) for call in site.calls()]


async def _start(site: Installation, *, journal: bool = False) -> None:
    election = ElectionSettings(enabled=journal, namespace="default", own_namespace="default" if journal else "")
    await site.start(provisioning=PREFIXES, election=election, log=LogSettings(verbosity=4))


@pytest.fixture
async def claimed(site: Installation) -> Installation:
    site.storage_class()
    site.claim()
    _annotate(site, "gold")
    return site


async def test_a_call_that_may_still_run_is_repeated_with_the_annotations_of_before(claimed: Installation) -> None:
    claimed.fault("DEADLINE_EXCEEDED", times=3)
    await _start(claimed)
    await claimed.until(lambda: len(claimed.calls()) == 1)
    _annotate(claimed, "iron")
    await claimed.bound("data")
    assert _asked(claimed) == ["gold"] * 4
    assert [line for line in claimed.lines if "gold" in str(line)] == []


async def test_a_final_answer_lets_the_next_call_have_the_annotations_of_now(claimed: Installation) -> None:
    claimed.fault("INTERNAL", times=1)
    await _start(claimed)
    await claimed.until(lambda: len(claimed.events("data", "ProvisioningFailed")) == 1)
    _annotate(claimed, "iron")
    await claimed.bound("data")
    assert _asked(claimed) == ["gold", "iron"]


async def test_after_a_crash_the_journal_has_the_annotations_of_before(claimed: Installation) -> None:
    claimed.fault(hang=True, times=1)
    await _start(claimed, journal=True)
    await claimed.until(claimed.calls)
    await claimed.kill()
    _annotate(claimed, "iron")
    await _start(claimed, journal=True)
    await claimed.bound("data")
    assert set(_asked(claimed)) == {"gold"}
    assert len(_asked(claimed)) > 1


async def test_a_claim_that_would_override_its_class_is_refused_until_one_of_them_changes(site: Installation) -> None:
    site.storage_class(parameters={KEY: "iron"})
    site.claim()
    _annotate(site, "gold")
    await _start(site)
    event = await site.event("data", "ProvisioningFailed", 2)
    assert "a claim cannot change what its class says" in event["message"]
    assert site.calls() == []
    site.edit(CLAIM, "data", lambda claim: claim["metadata"]["annotations"].pop(KEY))
    await site.bound("data")
    assert _asked(site) == ["iron"]
