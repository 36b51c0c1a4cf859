"""A leader that was frozen past its lease begins nothing when it wakes up (design.md 3 rule 9, process.md 6)."""

import trio

from csi_provisioner.settings import ElectionSettings
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
