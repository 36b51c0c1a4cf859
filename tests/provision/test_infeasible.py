"""A claim that the driver calls invalid is asked for again slowly (provision.md 6)."""

from csi_provisioner.settings import RetrySettings
from tests.installation import CLAIM, CLASS, Installation


async def _refused(site: Installation, **retries: float) -> None:
    site.fault("INVALID_ARGUMENT", message="no such pool")
    site.storage_class()
    site.claim()
    await site.start(retries=RetrySettings(**retries))  # type: ignore[arg-type]
    await site.until(site.calls)


async def test_an_infeasible_claim_is_tried_at_the_longest_interval_only_p19_engine_4(site: Installation) -> None:
    """provision.md 6."""
    await _refused(site)
    await site.until(lambda: len(site.calls()) == 4)
    assert site.pauses() == [300.0, 300.0, 300.0]


async def test_the_interval_of_an_infeasible_claim_is_that_of_the_flag_quirk_1(site: Installation) -> None:
    """provision.md 6."""
    await _refused(site, maximum=40.0)
    await site.until(lambda: len(site.calls()) == 3)
    assert site.pauses() == [40.0, 40.0]


async def test_a_change_of_an_infeasible_claim_does_not_shorten_its_interval(site: Installation) -> None:
    """provision.md 6."""
    await _refused(site)
    for value in "abc":
        await site.rest(50)
        site.touch(CLAIM, "data", value)
    await site.until(lambda: len(site.calls()) == 2)
    assert site.times() == [0.0, 300.0]


async def test_a_change_of_the_class_does_not_shorten_the_interval_of_an_infeasible_claim(site: Installation) -> None:
    """provision.md 6."""
    await _refused(site)
    await site.rest(100)
    site.touch(CLASS, "fast", "a")
    await site.until(lambda: len(site.calls()) == 2)
    assert site.times() == [0.0, 300.0]


async def test_a_class_made_anew_has_an_infeasible_claim_tried_at_once(site: Installation) -> None:
    """provision.md 6."""
    await _refused(site)
    await site.rest(100)
    site.delete(CLASS, "fast")
    site.driver.faults.clear()
    site.storage_class(parameters={"pool": "other"})
    await site.bound("data")
    assert site.times() == [0, 100]
    assert site.calls()[1].request.parameters["pool"] == "other"


async def test_a_success_ends_infeasibility_for_good(site: Installation) -> None:
    """A claim of the same name is another claim (provision.md 6)."""
    await _refused(site)
    site.driver.faults.clear()
    await site.bound("data")
    assert site.times() == [0.0, 300.0]
    site.delete(CLAIM, "data")
    await site.until(lambda: site.calls("DeleteVolume"))
    site.claim()
    await site.bound("data")
    assert len(site.calls()) == 3


async def test_a_claim_made_anew_is_not_held_off(site: Installation) -> None:
    """provision.md 6."""
    await _refused(site)
    site.delete(CLAIM, "data")
    site.driver.faults.clear()
    await site.until(lambda: site.find(CLAIM, "data") is None)
    await site.rest(1)
    site.claim()
    await site.bound("data")
    assert site.times()[-1] < 5


async def test_an_infeasible_claim_that_is_deleted_is_not_asked_for_again(site: Installation) -> None:
    """provision.md 6."""
    await _refused(site)
    site.delete(CLAIM, "data")
    await site.rest(2000)
    assert len(site.calls()) == 1


async def test_claims_beside_an_infeasible_one_are_not_held_off(site: Installation) -> None:
    """provision.md 6."""
    site.fault("INVALID_ARGUMENT", match="/data$")
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(site.calls)
    site.claim("other")
    await site.bound("other")
    assert [call.code for call in site.calls()] == ["INVALID_ARGUMENT", "OK"]


async def test_the_event_of_an_infeasible_claim_says_that_retries_are_slow_and_which_try_it_was(
    site: Installation,
) -> None:
    """provision.md 6."""
    await _refused(site)
    first = await site.event("data", "ProvisioningFailed")
    assert "no such pool" in first["message"]
    assert "attempt 1" in first["message"]
    assert "slow" in first["message"]
    assert "300 s" in first["message"]
    again = await site.event("data", "ProvisioningFailed", 3)
    assert "attempt 3" in again["message"]
    assert again["metadata"]["uid"] == first["metadata"]["uid"]


async def test_after_infeasibility_the_usual_backoff_goes_on(site: Installation) -> None:
    """The failures before are counted, so that the next kind of failure does not begin at one second
    (provision.md 6)."""
    site.fault("INVALID_ARGUMENT", times=2)
    site.fault("INTERNAL", times=2)
    site.storage_class()
    site.claim()
    await site.start()
    await site.bound("data")
    assert site.pauses() == [300.0, 300.0, 4.0, 8.0]
