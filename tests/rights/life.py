"""The life of a provisioner with every flag that needs a right, seen from outside: what works, one sight each.

It follows one that was killed while it made a volume, whose claim is gone. It stands by until the lease is given back,
leads, and everything is asked of it at once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import httpx2
import trio

from csi_provisioner import supervisor
from csi_provisioner.settings import (
    CapacitySettings,
    ElectionSettings,
    Gates,
    HttpSettings,
    ProvisioningSettings,
)
from sandbox.driver import GIB, Config, Pool
from sandbox.driver.config import CONTROLLER_CAPABILITIES
from tests.capacity.objects import MANAGER
from tests.deletion.released import attached, released
from tests.installation import ATTACHMENT, CLAIM, CLASS, NAMESPACE, SNAPSHOT, VOLUME, Installation
from tests.journeys.objects import CLONE_FINALIZER, SNAPSHOT_FINALIZER, from_claim, from_snapshot

Sights = dict[str, Callable[[], Any]]
ZONE = "acme.test/zone"
CONFIG = Config(
    plugin=("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS"),
    controller=(*CONTROLLER_CAPABILITIES, "PUBLISH_UNPUBLISH_VOLUME"),
    pools=(Pool({ZONE: "z-1"}, 100 * GIB, 50 * GIB),),
)
LEASE = CONFIG.name.replace(".", "-")
GROUPS: dict[str, Any] = {
    "provisioning": ProvisioningSettings(extra_create_metadata=True, cross_namespace=True),
    "election": ElectionSettings(enabled=True, namespace=NAMESPACE, own_namespace=NAMESPACE),
    "capacity": CapacitySettings(enabled=True, ownerref_level=2, namespace=NAMESPACE, pod_name="p-0"),
    "gates": Gates(cross_namespace=True),
    "http": HttpSettings(endpoint="127.0.0.1:0"),
}
SECRET_OF_A_CLASS = {
    "csi.storage.k8s.io/provisioner-secret-name": "login",
    "csi.storage.k8s.io/provisioner-secret-namespace": NAMESPACE,
}
TAKES_OVER = 1.0
"""Seconds until a standby that watches leads, once the lease is given back."""
PATIENCE = 150.0
"""Seconds for all that is asked: capacity is looked at every 60, a recovery waits for 25."""

FOLLOWED = {CLAIM, VOLUME, CLASS, ATTACHMENT, "Node", "CSINode", "ReferenceGrant", "CSIStorageCapacity"}

# What is seen while it works.
STARTS, LEADS, WORKS = "the process runs", "a replica leads", "claims get volumes"
READY, TAKEOVER = "the pod is ready", "a standby leads within a second"
CAPACITY, CHANGES = "capacity is published", "changes are seen at once"


async def losses(site: Installation, denied: Callable[[], None]) -> tuple[set[str], str]:
    """What is not seen once `denied` has taken a right away; and all that people are told, in the log and in events.

    Where nothing is worked on, only that.
    """
    _cluster(site)
    lost = await _killed(site)
    denied()
    site.lines.clear()
    mark = len(list(site.requests))
    ended: list[int] = []

    async def provisioner() -> None:
        ended.append(await supervisor.run(site.cluster.settings(CONFIG, **GROUPS), stop=trio.Event()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(provisioner)
        await site.rest(3)  # it stands by
        lacking = set[str]()
        at_once = await _takes_over(site)
        if ended:
            lacking = {STARTS}
        elif not site.logged("Became leader"):
            lacking = {LEADS}
        else:
            first = await _lacking(site, _first(site, mark, lost), PATIENCE)
            lacking = {WORKS} if WORKS in first else first | await _later(site)
            if not at_once:
                lacking.add(TAKEOVER)
        if not ended and not await is_ready(site):
            lacking.add(READY)
        nursery.cancel_scope.cancel()
    told = [f"{line.message} {line.keys}" for line in site.lines]
    return lacking, "\n".join([*told, *(event["message"] for event in site.objects.all("Event"))])


async def is_ready(site: Installation) -> bool:
    address = site.logged("Listening")[-1].keys["address"]
    async with httpx2.AsyncClient(trust_env=False) as http:
        return (await http.get(f"http://{address}/readyz")).status_code == 200


async def _lacking(site: Installation, sights: Sights, patience: float) -> set[str]:
    """Those that are not seen in time."""
    left = dict(sights)

    def all_seen() -> bool:
        for name in [name for name, seen in left.items() if seen()]:
            del left[name]
        return not left

    with trio.move_on_after(patience):
        await site.until(all_seen)
    return set(left)


# ---- before


def _cluster(site: Installation) -> None:
    site.cluster.node("node-1", CONFIG.name, zone="z-1")
    template = {"metadata": {"labels": {"app": "p"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"app": "p"}}, "template": template}
    above = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "p", "uid": "4-4", "controller": True}
    metadata = {"name": "p-77", "ownerReferences": [above]}
    site.objects.create("ReplicaSet", {"apiVersion": "apps/v1", "metadata": metadata, "spec": spec}, NAMESPACE)
    uid = site.objects.all("ReplicaSet")[0]["metadata"]["uid"]
    above = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "p-77", "uid": uid, "controller": True}
    pod = {"metadata": {"name": "p-0", "ownerReferences": [above]}, "spec": template["spec"]}
    site.objects.create("Pod", pod, NAMESPACE)
    site.storage_class()
    site.storage_class("secret", parameters=SECRET_OF_A_CLASS)
    site.cluster.storage_class("late", CONFIG.name)
    site.secret()
    gold = {"metadata": {"name": "gold"}, "driverName": CONFIG.name, "parameters": {"iops": "9000"}}
    site.objects.create("VolumeAttributesClass", gold)
    grant = {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "restore"},
        "spec": {
            "from": [{"group": "", "kind": CLAIM, "namespace": NAMESPACE}],
            "to": [{"group": "snapshot.storage.k8s.io", "kind": SNAPSHOT}],
        },
    }
    site.objects.create("Namespace", {"metadata": {"name": "shared"}})
    site.objects.create("ReferenceGrant", grant, "shared")


async def _killed(site: Installation) -> str:
    """Its last volume is made, and nobody but the journal knows. The driver's id of it."""
    site.fault("DEADLINE_EXCEEDED", match="/lost$", created=True)
    site.claim("lost")
    await site.start(**GROUPS)
    await site.until(lambda: site.driver.state.volumes)
    await site.kill()
    site.driver.faults.clear()
    site.delete(CLAIM, "lost")
    [lost] = site.driver.state.volumes
    return lost


def _asked(site: Installation) -> None:
    """All that people ask, at once."""
    site.snapshot("source")
    site.snapshot("left", finalizers=[SNAPSHOT_FINALIZER])
    site.snapshot("across", namespace="shared")
    for name in ("data", "origin", "failing"):
        site.claim(name)
    site.claim("restored", **from_snapshot("source"))
    site.claim("cloned", **from_claim("origin"))
    site.claim("attributed", volumeAttributesClassName="gold")
    site.claim("secret", "secret")
    site.claim("across", dataSourceRef=from_snapshot("across")["dataSource"] | {"namespace": "shared"})
    site.claim("full", "late", node="node-1")
    # A copy takes a moment, in which its source is protected.
    for name in ("restored", "cloned"):
        site.fault(match=f"/{name}$", delay=5.0)
    site.fault("INTERNAL", match="/failing$")
    site.fault("RESOURCE_EXHAUSTED", match="/full$")
    released(site, "attached")
    attached(site, "attached")
    labels = {"csi.storage.k8s.io/drivername": CONFIG.name, "csi.storage.k8s.io/managed-by": MANAGER}
    obsolete = {"storageClassName": "gone", "nodeTopology": {"matchLabels": {ZONE: "z-1"}}, "capacity": "1Gi"}
    site.objects.create(
        "CSIStorageCapacity", {"metadata": {"name": "obsolete", "labels": labels}} | obsolete, NAMESPACE
    )


async def _takes_over(site: Installation) -> bool:
    """The lease is given back. Whether it is taken at once; if not, it has some more time."""
    _asked(site)
    given_back = trio.current_time()
    change = {"holderIdentity": "", "leaseDurationSeconds": 1}
    if site.objects.find("Lease", LEASE, NAMESPACE) is not None:
        site.objects.edit("Lease", LEASE, NAMESPACE, change=lambda lease: lease["spec"].update(change))
    with trio.move_on_after(30):
        await site.until(lambda: site.logged("Became leader"))
    return trio.current_time() - given_back <= TAKES_OVER


# ---- what is seen


def _first(site: Installation, mark: int, lost: str) -> Sights:
    amounts: set[str] = set()

    def capacity(name: str = "") -> list[Any]:
        return [obj for obj in site.objects.all("CSIStorageCapacity") if name in ("", obj["metadata"]["name"])]

    def changed() -> bool:
        amounts.update(obj["capacity"] for obj in capacity() if obj["storageClassName"] == "late")
        return len(amounts) > 1

    def journal_written() -> bool:
        return any(
            call.kind == "Lease" and call.verb in ("create", "update") and call.code < 300 and "-journal-" in call.name
            for call in list(site.requests)[mark:]
        )

    def bound(name: str) -> Callable[[], bool]:
        return partial(site.cluster.is_bound, name)

    def held(kind: str, name: str, finalizer: str) -> bool:
        return finalizer in site.finalizers(kind, name)

    return {
        WORKS: lambda: site.calls("CreateVolume") and bound("data")(),
        "claims have events": lambda: site.events("data", "ProvisioningSucceeded"),
        "repeats of an event are counted": lambda: any(event["count"] > 1 for event in site.events("failing")),
        "claims from snapshots get volumes": bound("restored"),
        "snapshots are protected while they are restored": partial(held, SNAPSHOT, "source", SNAPSHOT_FINALIZER),
        "finalizers left on snapshots go": lambda: not held(SNAPSHOT, "left", SNAPSHOT_FINALIZER),
        "clones are made": bound("cloned"),
        "claims are protected while they are cloned": partial(held, CLAIM, "origin", CLONE_FINALIZER),
        "claims with a VolumeAttributesClass get volumes": bound("attributed"),
        "claims whose class names a secret get volumes": bound("secret"),
        "sources in other namespaces are used": bound("across"),
        "another node is chosen after a failure": lambda: not site.cluster.selected("full"),
        CAPACITY: lambda: any(obj["storageClassName"] == "late" for obj in capacity()),
        "capacity is brought up to date": changed,
        "capacity of classes that are gone goes": lambda: not capacity("obsolete"),
        CHANGES: lambda: {watch.call.kind for watch in site.api.watches} >= FOLLOWED,
        "the volume journal is kept": journal_written,
        "volumes that a killed leader had begun are deleted": lambda: lost not in site.driver.state.volumes,
    }


async def _later(site: Installation) -> set[str]:
    """Claims go; an attached volume waits, and goes once it is detached."""
    volume = site.get(CLAIM, "data")["spec"]["volumeName"]
    handle = site.get(VOLUME, volume)["spec"]["csi"]["volumeHandle"]
    lacking = set[str]()
    if site.find(VOLUME, "attached") is None:
        lacking.add("volumes stay while they are attached")
    site.delete(CLAIM, "data")
    site.delete(ATTACHMENT, "attachment")
    sights: Sights = {
        "volumes are deleted in the storage": lambda: handle not in site.driver.state.volumes,
        "PersistentVolumes go with their volumes": lambda: all(
            site.find(VOLUME, name) is None for name in (volume, "attached")
        ),
    }
    return lacking | await _lacking(site, sights, 120)
