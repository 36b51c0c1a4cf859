"""The sweep of finalizers that were left on snapshots (provision.md 12.3)."""

from typing import Any

import msgspec
import pytest
import trio

from csi_provisioner.kube.client import connect, resolve
from csi_provisioner.planning.sources import Readers
from csi_provisioner.protection.snapshots import sweep_forever
from csi_provisioner.settings import ClusterSettings, Gates, ProvisioningSettings, RetrySettings
from sandbox.driver.config import CONTROLLER_CAPABILITIES
from tests.installation import CLAIM, CLASS, CONTENT, NAMESPACE, SECRET, SNAPSHOT, Installation
from tests.journeys.objects import SNAPSHOT_FINALIZER, from_snapshot

SECRET_PARAMETERS = {
    "csi.storage.k8s.io/provisioner-secret-name": "login",
    "csi.storage.k8s.io/provisioner-secret-namespace": NAMESPACE,
}
OTHERS = ["example.com/first", "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"]


def _left(site: Installation, name: str) -> None:
    """A snapshot that somebody crashed over."""
    site.snapshot(name, finalizers=[OTHERS[0], SNAPSHOT_FINALIZER, OTHERS[1]])


def _held(site: Installation, name: str) -> bool:
    return SNAPSHOT_FINALIZER in site.finalizers(SNAPSHOT, name)


def _lists(site: Installation) -> list[float]:
    """When snapshots were listed, in seconds from the first time: the first one asks whether we may."""
    at = [call.at for call in site.requests.of("list", SNAPSHOT)]
    return [round(when - at[0]) for when in at]


async def test_snapshots_are_swept_at_once_and_then_every_interval_p19_sources_7(site: Installation) -> None:
    """provision.md 12.3."""
    _left(site, "early")
    await site.start()
    await site.until(lambda: not _held(site, "early"), limit=1)
    assert site.finalizers(SNAPSHOT, "early") == OTHERS
    _left(site, "late")
    await site.rest(290)
    assert _held(site, "late")
    await site.until(lambda: not _held(site, "late"), limit=11)
    await site.rest(601)
    assert _lists(site) == [0, 0, 300, 600, 900]


async def test_the_interval_of_the_sweep_is_that_of_the_flag(site: Installation) -> None:
    """provision.md 12.3."""
    await site.start(retries=RetrySettings(snapshot_sweep_interval=60.0))
    await site.rest(130)
    assert _lists(site) == [0, 0, 60, 120]


@pytest.mark.parametrize("interval", [0.0, -1.0])
async def test_the_sweep_can_be_switched_off(site: Installation, interval: float) -> None:
    """provision.md 12.3."""
    _left(site, "snap")
    await site.start(retries=RetrySettings(snapshot_sweep_interval=interval))
    await site.rest(1000)
    assert _lists(site) == []
    assert _held(site, "snap")


async def test_a_driver_that_cannot_restore_needs_no_sweep(site: Installation) -> None:
    """provision.md 12.3."""
    without = tuple(name for name in CONTROLLER_CAPABILITIES if name != "CREATE_DELETE_SNAPSHOT")
    site.kill_driver()
    await site.rest(0.1)
    await site.serve(msgspec.structs.replace(site.config, controller=without))
    await site.start()
    await site.rest(1000)
    assert _lists(site) == []


async def test_without_the_right_to_list_the_sweep_is_off_quietly(site: Installation) -> None:
    """provision.md 12.3."""
    site.refuse("list", SNAPSHOT, 403)
    await site.start()
    await site.rest(1000)
    assert _lists(site) == [0]
    assert [line for line in site.lines if line.level in ("WARNING", "ERROR")] == []


async def test_a_failing_list_ends_one_sweep_only_quirk_5(site: Installation) -> None:
    """provision.md 12.3."""
    _left(site, "snap")
    site.refuse("list", SNAPSHOT, 500, skip=1, times=1)
    await site.start()
    await site.rest(100)
    assert _held(site, "snap")
    [line] = site.logged("Could not look for orphaned finalizers")
    assert line.level == "WARNING"
    await site.until(lambda: not _held(site, "snap"), limit=210)


async def test_trouble_with_the_first_question_does_not_end_the_sweep(site: Installation) -> None:
    """provision.md 12.3."""
    _left(site, "snap")
    site.refuse("list", SNAPSHOT, 500, times=1)
    await site.start()
    await site.until(lambda: not _held(site, "snap"), limit=1)


async def test_a_cluster_that_does_not_serve_snapshots_yet_is_looked_at_again(site: Installation) -> None:
    """They may be installed later, and an API server that has just started serves its own kinds first."""
    _left(site, "snap")
    kind = site.objects.kinds.named(SNAPSHOT)
    site.objects.kinds.remove(kind)
    await site.start()
    await site.rest(400)
    site.objects.kinds.add(kind)
    await site.until(lambda: not _held(site, "snap"), limit=201)


USES: dict[str, dict[str, Any]] = {
    "source": from_snapshot("snap"),
    "reference": {"dataSourceRef": from_snapshot("snap")["dataSource"]},
}


@pytest.mark.parametrize("use", USES)
async def test_an_unfinished_claim_holds_its_snapshot(site: Installation, use: str) -> None:
    """Of any provisioner: this one's class does not exist (provision.md 12.3)."""
    _left(site, "snap")
    site.claim("waits", "nobodys", **USES[use])
    await site.start()
    await site.rest(1000)
    assert _held(site, "snap")
    site.delete(CLAIM, "waits")
    await site.until(lambda: not _held(site, "snap"), limit=301)


async def test_a_bound_claim_does_not_hold_its_snapshot(site: Installation) -> None:
    """provision.md 12.3."""
    site.storage_class()
    site.snapshot("snap")
    site.claim(**from_snapshot("snap"))
    await site.start()
    await site.bound("data")
    site.edit(SNAPSHOT, "snap", lambda snapshot: snapshot["metadata"].update(finalizers=[SNAPSHOT_FINALIZER]))
    await site.until(lambda: not _held(site, "snap"), limit=301)


async def test_a_snapshot_of_the_same_name_elsewhere_is_swept(site: Installation) -> None:
    """provision.md 12.3."""
    site.objects.create("Namespace", {"metadata": {"name": "elsewhere"}})
    _left(site, "snap")
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "none"}
    there = {"metadata": {"name": "waits"}, "spec": spec | from_snapshot("snap")}
    site.objects.create(CLAIM, there, "elsewhere")
    await site.start()
    await site.until(lambda: not _held(site, "snap"), limit=1)


async def test_a_reference_across_namespaces_holds_a_snapshot(site: Installation) -> None:
    """Held while the claim is unfinished; not released with its volume (9.6) but by the next sweep
    (provision.md 12.3)."""
    site.objects.create("Namespace", {"metadata": {"name": "shared"}})
    grant = {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "restore"},
        "spec": {
            "from": [{"group": "", "kind": CLAIM, "namespace": NAMESPACE}],
            "to": [{"group": "snapshot.storage.k8s.io", "kind": SNAPSHOT}],
        },
    }
    site.objects.create("ReferenceGrant", grant, "shared")
    site.snapshot("snap", namespace="shared")
    site.storage_class()
    site.fault("INTERNAL")
    reference = from_snapshot("snap")["dataSource"] | {"namespace": "shared"}
    site.claim(dataSourceRef=reference)
    gates, provisioning = Gates(cross_namespace=True), ProvisioningSettings(cross_namespace=True)
    await site.start(gates=gates, provisioning=provisioning)

    def held() -> bool:
        found = site.objects.find(SNAPSHOT, "snap", "shared") or {"metadata": {}}
        return SNAPSHOT_FINALIZER in found["metadata"].get("finalizers", [])

    await site.until(site.calls)
    await site.rest(700)
    assert held()
    site.driver.faults.clear()
    await site.bound("data")
    assert held()
    await site.until(lambda: not held(), limit=301)


async def test_a_deleted_claim_whose_volume_may_be_made_holds_its_snapshot(site: Installation) -> None:
    """provision.md 12.3."""
    site.storage_class()
    site.snapshot("snap")
    site.fault("DEADLINE_EXCEEDED")
    site.claim(**from_snapshot("snap"))
    await site.start()
    await site.until(site.calls)
    site.delete(CLAIM, "data")
    await site.rest(1000)
    assert site.find(CLAIM, "data") is None
    assert _held(site, "snap")


@pytest.mark.parametrize("kind", [SECRET, CLASS])
async def test_a_deleted_claim_that_is_asked_for_no_more_does_not_hold_its_snapshot(
    site: Installation, kind: str
) -> None:
    """As when a namespace is deleted with all that is in it: it must not wait for this snapshot for ever
    (provision.md 12.3)."""
    site.storage_class(parameters=SECRET_PARAMETERS)
    site.secret("login", password="x")
    site.snapshot("snap")
    site.fault("DEADLINE_EXCEEDED")
    site.claim(**from_snapshot("snap"))
    await site.start()
    await site.until(lambda: len(site.calls()) == 2)
    for gone, name in ((CLAIM, "data"), (SNAPSHOT, "snap"), (kind, "login" if kind == SECRET else "fast")):
        site.delete(gone, name)
    await site.until(lambda: site.find(SNAPSHOT, "snap") is None, limit=601)


@pytest.mark.parametrize(("code", "level"), [(404, None), (409, None), (403, "INFO"), (500, "WARNING")])
async def test_a_write_that_fails_is_left_to_the_next_sweep(site: Installation, code: int, level: str | None) -> None:
    """provision.md 12.3."""
    _left(site, "one")
    _left(site, "two")
    site.refuse("update", SNAPSHOT, code, times=1, name="one")
    await site.start()
    await site.until(lambda: not _held(site, "two"), limit=1)
    assert _held(site, "one")
    assert [line.level for line in site.logged("Could not take our finalizer off")] == ([level] if level else [])
    await site.until(lambda: not _held(site, "one"), limit=301)


async def test_snapshots_of_other_drivers_are_left_to_their_provisioners(site: Installation) -> None:
    """Which alone know what is still being made for claims that are gone (provision.md 12.3)."""
    for name in ("ours", "theirs", "without"):
        _left(site, name)
    site.edit(CONTENT, "content-of-theirs", lambda content: content["spec"].update(driver="other.example.com"))
    site.delete(CONTENT, "content-of-without")
    await site.start()
    await site.until(lambda: not (_held(site, "ours") or _held(site, "without")), limit=1)
    await site.rest(1000)
    assert _held(site, "theirs")


async def test_a_content_that_cannot_be_read_is_left_to_the_next_sweep(site: Installation) -> None:
    """provision.md 12.3."""
    _left(site, "snap")
    site.refuse("get", CONTENT, 500, times=1)
    await site.start()
    await site.rest(290)
    assert _held(site, "snap")
    await site.until(lambda: not _held(site, "snap"), limit=11)


async def test_a_claim_that_comes_while_contents_are_read_keeps_its_snapshot(site: Installation) -> None:
    """It finds our finalizer there, and so writes none (provision.md 12.3)."""
    _left(site, "snap")
    site.refuse("get", CONTENT, 0, delay=5.0, times=1)
    await site.start()
    await site.until(lambda: len(site.requests.of("list", SNAPSHOT)) == 2)
    site.claim("waits", "nobodys", **from_snapshot("snap"))
    await site.rest(1000)
    assert _held(site, "snap")


async def test_a_change_between_list_and_write_is_not_overwritten(site: Installation) -> None:
    """provision.md 12.3."""
    _left(site, "snap")
    site.refuse("update", SNAPSHOT, 0, delay=1.0, times=1)
    await site.start()
    await site.until(lambda: site.requests.of("update", SNAPSHOT))
    site.touch(SNAPSHOT, "snap", "a")
    await site.rest(10)
    assert _held(site, "snap")
    await site.until(lambda: not _held(site, "snap"), limit=301)
    assert site.get(SNAPSHOT, "snap")["metadata"]["labels"] == {"touched": "a"}


async def test_a_sweep_reads_more_than_one_page(site: Installation) -> None:
    """provision.md 12.3."""
    for number in range(520):
        site.objects.create(
            SNAPSHOT,
            {
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": SNAPSHOT,
                "metadata": {"name": f"snap-{number}", "finalizers": [SNAPSHOT_FINALIZER] if number > 510 else []},
                "spec": {"source": {"persistentVolumeClaimName": "data"}},
            },
            NAMESPACE,
        )
    await site.start()
    await site.until(lambda: not any(_held(site, f"snap-{number}") for number in range(520)), limit=5)


async def test_a_defect_costs_one_sweep(site: Installation) -> None:
    _left(site, "snap")
    defects = [ZeroDivisionError()]

    def readers() -> Readers:
        if defects:
            raise defects.pop()
        return Readers((), {})

    kube = connect(resolve(ClusterSettings(master=site.cluster.server.url)), user_agent="test")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweep_forever, kube, site.config.name, readers, 10.0)
        await site.until(lambda: not _held(site, "snap"), limit=11)
        nursery.cancel_scope.cancel()
    kube.close()
