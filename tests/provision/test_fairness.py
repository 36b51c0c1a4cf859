"""Claims of a class, or a kind of source, whose calls hang do not keep the others waiting (design.md 7)."""

import pytest

from csi_provisioner.settings import ElectionSettings, RetrySettings
from tests.deletion.released import bound, released
from tests.installation import NAMESPACE, VOLUME, Installation
from tests.journeys.objects import VOLUME_FINALIZER

JOURNAL = ElectionSettings(enabled=True, namespace=NAMESPACE, own_namespace=NAMESPACE)
ALONE = ElectionSettings()
# Of which one is kept for others
FEW = RetrySettings(workers=8)


@pytest.mark.parametrize("election", [JOURNAL, ALONE], ids=["journal", "no journal"])
async def test_a_class_that_hangs_leaves_the_other_its_worker(site: Installation, election: ElectionSettings) -> None:
    site.storage_class("hangs")
    site.storage_class("quick")
    site.fault(match="hanging", hang=True)
    for number in range(20):
        site.claim(f"hanging-{number}", "hangs")
    await site.start(retries=FEW, election=election)
    await site.until(lambda: len(site.driver.made("CreateVolume", running=True)) == 7)
    await site.rest(2)
    for number in range(10):
        site.claim(f"quick-{number}", "quick")
    await site.rest(1)
    assert len(site.objects.all(VOLUME)) == 10
    assert len(site.driver.made("CreateVolume", running=True)) == 7


async def test_clones_that_hang_leave_plain_volumes_their_worker(site: Installation) -> None:
    site.storage_class()
    site.claim("source")
    await site.start(retries=FEW)
    await site.bound("source")
    site.fault(match="clone", hang=True)
    for number in range(20):
        site.claim(f"clone-{number}", dataSource={"kind": "PersistentVolumeClaim", "name": "source"})
    await site.rest(2)
    for number in range(10):
        site.claim(f"plain-{number}")
    await site.rest(1)
    assert len(site.objects.all(VOLUME)) == 11


async def test_deletions_that_hang_leave_those_of_another_class_their_worker(site: Installation) -> None:
    site.storage_class("hangs")
    site.storage_class("quick")
    site.fault(rpc="DeleteVolume", match="hanging", hang=True)
    for number in range(20):
        released(site, f"hanging-{number}", storageClassName="hangs")
    await site.start(retries=FEW)
    await site.rest(2)
    for number in range(10):
        released(site, f"quick-{number}", storageClassName="quick")
    # Its finalizer is put on meanwhile, although the deletions of its class have no room.
    bound(site, "new", storageClassName="hangs", finalizers=())
    await site.rest(1)
    names = {volume["metadata"]["name"] for volume in site.objects.all(VOLUME)}
    assert not any(name.startswith("quick") for name in names)
    assert VOLUME_FINALIZER in site.finalizers(VOLUME, "new")
    assert len(site.driver.made("DeleteVolume", running=True)) == 7
