"""Caches, events and the lease against a real API server; what is read and told, with the provisioner's own rights."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import trio

from csi_provisioner.kube.client import KubeClient, Scope, connect, resolve
from csi_provisioner.kube.election import LeaderElector
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.kube.reflector import Reflector
from csi_provisioner.kube.store import Store
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import Lease, PersistentVolume, PersistentVolumeClaim
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.wellknown import STORAGE_PROVISIONER
from csi_provisioner.settings import ClusterSettings, ElectionSettings
from csi_provisioner.supervisor.caches import caches_for
from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.cluster


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    name = f"kube-{uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", name)
    return name


@asynccontextmanager
async def client_of(plane: ControlPlane, user: str) -> AsyncIterator[KubeClient]:
    settings = ClusterSettings(kubeconfig=str(plane.kubeconfig(user)))
    client = connect(resolve(settings), user_agent="test/1")
    yield client
    client.close()


def claim(name: str, namespace: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "none"}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


class Waiter:
    """Lets a test wait for what a store shows."""

    def __init__(self, store: Store[PersistentVolumeClaim]) -> None:
        self._changed = trio.Event()
        store.subscribe(lambda _key, _old, _new: self._changed.set())

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(60):
            while not condition():
                await self._changed.wait()
                self._changed = trio.Event()


async def test_a_store_follows_through_paging_and_a_killed_server(control_plane: ControlPlane, namespace: str) -> None:
    store: Store[PersistentVolumeClaim] = Store(index="uid")
    waiter = Waiter(store)
    async with (
        client_of(control_plane, "admin") as admin,
        client_of(control_plane, "provisioner") as client,
        trio.open_nursery() as nursery,
    ):
        make = partial(admin.create, PersistentVolumeClaim, namespace=namespace)
        for number in range(7):
            await make(claim(f"c{number}", namespace))
        reflector = Reflector(client, PersistentVolumeClaim, store, Scope(namespace), page=3)
        await nursery.start(reflector.run)
        assert len(store) == 7

        written = await make(claim("ours", namespace))
        store.remember(written)
        assert store.get(f"{namespace}/ours") is not None, "by our answer or by the watch, whichever came first"
        await waiter.until(lambda: store.get(f"{namespace}/ours") is not written)
        await admin.delete(PersistentVolumeClaim, "c0", namespace)
        await waiter.until(lambda: f"{namespace}/c0" not in store)
        store.remember(written)
        assert store.get(f"{namespace}/ours") is not written, "the watch has shown it"

        control_plane.restart_apiserver()
        await make(claim("late", namespace))
        await admin.delete(PersistentVolumeClaim, "c1", namespace)
        await waiter.until(lambda: f"{namespace}/late" in store and f"{namespace}/c1" not in store)
        assert len(store) == 7
        nursery.cancel_scope.cancel()


async def test_what_has_settled_is_known_through_a_killed_server(control_plane: ControlPlane, namespace: str) -> None:
    driver, name = f"{namespace}.test", f"v-{namespace}"
    caches = caches_for(DriverFacts(driver), None, holds_claim=lambda _uid: False, holds_volume=lambda _name: False)
    bound = claim("data", namespace)
    bound["metadata"]["annotations"] = {STORAGE_PROVISIONER: driver}
    bound["spec"] |= {"storageClassName": "", "volumeName": name}
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Retain"}
    spec |= {"csi": {"driver": driver, "volumeHandle": "h"}, "claimRef": {"namespace": namespace, "name": "data"}}
    waiter = Waiter(caches.claims)
    async with (
        client_of(control_plane, "admin") as admin,
        client_of(control_plane, "provisioner") as client,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(Reflector(client, PersistentVolumeClaim, caches.claims).run)
        await nursery.start(Reflector(client, PersistentVolume, caches.volumes).run)
        volume = await admin.create(PersistentVolume, {"metadata": {"name": name}, "spec": spec})
        made = await admin.create(PersistentVolumeClaim, bound, namespace)
        key, uid = f"{namespace}/data", made.metadata.uid
        await waiter.until(lambda: caches.claims.knows(key, uid) and caches.claims.by_uid(uid) is None)
        control_plane.restart_apiserver()
        await admin.patch(PersistentVolumeClaim, "data", {"metadata": {"labels": {"a": "b"}}}, namespace)
        assert caches.claims.knows(key, uid)
        assert caches.volumes.knows(name, volume.metadata.uid)
        assert [each.metadata.name for each in caches.volumes.sharing("h")] == [name]
        await admin.delete(PersistentVolumeClaim, "data", namespace)
        await waiter.until(lambda: not caches.claims.knows(key, uid))
        await admin.delete(PersistentVolume, name)
        nursery.cancel_scope.cancel()


async def test_events_are_what_people_see(control_plane: ControlPlane, namespace: str) -> None:
    volume = {
        "metadata": {"name": f"v-{namespace}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "none", "volumeHandle": "v"},
        },
    }
    async with (
        client_of(control_plane, "admin") as admin,
        client_of(control_plane, "provisioner") as client,
        trio.open_nursery() as nursery,
    ):
        about = await admin.create(PersistentVolumeClaim, claim("c", namespace), namespace)
        made = await admin.create(PersistentVolume, volume)
        recorder = EventRecorder(client, "d_host_1")
        await nursery.start(recorder.run)
        recorder.record(made, "Warning", "VolumeFailedDelete", "attached")
        for attempt in range(3):
            recorder.record(about, "Warning", "ProvisioningFailed", f"attempt {attempt}", "Internal")
            with trio.fail_after(30):
                await recorder.wait_written()
        await admin.delete(PersistentVolume, made.metadata.name)
        nursery.cancel_scope.cancel()
    events = json.loads(control_plane.kubectl("get", "events", "-n", namespace, "-o", "json"))["items"]
    (event,) = (e for e in events if e["source"]["component"] == "d_host_1")
    assert (event["count"], event["message"], event["type"]) == (3, "attempt 2", "Warning")
    assert event["involvedObject"]["uid"] == about.metadata.uid
    assert event["reportingComponent"] == "d_host_1"
    assert made.metadata.name in control_plane.kubectl("get", "events", "-n", "default")


async def test_a_lease_is_taken_renewed_given_back_and_taken_again(control_plane: ControlPlane) -> None:
    namespace, name = "default", f"lock-{uuid4().hex[:8]}"
    settings = ElectionSettings(enabled=True, namespace=namespace, retry_period=0.2, labels=(("team", "storage"),))
    async with client_of(control_plane, "admin") as client:
        for term, identity in enumerate("ab"):
            terms: list[Lease] = []

            async def lead(terms: list[Lease] = terms) -> None:
                while not terms or terms[0].spec.renewTime == terms[-1].spec.renewTime:
                    terms.append(await client.get(Lease, name, namespace))

            elector = LeaderElector(client, settings, name=name, identity=identity, metrics=Metrics())
            with trio.fail_after(30):
                await elector.run(lead)
            assert (terms[-1].spec.holderIdentity, terms[-1].spec.leaseTransitions) == (identity, term)
            assert terms[-1].metadata.labels == {"team": "storage"}
            assert (await client.get(Lease, name, namespace)).spec.holderIdentity == ""
