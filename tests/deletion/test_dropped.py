"""A PersistentVolume of ours goes without our DeleteVolume: its volume stays, and that is told (design.md 6)."""

from typing import Any

import pytest
from msgspec.structs import replace

from csi_provisioner.model.kubernetes import CSIVolumeSource
from csi_provisioner.planning import leftover
from csi_provisioner.planning.leftover import Leftover
from csi_provisioner.settings import ElectionSettings, NodeSettings, ProvisioningSettings
from tests.deletion.released import PROVISIONED_BY, bound, released
from tests.installation import VOLUME, Installation
from tests.journeys.objects import VOLUME_FINALIZER

LEASE = "sandbox-csi-example-com-dropped"
HERE = ElectionSettings(own_namespace="default")
# Its Leases are none of these tests' business.
NO_JOURNAL = ProvisioningSettings(extra_create_metadata=True, volume_journal="off")
PREFIX = "volume.kubernetes.io/provisioner-deletion-secret-"


def kept(site: Installation) -> list[Leftover]:
    lease = site.objects.find("Lease", LEASE, "default")
    if lease is None:
        return []
    found, strange = leftover.understood(leftover.read(lease["metadata"]["annotations"]), site.config.name)
    assert strange == 0
    return found


def remove(site: Installation, name: str = "pv") -> None:
    """An administrator deletes it, and takes off whatever holds it."""
    site.delete(VOLUME, name)
    if site.find(VOLUME, name) is not None:
        site.edit(VOLUME, name, lambda volume: volume["metadata"].update(finalizers=[]))


async def started(site: Installation, **more: Any) -> None:
    site.storage_class()
    await site.start(election=HERE, provisioning=NO_JOURNAL, **more)


async def test_a_retained_volume_whose_persistent_volume_is_deleted_is_told_once_counted_and_kept(
    site: Installation,
) -> None:
    handle = bound(site, persistentVolumeReclaimPolicy="Retain")
    await started(site)
    remove(site)
    event = await site.event("pv", "VolumeDropped")
    assert event["type"] == "Warning"
    for text in (handle, f"orphans --delete {handle}", f"orphans --adopt {handle}", "Retain"):
        assert text in event["message"]
    [line] = site.logged("its PersistentVolume is gone")
    assert line.keys["volumeID"] == handle
    await site.until(lambda: kept(site))
    [dropped] = kept(site)
    assert (dropped.kind, dropped.volume_id, dropped.name) == ("dropped", handle, "pv")
    assert dropped.claim == "default/claim-of-pv"
    await site.rest(600)
    assert event["count"] == 1
    assert (await site.metrics())["csi_provisioner_dropped_volumes_total"] == 1
    assert len([call for call in site.requests.of(kind="Lease") if call.verb in ("create", "update")]) == 1


async def test_a_volume_whose_finalizer_was_taken_off_is_told(site: Installation) -> None:
    handle = bound(site)
    await started(site)
    await site.until(lambda: VOLUME_FINALIZER in site.finalizers(VOLUME, "pv"))
    remove(site)
    await site.event("pv", "VolumeDropped")
    assert handle in site.driver.state.volumes
    assert site.calls("DeleteVolume") == []


async def test_what_it_takes_to_adopt_and_to_delete_it_is_kept(site: Installation) -> None:
    csi = {"driver": site.config.name, "fsType": "xfs", "volumeAttributes": {"share": "a"}}
    released(
        site,
        phase="Released",
        persistentVolumeReclaimPolicy="Retain",
        csi=csi | {"volumeHandle": "vol-1"},
        annotations={f"{PREFIX}name": "login", f"{PREFIX}namespace": "vault"},
    )
    await started(site)
    remove(site)
    await site.until(lambda: kept(site))
    [dropped] = kept(site)
    assert dropped.secret is not None
    assert (dropped.secret.namespace, dropped.secret.name) == ("vault", "login")
    assert dropped.spec is not None
    assert dropped.spec.claimRef is None
    assert dropped.spec.csi == CSIVolumeSource(site.config.name, "vol-1", "xfs", volumeAttributes={"share": "a"})


async def test_a_volume_that_we_delete_is_not_dropped(site: Installation) -> None:
    released(site)
    await started(site)
    await site.until(lambda: site.find(VOLUME, "pv") is None)
    await site.rest(60)
    assert site.events("pv", "VolumeDropped") == []
    assert kept(site) == []


@pytest.mark.parametrize("code", ["", "INTERNAL"])
@pytest.mark.parametrize("delay", [9.0, 25.0])
async def test_of_one_that_goes_while_the_driver_is_asked_its_answer_decides(
    site: Installation, code: str, delay: float
) -> None:
    released(site)
    site.fault(code, rpc="DeleteVolume", delay=delay)
    await started(site, call_timeout=60.0)
    await site.until(lambda: site.calls("DeleteVolume"))
    remove(site)
    await site.rest(60)
    assert len(site.events("pv", "VolumeDropped")) == bool(code)


async def test_one_that_a_leader_before_us_was_deleting_is_not_dropped(site: Installation) -> None:
    """Its finalizer is off: the driver has been asked."""
    released(site, finalizers=("example.com/hold",))
    site.delete(VOLUME, "pv")
    await started(site)
    site.edit(VOLUME, "pv", lambda volume: volume["metadata"].update(finalizers=[]))
    await site.rest(60)
    assert site.events("pv", "VolumeDropped") == []


@pytest.mark.parametrize("name", ["pv", "adopted"])
async def test_one_that_is_adopted_at_once_is_not_dropped(site: Installation, name: str) -> None:
    handle = bound(site, persistentVolumeReclaimPolicy="Retain")
    await started(site)
    remove(site)
    await site.rest(5)
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "csi": {"driver": site.config.name, "volumeHandle": handle},
    }
    site.objects.create(VOLUME, {"metadata": {"name": name}, "spec": spec})
    await site.rest(60)
    assert site.events("pv", "VolumeDropped") == []


async def test_one_that_was_made_by_hand_is_its_makers(site: Installation) -> None:
    bound(site, persistentVolumeReclaimPolicy="Retain")
    site.edit(VOLUME, "pv", lambda volume: volume["metadata"]["annotations"].pop(PROVISIONED_BY))
    await started(site)
    remove(site)
    await site.rest(60)
    assert site.events("pv", "VolumeDropped") == []


@pytest.mark.parametrize("zone", ["a", "b"])
async def test_each_node_tells_of_its_own(site: Installation, zone: str) -> None:
    plugin = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")
    site.kill_driver()
    await site.rest(1)
    await site.serve(replace(site.config, plugin=plugin, node_segment={"zone": "a"}))
    expression = {"key": "zone", "operator": "In", "values": [zone]}
    affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
    released(site, persistentVolumeReclaimPolicy="Retain", nodeAffinity=affinity)
    await started(site, nodes=NodeSettings(enabled=True, node_name="node-1"))
    remove(site)
    await site.rest(60)
    assert len(site.events("pv", "VolumeDropped")) == (zone == "a")


async def test_many_that_go_together_share_a_write_and_the_last_two_hundred_are_kept(site: Installation) -> None:
    names = [f"pv-{number:03}" for number in range(leftover.KEPT + 20)]
    for name in names:
        released(site, name, persistentVolumeReclaimPolicy="Retain", finalizers=())
    await started(site)
    for name in names:
        remove(site, name)
    await site.until(lambda: len(kept(site)) == leftover.KEPT)
    assert {dropped.name for dropped in kept(site)} == set(names[20:])
    assert len([call for call in site.requests.of(kind="Lease") if call.verb in ("create", "update")]) <= 2
    [lease] = site.objects.all("Lease")
    assert len(lease["metadata"]["annotations"][leftover.DROPPED]) < 32 << 10


async def test_what_is_kept_survives_a_restart_and_a_stop_comes_before_it_is_told(site: Installation) -> None:
    for name in ("one", "two"):
        released(site, name, persistentVolumeReclaimPolicy="Retain")
    await started(site)
    remove(site, "one")
    await site.until(lambda: kept(site))
    remove(site, "two")
    await site.until(lambda: site.find(VOLUME, "two") is None)
    await site.rest(1)
    assert await site.stop() == 0
    assert [dropped.name for dropped in kept(site)] == ["one", "two"]


async def test_an_api_server_that_does_not_take_it_is_asked_again(site: Installation) -> None:
    released(site, persistentVolumeReclaimPolicy="Retain")
    site.refuse("create", "Lease", times=3)
    await started(site)
    remove(site)
    await site.until(lambda: kept(site))
    assert len(site.logged("Leftover volumes cannot be noted")) == 1


async def test_what_somebody_scribbled_over_the_list_is_replaced_and_what_a_newer_version_wrote_stays(
    site: Installation,
) -> None:
    newer = {"metadata": {"name": LEASE, "annotations": {leftover.DROPPED: '{"x":{"what":1}}'}}}
    site.objects.create("Lease", newer, "default")
    for name in ("one", "two"):
        released(site, name, persistentVolumeReclaimPolicy="Retain")
    await started(site)
    remove(site, "one")

    def texts() -> list[str]:
        lease = site.objects.find("Lease", LEASE, "default")
        assert lease is not None
        return list(leftover.read(lease["metadata"]["annotations"]))

    await site.until(lambda: len(texts()) == 2)
    assert texts()[0] == "x"
    site.objects.edit(
        "Lease", LEASE, "default", change=lambda lease: lease["metadata"]["annotations"].update({leftover.DROPPED: "?"})
    )
    remove(site, "two")
    await site.until(lambda: site.logged("begins anew"))
    await site.until(lambda: [dropped.name for dropped in kept(site)] == ["two"])


async def test_without_a_namespace_it_is_told_and_kept_nowhere(site: Installation) -> None:
    released(site, persistentVolumeReclaimPolicy="Retain")
    site.storage_class()
    await site.start()
    remove(site)
    await site.event("pv", "VolumeDropped")
    assert site.objects.all("Lease") == []


async def test_a_suspect_is_kept_with_its_secret(site: Installation) -> None:
    site.secret("login", user="u1")
    prefix = "csi.storage.k8s.io/provisioner-secret"
    site.fault("INTERNAL", rpc="DeleteVolume")
    site.fault(times=1, capacity_delta=-1)
    site.storage_class(parameters={f"{prefix}-name": "login", f"{prefix}-namespace": "default"})
    site.claim()
    await site.start(election=HERE)
    await site.until(lambda: kept(site))
    [suspect] = kept(site)
    [volume] = site.driver.state.volumes.values()
    assert (suspect.kind, suspect.volume_id, suspect.name) == ("suspect", volume.id, volume.name)
    assert suspect.claim == "default/data"
    assert suspect.secret is not None
    assert suspect.secret.name == "login"
