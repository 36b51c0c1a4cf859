"""A leader that was frozen past its lease begins nothing when it wakes up (design.md 3 rule 9, process.md 6)."""

import trio

from csi_provisioner.settings import ElectionSettings
from sandbox.api.faults import Fault as ApiFault
from tests.deletion.released import released
from tests.installation import NAMESPACE, VOLUME, Installation

ELECTION = ElectionSettings(enabled=True, namespace=NAMESPACE)
CLAIMS = 20


class Boottime:
    """Goes with Trio's clock, and on while the machine sleeps."""

    slept = 0.0

    def __call__(self) -> float:
        return trio.current_time() + self.slept


async def test_nothing_is_written_made_or_deleted(site: Installation) -> None:
    clock = Boottime()
    site.storage_class()
    refused = site.refuse("create", VOLUME)
    for number in range(CLAIMS):
        site.claim(f"data-{number}")
    await site.start(clock=clock, election=ELECTION)
    await site.until(lambda: len(site.logged("Could not save the PersistentVolume")) == CLAIMS)
    renewed = len(site.requests.of("update", "Lease"))
    await site.until(lambda: len(site.requests.of("update", "Lease")) > renewed)
    await site.rest(0.1)
    # From one moment to the next; its own clock has seen nothing of it.
    clock.slept += 20
    site.refuse("*", "Lease")
    refused.times = 0
    before = [call for call in site.requests if call.verb not in ("get", "list", "watch")]
    site.claim("late")
    released(site)
    assert await site.ended() == 1
    after = [call for call in site.requests if call.verb not in ("get", "list", "watch")][len(before) :]
    assert {call.kind for call in after} <= {"Lease"}
    assert len(site.calls()) == CLAIMS
    assert site.calls("DeleteVolume") == []
    assert len(site.logged("A volume is made and its PersistentVolume is not written")) == CLAIMS


async def test_one_that_still_has_the_lease_goes_on_once_it_has_renewed_it(site: Installation) -> None:
    clock = Boottime()
    site.storage_class()
    await site.start(clock=clock, election=ELECTION)
    await site.rest(1)
    clock.slept += 20
    site.claim()
    await site.bound("data")
    assert len(site.calls()) == 1


async def test_calls_that_waited_for_the_journal_are_not_made_after_the_lease(site: Installation) -> None:
    """It is frozen while the journal's write is under way, and its answer is there when it wakes."""
    clock = Boottime()
    site.storage_class()
    election = ElectionSettings(enabled=True, namespace=NAMESPACE, own_namespace=NAMESPACE)
    await site.start(clock=clock, election=election)
    site.api.add(ApiFault("update", "Lease", name="*-journal-00", delay=2.0, times=None))
    for number in range(60):
        site.claim(f"data-{number}")
    await site.rest(3)  # the second write has who came during the first
    called = len(site.calls())
    clock.slept += 20
    site.refuse("*", "Lease", name="*-com")
    assert await site.ended() == 1
    assert len(site.calls()) == called < 60
    told = site.logged("A volume may be left over")
    assert len(told) <= called
