"""Writing the PersistentVolume: one try with the claim, then for ever by itself (provision.md 13)."""

import pytest
import trio

from tests.installation import CLAIM, CLASS, VOLUME, Installation


def _creations(site: Installation) -> list[float]:
    """When the volume was written or tried to be, in seconds from the first time."""
    at = [call.at for call in site.requests.of("create", VOLUME)]
    return [round(when - at[0], 3) for when in at]


async def _unsaved(site: Installation, **refusal: object) -> None:
    site.refuse("create", VOLUME, **({"code": 503} | refusal))  # type: ignore[arg-type]
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(lambda: len(_creations(site)) >= 2)


async def test_the_first_save_is_a_part_of_the_claims_try(site: Installation) -> None:
    """provision.md 13."""
    site.storage_class()
    site.claim()
    await site.start()
    await site.bound("data")
    assert len(_creations(site)) == 1
    assert site.logged("Could not save") == []
    event = await site.event("data", "ProvisioningSucceeded")
    assert site.volume_of("data") in event["message"]


async def test_further_saves_have_a_backoff_of_their_own(site: Installation) -> None:
    """provision.md 13."""
    await _unsaved(site, times=6)
    await site.bound("data")
    assert _creations(site) == pytest.approx([0, 0, 0.005, 0.015, 0.035, 0.075, 0.155], abs=0.06)
    assert len(site.calls()) == 1


@pytest.mark.parametrize("code", [403, 500, 503])
async def test_a_save_is_never_given_up_and_its_volume_is_kept_p19_engine_5(site: Installation, code: int) -> None:
    """provision.md 13."""
    await _unsaved(site, code=code)
    await site.rest(1800)
    assert len(_creations(site)) > 50
    assert len(site.calls()) == 1
    assert site.calls("DeleteVolume") == []
    assert len(site.events("data", "ProvisioningFailed")) == (code == 403)
    site.api.clear()
    await site.bound("data")
    await site.event("data", "ProvisioningSucceeded")
    assert site.calls("DeleteVolume") == []


@pytest.mark.parametrize("code", [400, 422])
async def test_a_volume_that_is_refused_as_it_is_heals_by_another_answer_p19_engine_5(
    site: Installation, code: int
) -> None:
    """Saving goes on, the volume is kept; an event of the claim, or the resync, asks the driver for the volume anew
    (provision.md 13)."""
    await _unsaved(site, code=code)
    await site.rest(60)
    assert len(_creations(site)) > 3
    assert len(site.calls()) == 1
    site.touch("PersistentVolumeClaim", "data", "a")
    await site.until(lambda: len(site.calls()) == 2)
    assert site.calls("DeleteVolume") == []
    site.api.clear()
    await site.bound("data")


@pytest.mark.parametrize("other", [True, False])
async def test_the_id_of_a_refused_volume_that_the_driver_answers_anew_is_told(site: Installation, other: bool) -> None:
    """Perhaps it is another volume, which nothing would ever name."""
    if other:
        site.fault(times=1, volume_id="odd-id")
    await _unsaved(site, code=422)
    site.touch("PersistentVolumeClaim", "data", "a")
    await site.until(lambda: len(site.calls()) == 2)
    site.api.clear()
    await site.bound("data")
    told = [line.keys["volumeID"] for line in site.logged("A volume may be left over")]
    assert told == ["odd-id"] * other
    assert site.calls("DeleteVolume") == []


async def test_a_save_follows_an_outage_of_minutes_within_half_a_minute(site: Installation) -> None:
    """provision.md 13."""
    await _unsaved(site, cut="before")
    await site.rest(600)
    site.api.clear()
    since = trio.current_time()
    await site.bound("data")
    assert trio.current_time() - since <= 31
    assert len(site.calls()) == 1


async def test_a_save_that_is_tried_again_is_said_once_with_its_reason(site: Installation) -> None:
    """provision.md 13."""
    await _unsaved(site, message="the disk is full")
    [line] = site.logged("Could not save the PersistentVolume")
    assert line.level == "ERROR"
    assert line.keys["PV"] == site.volume_of("data")
    assert line.keys["PVC"] == "default/data"
    assert "the disk is full" in str(line.keys["err"])


@pytest.mark.parametrize("cut", ["after", "answer"])
async def test_a_volume_that_is_there_already_is_saved(site: Installation, cut: str) -> None:
    """The answer to the first try was lost: the second is told AlreadyExists (provision.md 13)."""
    site.refuse("create", VOLUME, code=0, cut=cut, times=1)
    site.storage_class()
    site.claim()
    await site.start()
    await site.bound("data")
    await site.event("data", "ProvisioningSucceeded")
    assert len(site.calls()) == 1
    assert len(site.objects.all(VOLUME)) == 1


async def test_a_claim_that_changes_during_its_save_does_not_ask_the_driver_again(site: Installation) -> None:
    """provision.md 13."""
    await _unsaved(site)
    for value in "abcd":
        site.touch(CLAIM, "data", value)
        await site.rest(40)
    assert len(site.calls()) == 1
    assert len(site.events("data", "Provisioning")) == 1


async def test_a_class_that_goes_during_a_save_does_not_ask_the_driver_again(site: Installation) -> None:
    """provision.md 13."""
    await _unsaved(site)
    site.delete(CLASS, "fast")
    site.touch(CLAIM, "data", "a")
    await site.rest(100)
    assert site.logged("Failed, will be tried again") == [
        line for line in site.logged("Failed, will be tried again") if line.keys["queue"] == "unsavedpvs"
    ]
    site.api.clear()
    await site.bound("data")
    assert len(site.calls()) == 1


async def test_a_volume_is_saved_when_its_claim_is_gone_p19_engine_5(site: Installation) -> None:
    """provision.md 13."""
    await _unsaved(site)
    name = site.volume_of("data")
    site.delete(CLAIM, "data")
    await site.rest(300)
    assert site.find(CLAIM, "data") is None
    tries = len(_creations(site))
    await site.rest(100)
    assert len(_creations(site)) > tries
    site.api.clear()
    await site.until(lambda: site.calls("DeleteVolume"))  # Released at once
    await site.until(lambda: site.find(VOLUME, name) is None)
    assert len(site.calls()) == 1
    assert site.events("data", "ProvisioningSucceeded") == []
    assert site.driver.state.volumes == {}


async def test_volumes_are_saved_while_another_one_is_refused(site: Installation) -> None:
    """provision.md 13."""
    site.storage_class()
    await site.start()
    site.claim("first")
    site.refuse("create", VOLUME, name=site.volume_of("first"))
    site.refuse("create", VOLUME, times=20)
    names = [f"other-{number}" for number in range(20)]
    for name in names:
        site.claim(name)
    await site.bound(*names)
    assert len(site.calls()) == 21
    site.api.clear()
    await site.bound("first")


async def test_a_stop_tries_a_save_once_more(site: Installation) -> None:
    """provision.md 13."""
    await _unsaved(site)
    await site.rest(100)
    tries = len(_creations(site))
    site.api.clear()
    assert await site.stop() == 0
    assert len(_creations(site)) == tries + 1
    await site.bound("data")
    await site.event("data", "ProvisioningSucceeded")


async def test_after_a_restart_the_driver_gives_the_volume_that_was_not_saved(site: Installation) -> None:
    """provision.md 13."""
    await _unsaved(site)
    assert await site.stop() == 0
    site.api.clear()
    await site.start()
    await site.bound("data")
    assert len({call.request.name for call in site.calls()}) == 1
    assert len(site.calls()) == 2
    assert len(site.driver.state.volumes) == 1
    assert site.logged("A volume may be left over") == []


async def test_a_volume_that_no_later_process_can_know_is_said_at_the_end(site: Installation) -> None:
    """provision.md 13."""
    await _unsaved(site)
    site.delete(CLAIM, "data")
    await site.rest(1)
    assert await site.stop() == 0
    [volume] = site.driver.state.volumes.values()
    [line] = site.logged("A volume may be left over")
    assert (line.keys["volumeID"], line.keys["volume"]) == (volume.id, volume.name)
    assert line.keys["claim"] == "default/data"
