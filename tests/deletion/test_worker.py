"""A deletion that waits for a worker is looked at again before the driver is asked (delete.md 7)."""

from collections.abc import Callable

import pytest

from csi_provisioner.settings import ElectionSettings, RetrySettings
from tests.deletion.released import attached, bound, reconfigured, released
from tests.deletion.test_detaching import ATTACHES
from tests.installation import NAMESPACE, VOLUME, Installation


def _retain(site: Installation, handle: str) -> None:
    site.edit(VOLUME, "waits", lambda volume: volume["spec"].update(persistentVolumeReclaimPolicy="Retain"))


def _attach(site: Installation, handle: str) -> None:
    attached(site, "waits")


def _adopt(site: Installation, handle: str) -> None:
    bound(site, "adopts", csi={"driver": site.config.name, "volumeHandle": handle})


def _strip(site: Installation, handle: str) -> None:
    site.edit(VOLUME, "waits", lambda volume: volume["metadata"].pop("finalizers"))
    site.delete(VOLUME, "waits")


@pytest.mark.parametrize("happens", [_retain, _attach, _adopt, _strip])
async def test_what_happens_while_a_deletion_waits_for_a_worker_keeps_its_volume(
    site: Installation, happens: Callable[[Installation, str], None]
) -> None:
    await reconfigured(site, ATTACHES)
    site.fault(rpc="DeleteVolume", match="hangs", hang=True)
    released(site, "hangs")
    await site.start(retries=RetrySettings(workers=1))
    await site.until(lambda: site.driver.made("DeleteVolume", running=True))
    handle = released(site, "waits")
    await site.rest(2)
    happens(site, handle)
    await site.rest(60)
    assert handle not in {call.request.volume_id for call in site.calls("DeleteVolume")}


async def test_while_renewals_fail_no_volume_is_deleted(site: Installation) -> None:
    """When they work again the cluster may be one that was restored, where its PersistentVolume is Bound."""
    await site.start(
        election=ElectionSettings(enabled=True, namespace=NAMESPACE, lease_duration=300, renew_deadline=200)
    )
    refused = site.refuse("*", "Lease")
    await site.rest(6)
    handle = released(site, "waits")
    await site.rest(60)
    assert not site.calls("DeleteVolume")
    refused.times = 0
    await site.until(lambda: [call.request.volume_id for call in site.calls("DeleteVolume")] == [handle], limit=100)
