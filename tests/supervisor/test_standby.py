"""A replica that waits for the lease: what it shows, and what it leaves alone (process.md 6, 8, 15)."""

import msgspec
import pytest
import trio

from csi_provisioner.settings import ElectionSettings, ProvisioningSettings
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


@pytest.mark.parametrize("name", ["-", "acme.example.com.", "Acme", "-acme", "a" * 254, "ä"])
async def test_a_driver_s_name_that_makes_no_lease_s_ends_the_process(site: Installation, name: str) -> None:
    await _serve_as(site, name)
    site._nursery.start_soon(lambda: site.start(election=ELECTION))
    await site.until(lambda: site.is_over)
    assert await site.ended() == 255
    [line] = site.logged("makes")
    assert f"the CSI driver's name {name!r} makes" in str(line.keys["err"])


async def test_without_election_a_driver_may_have_any_name(site: Installation) -> None:
    await _serve_as(site, "-")
    site.storage_class()
    site.claim()
    await site.start(provisioning=ProvisioningSettings(extra_create_metadata=True, volume_journal="auto"))
    await site.bound("data")


async def _serve_as(site: Installation, name: str) -> None:
    site.kill_driver()
    await site.rest(0.1)
    await site.serve(msgspec.structs.replace(site.config, name=name))
