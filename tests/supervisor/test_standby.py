"""A replica that waits for the lease: what it shows, and what it leaves alone (process.md 6, 8, 15)."""

import trio

from csi_provisioner.settings import ElectionSettings
from tests.installation import NAMESPACE, Installation

LEASE = "sandbox-csi-example-com"
ELECTION = ElectionSettings(enabled=True, namespace=NAMESPACE)


async def _standing_by(site: Installation) -> None:
    spec = {"holderIdentity": "them", "leaseDurationSeconds": 3600}
    site.objects.create("Lease", {"metadata": {"name": LEASE}, "spec": spec}, NAMESPACE)
    with trio.move_on_after(5):
        await site.start(election=ELECTION)


async def test_it_shows_the_series_that_are_there_from_the_start(site: Installation) -> None:
    """process.md 8."""
    await _standing_by(site)
    found = await site.metrics()
    assert found['leader_election_master_status{name=""}'] == 0
    for queue in ("claims", "volumes", "unsavedpvs"):
        assert found[f'workqueue_depth{{name="{queue}"}}'] == 0
        assert found[f'workqueue_adds_total{{name="{queue}"}}'] == 0


async def test_it_lists_nothing_watches_the_lease_alone_and_ends_at_once(site: Installation) -> None:
    site.storage_class()
    site.claim()
    await _standing_by(site)
    await site.rest(60)
    assert site.requests.of("list") == []
    assert [call.kind for call in site.requests.of("watch")] == ["Lease"]
    asked, since = len(site.requests), trio.current_time()
    assert await site.stop() == 0
    assert trio.current_time() - since < 0.1
    assert len(site.requests) == asked
