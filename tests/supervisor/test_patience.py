"""`Retry-After` beyond a request's deadline: what failed is not tried before, whoever wakes it (design.md 3 rule 8)."""

from collections.abc import Callable

import pytest

from tests.deletion.released import bound, released
from tests.installation import CLAIM, CLASS, SECRET, VOLUME, Installation
from tests.journeys.objects import CLONE_FINALIZER, VOLUME_FINALIZER
from tests.provision.test_states import SECRET_PARAMETERS

WAIT = 100
Prepare = Callable[[Installation], None]


def _claim(site: Installation) -> None:
    site.storage_class()
    site.claim()


def _claim_with_secret(site: Installation) -> None:
    site.storage_class(parameters=SECRET_PARAMETERS)
    site.secret("login", password="x")
    site.claim()


def _source_to_let_go(site: Installation) -> None:
    site.storage_class()
    site.claim()
    site.edit(CLAIM, "data", lambda claim: claim["metadata"].update(finalizers=[CLONE_FINALIZER]))
    site.delete(CLAIM, "data")


# What is asked for, what has to be there for it, and what is touched to wake it up meanwhile
CASES: dict[str, tuple[str, str, Prepare, str, str]] = {
    "save": ("create", VOLUME, _claim, CLAIM, "data"),
    "secret": ("get", SECRET, _claim_with_secret, CLAIM, "data"),
    "deletion": ("delete", VOLUME, lambda site: released(site) and None, VOLUME, "pv"),
    "finalizer-on": ("patch", VOLUME, lambda site: bound(site, finalizers=()) and None, VOLUME, "pv"),
    "finalizer-off": ("patch", VOLUME, lambda site: released(site) and None, VOLUME, "pv"),
    "source": ("update", CLAIM, _source_to_let_go, CLAIM, "data"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_failed_is_not_tried_before(site: Installation, case: tuple[str, str, Prepare, str, str]) -> None:
    verb, kind, prepare, touched, name = case
    prepare(site)
    busy = site.refuse(verb, kind, 429, retry_after=WAIT, times=1)
    await site.start()
    await site.until(lambda: busy.hits)
    for number in range(9):
        await site.rest(10)
        site.touch(touched, name, str(number))
        if site.find(CLASS, "fast") is not None:
            site.delete(CLASS, "fast")  # made anew, it wakes up the claims that wait for it
            _class_as_before(site, case)
    assert len(site.requests.of(verb, kind)) == 1
    await site.until(lambda: len(site.requests.of(verb, kind)) > 1, limit=20)
    at = [call.at for call in site.requests.of(verb, kind)]
    assert at[1] - at[0] >= WAIT - 0.001


def _class_as_before(site: Installation, case: object) -> None:
    site.storage_class(parameters=SECRET_PARAMETERS if case is CASES["secret"] else {})


async def test_people_are_told_when_the_next_try_comes(site: Installation) -> None:
    _claim_with_secret(site)
    site.refuse("get", SECRET, 429, retry_after=WAIT, times=1)
    await site.start()
    failed = await site.event("data", "ProvisioningFailed")
    assert failed["message"].endswith("(attempt 1; next try in 100 s)")


async def test_the_finalizer_of_a_volume_that_is_gone_is_not_waited_for(site: Installation) -> None:
    """The floor is of the item: others go on, and what the watch shows is enough to end it."""
    released(site)
    busy = site.refuse("patch", VOLUME, 429, retry_after=WAIT, times=1)
    await site.start()
    await site.until(lambda: busy.hits)
    site.storage_class()
    site.claim()
    await site.bound("data")
    site.edit(VOLUME, "pv", lambda volume: volume["metadata"]["finalizers"].remove(VOLUME_FINALIZER))
    await site.until(lambda: site.find(VOLUME, "pv") is None)
    await site.rest(2 * WAIT)
    assert len(site.requests.of("patch", VOLUME)) == 1
