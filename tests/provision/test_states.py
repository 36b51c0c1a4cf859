"""What follows a failed CreateVolume: provision.md 3.2 and 9.2, with the claim still there and with it deleted."""

import pytest

from tests.installation import CLAIM, CLASS, NAMESPACE, Installation, Line

BACKOFF = [1.0, 2.0, 4.0, 8.0, 16.0]
OPEN = ["CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED"]
FINAL = [
    "UNKNOWN", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "DATA_LOSS", "UNAUTHENTICATED",
]  # fmt: skip
SECRET_PARAMETERS = {
    "csi.storage.k8s.io/provisioner-secret-name": "login",
    "csi.storage.k8s.io/provisioner-secret-namespace": NAMESPACE,
}


@pytest.mark.parametrize("code", OPEN + FINAL)
async def test_every_code_is_tried_again_with_backoff_while_the_claim_exists(site: Installation, code: str) -> None:
    """provision.md 9.2."""
    site.fault(code, times=5)
    site.storage_class()
    site.claim()
    await site.start()
    await site.bound("data")
    assert site.pauses() == BACKOFF


async def _deleted_after_two_calls(site: Installation, code: str) -> int:
    """The calls there were when the claim was gone: its deletion is an event, which may have caused one at once."""
    site.fault(code)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(lambda: len(site.calls()) == 2)
    site.delete(CLAIM, "data")
    await site.until(lambda: site.find(CLAIM, "data") is None)
    await site.rest(0.1)
    return len(site.calls())


@pytest.mark.parametrize("code", OPEN)
async def test_a_call_that_may_still_run_outlives_its_claim_p19_engine_1(site: Installation, code: str) -> None:
    """provision.md 3.2."""
    calls = await _deleted_after_two_calls(site, code)
    await site.until(lambda: len(site.calls()) == calls + 3)
    assert site.pauses()[calls:] == BACKOFF[calls : calls + 2]
    site.driver.faults.clear()
    await site.until(lambda: site.calls("DeleteVolume"))  # saved, Released, reclaimed
    await site.until(lambda: not site.driver.state.volumes)
    assert site.events("data", "ProvisioningSucceeded") == []


@pytest.mark.parametrize(
    "code", [pytest.param(code, id=f"{code}-p19-engine-2" if code == "RESOURCE_EXHAUSTED" else code) for code in FINAL]
)
async def test_a_call_that_has_failed_for_certain_ends_with_its_claim(site: Installation, code: str) -> None:
    """provision.md 3.2."""
    calls = await _deleted_after_two_calls(site, code)
    await site.rest(1000)
    assert len(site.calls()) == calls
    assert site.logged("A volume may be left over") == []


async def test_an_error_without_a_status_may_still_run(site: Installation) -> None:
    """The connection ends while the call runs: nobody knows what became of it (provision.md 3.2)."""
    site.fault(gate="held", times=1)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(site.calls)
    site.driver.break_connections()
    site.delete(CLAIM, "data")
    await site.until(lambda: site.find(CLAIM, "data") is None)
    await site.until(lambda: site.calls("DeleteVolume"))
    assert len(site.calls()) == 2


async def test_a_refusal_before_the_call_keeps_a_deleted_claim_whose_call_may_still_run(site: Installation) -> None:
    """Between two calls the secret cannot be read: that says nothing about the volume of the first
    (provision.md 3.2)."""
    site.fault("DEADLINE_EXCEEDED", created=True)
    site.storage_class(parameters=SECRET_PARAMETERS)
    site.secret("login", password="x")
    site.claim()
    await site.start()
    await site.until(site.calls)
    broken = site.refuse("get", "Secret", 404)
    site.delete(CLAIM, "data")
    await site.until(lambda: broken.hits >= 3)
    calls = len(site.calls())
    assert len(site.driver.state.volumes) == 1
    site.driver.faults.clear()
    site.api.clear()
    await site.until(lambda: site.calls("DeleteVolume"))
    assert len(site.calls()) == calls + 1
    assert site.driver.state.volumes == {}


async def test_a_refusal_of_a_claim_that_never_came_to_a_call_ends_with_it(site: Installation) -> None:
    """provision.md 3.2."""
    broken = site.refuse("get", "Secret", 404)
    site.storage_class(parameters=SECRET_PARAMETERS)
    site.claim()
    await site.start()
    await site.until(lambda: broken.hits == 2)
    site.delete(CLAIM, "data")
    await site.until(lambda: site.find(CLAIM, "data") is None)
    await site.rest(1)
    hits = broken.hits
    await site.rest(1000)
    assert broken.hits == hits
    assert site.calls() == []
    assert site.logged("A volume may be left over") == []


async def test_a_volume_that_may_be_left_is_said_when_the_tries_of_its_claim_end(site: Installation) -> None:
    """It is bound to another volume meanwhile: nobody asks for the first one again (provision.md 3.2)."""
    site.fault("DEADLINE_EXCEEDED", created=True)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(site.calls)
    site.edit(CLAIM, "data", lambda claim: claim["spec"].update(volumeName="by-hand"))
    [line] = await _said(site)
    calls = len(site.calls())
    assert line.level == "WARNING"
    assert (line.keys["driver"], line.keys["claim"]) == (site.config.name, "default/data")
    assert line.keys["volume"] == site.volume_of("data")
    await site.rest(1000)
    assert len(site.calls()) == calls


async def test_a_deleted_claim_that_is_refused_for_good_before_the_call_ends_and_is_said(site: Installation) -> None:
    """The class has changed so that the driver is not even asked: whether it made the volume stays open
    (provision.md 3.2)."""
    site.fault("DEADLINE_EXCEEDED", created=True)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(site.calls)
    site.delete(CLASS, "fast")
    site.storage_class(parameters={"csi.storage.k8s.io/unknown": "x"})
    await site.event("data", "ProvisioningFailed", 2)
    assert site.logged("A volume may be left over") == []
    site.delete(CLAIM, "data")
    [line] = await _said(site)
    assert line.keys["volumeID"] == "unknown"
    await site.rest(1000)
    assert len(site.logged("A volume may be left over")) == 1


async def _said(site: Installation) -> list[Line]:
    await site.until(lambda: site.logged("A volume may be left over"))
    return site.logged("A volume may be left over")
