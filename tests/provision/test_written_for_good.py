"""What the API server refuses for good is told, and an object whose answer was lost is not written twice."""

import pytest

from tests.installation import CLAIM, CLASS, VOLUME, Installation


def _posts(site: Installation) -> int:
    return len(site.requests.of("create", VOLUME))


async def _claim(site: Installation, **fields: object) -> None:
    site.storage_class(**fields)
    site.claim()
    await site.start()


# ---- rights


async def test_a_volume_that_may_not_be_written_down_is_told_on_the_claim_once(site: Installation) -> None:
    site.refuse("create", VOLUME, code=403)
    await _claim(site)
    event = await site.event("data", "ProvisioningFailed")
    await site.rest(1300)
    told = site.events("data", "ProvisioningFailed")
    assert [event["count"] for event in told] == [3]
    assert event["type"] == "Warning"
    assert "grant create on persistentvolumes" in event["message"]
    site.api.clear()
    await site.bound("data")
    assert len(site.calls()) == 1


async def test_it_is_told_at_once_also_where_another_failure_came_first(site: Installation) -> None:
    site.refuse("create", VOLUME, code=503, times=3)
    site.refuse("create", VOLUME, code=403)
    await _claim(site)
    await site.until(lambda: site.events("data", "ProvisioningFailed"), limit=5)


async def test_a_claim_that_may_not_be_read_keeps_no_volume_from_being_written(site: Installation) -> None:
    """Nothing is known then of what became of the object: one too many is better than a volume without any."""
    site.refuse("create", VOLUME, code=0, cut="before", times=1)
    site.refuse("get", CLAIM, code=403)
    await _claim(site)
    await site.until(lambda: site.objects.all(VOLUME), limit=60)


async def test_without_the_right_to_write_volumes_the_driver_is_not_asked(site: Installation) -> None:
    site.api.denied.add(("create", "persistentvolumes"))
    await _claim(site)
    event = await site.event("data", "ProvisioningFailed", 3)
    assert "may not create PersistentVolumes" in event["message"]
    assert site.calls() == []
    site.api.clear()
    await site.bound("data")


def _asked_for_volumes(site: Installation) -> list[str]:
    """Filled as claims want to know; the process looks at all its rights besides, by a client of its own."""
    asked: list[str] = []

    def note(review: str, agent: str) -> None:
        if review == "create persistentvolumes" and not agent.endswith("(rights)"):
            asked.append(review)

    site.api.on_review = note
    return asked


async def test_claims_ask_for_the_right_at_most_once_a_term(site: Installation) -> None:
    """Not at all where the look at all rights has come before the first of them."""
    asked = _asked_for_volumes(site)
    site.storage_class()
    for number in range(20):
        site.claim(f"data-{number}")
    await site.start()
    await site.bound(*(f"data-{number}" for number in range(20)))
    assert len(asked) <= 1


async def test_after_a_refusal_the_right_is_asked_for_again_at_most_every_ten_seconds(site: Installation) -> None:
    asked = _asked_for_volumes(site)
    site.api.denied.add(("create", "persistentvolumes"))
    await _claim(site)
    await site.rest(35)
    assert 2 <= len(asked) <= 4
    assert site.calls() == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (400, "it cannot be read"),
        (413, "Request entity too large: limit is 3145728"),
        (422, "spec.csi.volumeHandle: Required value"),
        (500, "etcdserver: request is too large"),
        (
            500,
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max",
        ),
    ],
)
async def test_a_volume_that_is_refused_as_it_is_is_told_on_its_claim(
    site: Installation, code: int, message: str
) -> None:
    """It is tried on, but nobody would know why the claim stays pending."""
    site.refuse("create", VOLUME, code=code, message=message)
    await _claim(site)
    event = await site.event("data", "ProvisioningFailed")
    assert message in event["message"]
    assert "another answer of the driver" in event["message"]
    await site.rest(60)
    assert len(site.events("data", "ProvisioningFailed")) == 1
    assert _posts(site) > 3
    site.touch(CLAIM, "data", "a")  # such an answer may come by now
    await site.until(lambda: len(site.calls()) == 2)


async def test_a_name_that_no_volume_can_have_is_told_with_what_to_change(site: Installation) -> None:
    site.refuse("create", VOLUME, code=422, message='PersistentVolume "x" is invalid: metadata.name: Invalid value')
    await _claim(site)
    event = await site.event("data", "ProvisioningFailed")
    assert "--volume-name-prefix" in event["message"]


@pytest.mark.parametrize(("verb", "gone"), [("patch", False), ("delete", True)])
async def test_a_volume_that_may_not_be_changed_is_told(site: Installation, verb: str, gone: bool) -> None:
    site.refuse(verb, VOLUME, code=403)
    await _claim(site)
    await site.bound("data")
    name = site.volume_of("data")
    if gone:
        site.delete(CLAIM, "data")
    else:  # somebody takes our finalizer away, and it is put on again
        site.edit(VOLUME, name, lambda volume: volume["metadata"].update(finalizers=[]))
    event = await site.event(name if gone else "data", "VolumeFailedDelete")
    assert "grant patch and delete on persistentvolumes" in event["message"]
    site.api.clear()
    if gone:
        await site.until(lambda: site.find(VOLUME, name) is None)


# ---- an answer that was lost


async def test_a_volume_that_came_and_went_while_its_answer_was_lost_does_not_come_back(site: Installation) -> None:
    site.refuse("create", VOLUME, cut="after", code=0, times=1)
    site.refuse("create", VOLUME, code=503, skip=1)
    await _claim(site, reclaimPolicy="Retain")
    await site.until(lambda: site.find(CLAIM, "data") and _posts(site) >= 1)
    await site.bound("data")
    name = site.volume_of("data")
    site.delete(CLAIM, "data")
    site.delete(VOLUME, name)
    await site.until(lambda: site.find(VOLUME, name) is None)
    site.api.clear()
    await site.rest(120)
    assert site.find(VOLUME, name) is None


async def test_a_volume_whose_answer_was_lost_and_that_the_watch_shows_is_written(site: Installation) -> None:
    site.refuse("create", VOLUME, cut="after", code=0, times=1)
    await _claim(site)
    await site.bound("data")
    await site.event("data", "ProvisioningSucceeded")
    assert _posts(site) <= 2
    assert len(site.calls()) == 1


async def test_a_volume_of_which_nothing_is_known_is_written_though_its_claim_is_gone(site: Installation) -> None:
    """One object too many is better than a volume without any."""
    site.refuse("create", VOLUME, cut="before", code=0)
    await _claim(site)
    await site.until(lambda: _posts(site) >= 2)
    site.delete(CLAIM, "data")
    site.api.clear()
    await site.until(lambda: len(site.calls("DeleteVolume")) == 1)
    assert site.find(CLASS, "fast")
