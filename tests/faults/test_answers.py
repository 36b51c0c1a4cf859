"""Every request that the process makes is answered badly, once for each way to: it is an error of that request, said
without a traceback, and all else goes on (process.md 5.3)."""

from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from csi_provisioner.settings import CapacitySettings, ElectionSettings, Gates, ProvisioningSettings, RetrySettings
from sandbox.driver.config import CONTROLLER_CAPABILITIES, Config
from tests.bad_answers import BAD, Bad
from tests.deletion.released import attached, bound, released
from tests.faults.spoiler import spoiler
from tests.installation import ATTACHMENT, CLAIM, CLASS, NAMESPACE, VOLUME, Installation, installation
from tests.journeys.objects import VOLUME_FINALIZER, from_claim, from_snapshot

# What the start needs an answer to is told by tests of the start: any other answer ends the process (process.md 3)
AT_START = {
    "get pods",
    "create csistoragecapacities",
    "discover /apis/snapshot.storage.k8s.io/v1",
}
ONCE = ("discover /apis/storage.k8s.io/v1", "create selfsubjectaccessreviews")
SPOILED = {
    *(f"{verb} leases" for verb in ("get", "create", "update")),
    *(f"{verb} {plural}" for verb in ("list", "watch") for plural in (
        "persistentvolumeclaims", "persistentvolumes", "storageclasses", "volumeattachments", "nodes", "csinodes",
        "referencegrants", "csistoragecapacities",
    )),
    *(f"{verb} persistentvolumes" for verb in ("get", "create", "patch", "delete")),
    *(f"{verb} persistentvolumeclaims" for verb in ("get", "update")),
    *(f"{verb} volumesnapshots" for verb in ("get", "list", "update")),
    *(f"{verb} csistoragecapacities" for verb in ("create", "patch", "delete")),
    *(f"{verb} events" for verb in ("create", "patch")),
    "get volumesnapshotcontents",
    "get volumeattributesclasses",
    "get secrets",
    "create selfsubjectaccessreviews",
}  # fmt: skip
CONFIG = Config(
    plugin=("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS"),
    controller=(*CONTROLLER_CAPABILITIES, "PUBLISH_UNPUBLISH_VOLUME"),
)
SECRETS = {
    "csi.storage.k8s.io/provisioner-secret-name": "login",
    "csi.storage.k8s.io/provisioner-secret-namespace": NAMESPACE,
}
AT_ONCE = 5
"""An event that fails four times is dropped, a lease that is not renewed for 10 s is lost."""
CAPACITY = CapacitySettings(
    enabled=True, ownerref_level=0, namespace=NAMESPACE, pod_name="p", immediate_binding=True, poll_interval=600.0
)


@pytest.fixture
async def site(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, CONFIG) as one:
        yield one


def _before(site: Installation) -> None:
    site.cluster.node("n", site.config.name, zone="z")
    site.secret("login", password="x")
    site.storage_class("fast", parameters=SECRETS)
    site.objects.create("Pod", {"metadata": {"name": "p"}, "spec": {"containers": []}}, NAMESPACE)
    labels = {
        "csi.storage.k8s.io/drivername": site.config.name,
        "csi.storage.k8s.io/managed-by": "external-provisioner",
    }
    for name, class_name in (("surplus", "gone"), ("wrong", "fast")):
        segment = {"nodeTopology": {"matchLabels": {"acme.test/zone": "z"}}, "capacity": "1Gi"}
        obj = {"metadata": {"name": name, "labels": labels}, "storageClassName": class_name}
        site.objects.create("CSIStorageCapacity", obj | segment, NAMESPACE)
    released(site, "old")
    attached(site, "old")
    bound(site, "static", finalizers=())
    site.snapshot("snap")
    gold = {"metadata": {"name": "gold"}, "driverName": site.config.name, "parameters": {"iops": "1"}}
    site.objects.create("VolumeAttributesClass", gold)
    site.claim("source", volumeAttributesClassName="gold")


async def _everything(site: Installation) -> None:
    """What needs all kinds of requests."""
    await site.bound("source")
    site.claim("restored", **from_snapshot("snap"))
    site.claim("clone", **from_claim("source"))
    site.fault("INTERNAL", match="/failing$", times=3)
    site.claim("failing")
    await site.bound("restored", "clone", "failing")
    site.delete(CLAIM, "source")
    site.delete(ATTACHMENT, "attachment")
    await site.until(lambda: site.find(VOLUME, "old") is None)
    await site.until(lambda: site.find(CLAIM, "source") is None)
    await site.until(lambda: VOLUME_FINALIZER in site.finalizers(VOLUME, "static"))
    site.storage_class("new")
    await site.until(lambda: _published(site) == {"fast", "new"})
    site.claim("last")
    await site.bound("last")
    assert site.objects.all("Lease")[0]["spec"]["holderIdentity"]


def _published(site: Installation) -> set[str]:
    found = site.objects.all("CSIStorageCapacity")
    return {obj["storageClassName"] for obj in found if obj["capacity"] != "1Gi"}


@pytest.mark.parametrize("first", range(0, len(BAD), AT_ONCE))
async def test_all_else_goes_on(site: Installation, tmp_path: Path, first: int) -> None:
    """Each kind of request gets some bad answers in a row, before it gets a good one."""
    answers = [*BAD.values()][first : first + AT_ONCE]
    left: dict[str, list[Bad]] = defaultdict(answers.copy)
    for what in ONCE:
        left[what] = answers[3:4]  # one that does not say that there are no VolumeAttributesClasses
    start = set(AT_START)

    def spoil(what: str) -> bytes | None:
        if what in start:
            start.remove(what)
            return None
        return left[what].pop(0).raw if left[what] else None

    _before(site)
    async with spoiler(site.cluster.server.port, spoil) as between:
        text = site.cluster.server.kubeconfig_text()
        (tmp_path / "kubeconfig").write_text(text.replace(site.cluster.server.url, f"http://127.0.0.1:{between.port}"))
        await site.start(
            election=ElectionSettings(enabled=True, namespace=NAMESPACE),
            capacity=CAPACITY,
            gates=Gates(cross_namespace=True),
            provisioning=ProvisioningSettings(extra_create_metadata=True, cross_namespace=True),
            retries=RetrySettings(maximum=1.0, snapshot_sweep_interval=10.0),
        )
        await _everything(site)
        await site.until(lambda: not any(left.values()), limit=3600)
        assert await site.stop() == 0
    assert [line for line in site.lines if line.traceback] == []
    assert left.keys() >= SPOILED


async def test_objects_that_cannot_be_read_hide_no_others(site: Installation) -> None:
    site.cluster.node("n", site.config.name, zone="z")
    odd = {"metadata": {"name": "odd"}, "provisioner": site.config.name, "parameters": {"size": 5}}
    site.objects.create(CLASS, odd)
    site.storage_class()
    site.claim("hopeless", "odd")
    site.claim()
    await site.start()
    await site.bound("data")
    await site.rest(1000)
    [line] = site.logged("cannot be read")
    assert (line.keys["kind"], line.keys["objects"]) == (CLASS, "odd")
    site.objects.create(CLASS, odd | {"metadata": {"name": "odder"}})  # which the watch shows
    site.storage_class("next")
    site.claim("more", "next")
    await site.until(lambda: site.cluster.is_bound("more"), limit=60)
    assert [line.keys["objects"] for line in site.logged("cannot be read")] == ["odd", "odder"]
