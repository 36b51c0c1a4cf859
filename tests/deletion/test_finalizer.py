"""The finalizer that keeps a volume's object as long as its volume (delete.md 4)."""

from typing import Any

import pytest

from tests.deletion.released import PROTECTION, PROVISIONED_BY, bound, released
from tests.installation import CLAIM, VOLUME, Installation
from tests.journeys.objects import VOLUME_FINALIZER

OTHERS = ["example.com/first", PROTECTION]


async def test_the_finalizer_is_put_on_bound_volumes_that_lack_it_d13_9(site: Installation) -> None:
    """delete.md 4."""
    bound(site, finalizers=(OTHERS[0],))
    await site.start()
    await site.until(lambda: VOLUME_FINALIZER in site.finalizers(VOLUME, "pv"), limit=1)
    assert sorted(site.finalizers(VOLUME, "pv")) == sorted([*OTHERS, VOLUME_FINALIZER])
    assert [entry for entry in site.finalizers(VOLUME, "pv") if entry != VOLUME_FINALIZER] == OTHERS
    await site.rest(2000)
    assert len(site.requests.of("patch", VOLUME)) == 1


@pytest.mark.parametrize("policy", ["Retain", "Recycle"])
async def test_the_finalizer_is_taken_off_when_the_policy_changes_d13_10(site: Installation, policy: str) -> None:
    """delete.md 4."""
    bound(site, finalizers=(OTHERS[0], VOLUME_FINALIZER))
    await site.start()
    await site.rest(10)
    site.edit(VOLUME, "pv", lambda volume: volume["spec"].update(persistentVolumeReclaimPolicy=policy))
    await site.until(lambda: VOLUME_FINALIZER not in site.finalizers(VOLUME, "pv"), limit=1)
    assert site.finalizers(VOLUME, "pv") == OTHERS


LEFT_ALONE: dict[str, dict[str, Any]] = {
    "of-another-provisioner": {"annotations": {PROVISIONED_BY: "other.example.com"}},
    "retained": {"persistentVolumeReclaimPolicy": "Retain"},
}


@pytest.mark.parametrize(("phase", "fields"), [("Available", {"claimRef": None}), ("Failed", {})])
async def test_the_finalizer_is_not_put_on_volumes_that_are_not_bound(
    site: Installation, phase: str, fields: dict[str, Any]
) -> None:
    """delete.md 4."""
    released(site, phase=phase, finalizers=(), **fields)
    await site.start()
    await site.rest(1000)
    assert site.finalizers(VOLUME, "pv") == [PROTECTION]


@pytest.mark.parametrize("case", LEFT_ALONE)
async def test_the_finalizer_is_not_put_on_volumes_that_we_do_not_delete(site: Installation, case: str) -> None:
    """delete.md 4."""
    bound(site, finalizers=(), **LEFT_ALONE[case])
    await site.start()
    await site.rest(1000)
    assert site.finalizers(VOLUME, "pv") == [PROTECTION]
    assert site.requests.of("patch", VOLUME) == []


async def test_what_another_writes_between_read_and_patch_survives_d13_9(site: Installation) -> None:
    """The cache does not know of it yet: a patch of our entry alone, without a version (delete.md 4)."""
    bound(site, finalizers=())
    site.refuse("patch", VOLUME, 0, delay=5.0, times=1)
    await site.start()
    await site.until(lambda: site.requests.of("patch", VOLUME))
    site.edit(VOLUME, "pv", lambda volume: volume["metadata"]["finalizers"].append("example.com/late"))
    await site.until(lambda: VOLUME_FINALIZER in site.finalizers(VOLUME, "pv"))
    assert [entry for entry in site.finalizers(VOLUME, "pv") if entry != VOLUME_FINALIZER] == [
        PROTECTION,
        "example.com/late",
    ]


@pytest.mark.parametrize("code", [403, 500])
async def test_a_patch_of_the_finalizer_that_fails_is_tried_again(site: Installation, code: int) -> None:
    """delete.md 2."""
    bound(site, finalizers=())
    trouble = site.refuse("patch", VOLUME, code, times=3)
    await site.start()
    await site.until(lambda: VOLUME_FINALIZER in site.finalizers(VOLUME, "pv"))
    assert trouble.hits == 3
    at = [call.at for call in site.requests.of("patch", VOLUME)]
    assert [round(when - at[0]) for when in at] == [0, 1, 3, 7]
    assert len(site.events("pv")) == (code == 403)  # only a person can change that


async def test_a_volume_that_went_meanwhile_is_not_patched_again(site: Installation) -> None:
    """delete.md 2."""
    bound(site, finalizers=())
    trouble = site.refuse("patch", VOLUME, 404)
    await site.start()
    await site.rest(500)
    assert trouble.hits == 1


async def test_a_404_that_does_not_name_the_volume_is_patched_again(site: Installation) -> None:
    """delete.md 2."""
    bound(site, finalizers=())
    trouble = site.refuse("patch", VOLUME, 404, page="<html>not found</html>", times=3)
    await site.start()
    await site.until(lambda: VOLUME_FINALIZER in site.finalizers(VOLUME, "pv"), limit=30)
    assert trouble.hits == 3


async def test_a_static_volume_of_the_driver_gets_the_finalizer(site: Installation) -> None:
    """delete.md 2."""
    handle = bound(site, finalizers=())
    site.edit(VOLUME, "pv", lambda volume: volume["metadata"].pop("annotations"))
    await site.start()
    await site.until(lambda: VOLUME_FINALIZER in site.finalizers(VOLUME, "pv"))
    site.delete(CLAIM, "claim-of-pv")
    await site.until(lambda: site.find(VOLUME, "pv") is None)
    assert [call.request.volume_id for call in site.calls("DeleteVolume")] == [handle]
