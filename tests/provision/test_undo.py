"""An answer that cannot be used: the volume is deleted again, and the claim asked for again (provision.md 9.3, 9.4)."""

from typing import Any

import pytest
import trio
from msgspec.structs import replace

from csi_provisioner.settings import ElectionSettings
from tests.canary import held
from tests.installation import CLAIM, CLASS, NAMESPACE, VOLUME, Installation

TOO_SMALL: dict[str, Any] = {"capacity_delta": -1}


async def _made_unusable(site: Installation, *, spec: dict[str, Any] | None = None, **answer: Any) -> None:
    site.fault(times=1, **(answer or TOO_SMALL))
    site.storage_class()
    site.claim(**(spec or {}))
    await site.start()


async def test_a_volume_that_is_too_small_is_deleted_and_made_again(site: Installation) -> None:
    """provision.md 9.3."""
    await _made_unusable(site)
    failed = await site.event("data", "ProvisioningFailed")
    assert f"{(1 << 30) - 1} bytes" in failed["message"]
    assert f"{1 << 30} bytes" in failed["message"]
    await site.bound("data")
    assert [call.rpc for _, call in site.asked if "Volume" in call.rpc] == [
        "CreateVolume",
        "DeleteVolume",
        "CreateVolume",
    ]
    assert site.pauses() == [1.0]
    assert len(site.driver.state.volumes) == 1


async def test_a_volume_that_is_too_small_and_another_claims_is_left_alone(site: Installation) -> None:
    """provision.md 9.4: a driver that gives one id twice must not cost the first claim its data."""
    site.fault(times=1, volume_id="twin")
    site.fault(times=1, volume_id="twin", **TOO_SMALL)
    site.storage_class()
    site.claim("first")
    await site.start()
    await site.bound("first")
    site.claim()
    failed = await site.event("data", "ProvisioningFailed")
    assert f"PersistentVolume {site.volume_of('first')} (claim default/first) names it" in failed["message"]
    await site.bound("data")
    assert site.calls("DeleteVolume") == []


async def test_an_answer_that_names_no_volume_leaves_nothing_to_delete_quirk_3(site: Installation) -> None:
    """provision.md 9.3."""
    await _made_unusable(site, no_volume=True)
    failed = await site.event("data", "ProvisioningFailed")
    assert "does not say which volume" in failed["message"]
    await site.bound("data")
    assert len(site.requests.of("create", VOLUME)) == 1
    assert site.calls("DeleteVolume") == []
    assert len(site.calls()) == 2


@pytest.mark.parametrize("field", ["dataSource", "dataSourceRef"])
async def test_a_volume_without_its_content_source_is_deleted_p19_sources_3(site: Installation, field: str) -> None:
    """provision.md 9.3."""
    site.storage_class()
    site.claim("source")
    await site.start()
    await site.bound("source")
    site.fault(times=1, drop_content_source=True)
    site.claim(**{field: {"kind": "PersistentVolumeClaim", "name": "source"}})
    failed = await site.event("data", "ProvisioningFailed")
    assert "data source" in failed["message"]
    await site.bound("data")
    assert len(site.calls("DeleteVolume")) == 1
    assert len(site.driver.state.volumes) == 2


async def test_a_deleted_claim_whose_volume_was_unusable_is_asked_for_again(site: Installation) -> None:
    """provision.md 9.3."""
    site.fault(**TOO_SMALL)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(lambda: len(site.calls()) == 2)
    site.delete(CLAIM, "data")
    await site.rest(1)
    calls = len(site.calls())
    await site.until(lambda: len(site.calls()) == calls + 2)
    await site.until(lambda: site.driver.state.volumes == {})


@pytest.mark.parametrize("failures", [1, 2, 3, 4])
async def test_an_undo_is_repeated_until_the_volume_is_gone(site: Installation, failures: int) -> None:
    """provision.md 9.4."""
    site.fault("INTERNAL", rpc="DeleteVolume", times=failures)
    await _made_unusable(site)
    await site.bound("data")
    assert site.times("DeleteVolume") == [0.0] * (failures + 1)  # back to back
    assert site.logged("A volume may be left over") == []
    assert await _suspected(site) == 0


async def test_a_volume_that_has_no_in_tree_form_is_deleted_again_quirk_2(site: Installation) -> None:
    """The handle of this driver is not one that the in-tree plugin knows (provision.md 18)."""
    driver = "pd.csi.storage.gke.io"
    site.kill_driver()
    await site.rest(0.1)
    await site.serve(replace(site.config, name=driver))
    old = {"metadata": {"name": "old"}, "provisioner": "kubernetes.io/gce-pd", "volumeBindingMode": "Immediate"}
    site.objects.create(CLASS, old)
    site.claim("data", "old")
    moved = {"volume.kubernetes.io/storage-provisioner": driver, "pv.kubernetes.io/migrated-to": driver}
    site.edit(CLAIM, "data", lambda claim: claim["metadata"].setdefault("annotations", {}).update(moved))
    await site.start()
    failed = await site.event("data", "ProvisioningFailed")
    assert "as a volume of kubernetes.io/gce-pd" in failed["message"]
    assert "deleting it again failed" not in failed["message"]
    await site.until(lambda: site.calls("DeleteVolume"))
    assert site.driver.state.volumes == {}


async def test_an_undo_that_fails_five_times_is_logged_counted_and_told_p19_sources_3(site: Installation) -> None:
    """provision.md 9.4."""
    site.fault("INTERNAL", rpc="DeleteVolume")
    site.fault(times=2, **TOO_SMALL)
    site.storage_class()
    site.claim()
    await site.start()
    failed = await site.event("data", "ProvisioningFailed")
    assert len(site.calls("DeleteVolume")) == 5
    [volume] = site.driver.state.volumes.values()
    for fact in (volume.id, volume.name, "deleting it again failed", "attempt 1", "next try in 1 s"):
        assert fact in failed["message"]
    await site.bound("data")
    # the second time it is the same volume: not said again
    [line] = site.logged("A volume may be left over")
    assert line.level == "WARNING"
    assert line.keys["volumeID"] == volume.id
    assert line.keys["volume"] == volume.name
    assert line.keys["claim"] == f"{NAMESPACE}/data"
    assert line.keys["driver"] == site.config.name
    assert await _suspected(site) == 1


async def test_a_volume_left_over_that_was_said_with_its_id_is_not_said_again_without(site: Installation) -> None:
    """The claim goes, and the process ends before another try (provision.md 9.4)."""
    site.fault("INTERNAL", rpc="DeleteVolume")
    site.fault(**TOO_SMALL)
    site.storage_class()
    site.claim()
    await site.start()
    await site.event("data", "ProvisioningFailed")
    site.delete(CLAIM, "data")
    await site.stop()
    [volume] = site.driver.state.volumes.values()
    [line] = site.logged("A volume may be left over")
    assert line.keys["volumeID"] == volume.id


async def test_all_tries_of_an_undo_share_one_deadline(site: Installation) -> None:
    """provision.md 9.4."""
    site.fault("INTERNAL", rpc="DeleteVolume", delay=4.0)
    await _made_unusable(site)
    failed = await site.event("data", "ProvisioningFailed")
    assert site.times("DeleteVolume") == [0.0, 4.0, 8.0]
    assert "not done within 10 s" in failed["message"]
    await site.bound("data")
    assert site.times()[1] == pytest.approx(11.0, abs=0.1)


async def test_an_undo_gives_the_secrets_of_the_creation(site: Installation) -> None:
    """provision.md 9.4."""
    site.secret("login", user="u1")
    prefix = "csi.storage.k8s.io/provisioner-secret"
    site.fault(times=1, **TOO_SMALL)
    site.storage_class(parameters={f"{prefix}-name": "login", f"{prefix}-namespace": NAMESPACE})
    site.claim()
    await site.start()
    await site.bound("data")
    assert site.calls("DeleteVolume")[0].request.secrets == held(user="u1")


async def test_an_undo_is_not_cut_by_a_stop(site: Installation) -> None:
    """Not even where nothing else is waited for (provision.md 9.4)."""
    site.fault(gate="undo", rpc="DeleteVolume", times=1)
    site.fault(times=1, **TOO_SMALL)
    site.storage_class()
    site.claim()
    await site.start(shutdown_grace=5.0)
    await site.until(lambda: site.calls("DeleteVolume"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.stop)
        await site.rest(4)
        site.driver.faults.gate("undo").set()
    assert site.driver.state.volumes == {}
    assert site.calls("DeleteVolume")[0].code == "OK"


async def _undone_as_leader(site: Installation) -> None:
    site.fault(rpc="DeleteVolume", hang=True)
    site.fault(times=1, **TOO_SMALL)
    site.storage_class()
    site.claim()
    await site.start(election=ElectionSettings(enabled=True, namespace=NAMESPACE), call_timeout=20.0)
    await site.until(lambda: site.calls("DeleteVolume"))


async def test_an_undo_of_a_leader_has_its_full_time(site: Installation) -> None:
    """provision.md 9.4."""
    await _undone_as_leader(site)
    failed = await site.event("data", "ProvisioningFailed")
    assert "not done within 20 s" in failed["message"]


async def test_an_undo_under_a_lost_lease_ends_before_another_may_lead(site: Installation) -> None:
    """design.md 3, rule 9: the lease duration minus the renew deadline (provision.md 9.4)."""
    await _undone_as_leader(site)
    renewed = [call.at for call in site.requests if call.kind == "Lease" and call.verb in ("create", "update")][-1]
    site.refuse("*", "Lease")
    assert await site.ended() == 1
    assert trio.current_time() == pytest.approx(renewed + 15, abs=0.3)
    [line] = site.logged("A volume may be left over")
    assert "not done within 1" in str(line.keys["reason"])


async def test_an_undo_does_not_hold_up_the_work_of_a_driver_that_came_back_changed(site: Installation) -> None:
    """provision.md 9.4."""
    site.fault(rpc="DeleteVolume", hang=True)
    site.fault(times=1, **TOO_SMALL)
    site.storage_class()
    site.claim()
    await site.start(call_timeout=600.0)
    await site.until(lambda: site.calls("DeleteVolume"))
    site.kill_driver()
    await site.rest(1)
    site.driver.faults.clear()
    await site.serve(replace(site.config, controller=("CREATE_DELETE_VOLUME",)))
    since = trio.current_time()
    await site.bound("data")
    assert trio.current_time() - since < 10


async def _suspected(site: Installation) -> float:
    return (await site.metrics()).get("csi_provisioner_suspected_orphans_total", 0.0)
