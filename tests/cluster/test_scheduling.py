"""Late binding with the real scheduler: nodes, CSINodes and pods are objects, nothing runs on them.

The driver has a pool of storage in each of two zones, one node each, and the provisioner comes with the rights of
`kustomize/`. Everything is on the cluster's clock.
"""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from csi_provisioner import supervisor
from csi_provisioner.settings import (
    CapacitySettings,
    ClusterSettings,
    CsiSettings,
    ProvisioningSettings,
    RetrySettings,
    Settings,
)
from sandbox.driver import GIB, Config, Driver, Fault, Pool
from tests.cluster.controlplane import ControlPlane
from tests.sandbox.api.client import CLAIMS, CLASSES, EVENTS, VOLUMES, Api, Object
from tests.sandbox.api.conftest import entering

pytestmark = pytest.mark.cluster

SELECTED = "volume.kubernetes.io/selected-node"
PLUGIN = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")
NODES, CSINODES, CSIDRIVERS = "/api/v1/nodes", "/apis/storage.k8s.io/v1/csinodes", "/apis/storage.k8s.io/v1/csidrivers"
PODS = "/api/v1/namespaces/{ns}/pods"
CAPACITIES = "/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities"
PATIENCE = 90.0
PUBLISHING = CapacitySettings(enabled=True, ownerref_level=-1, namespace="default")


@dataclass
class Stage:
    """A cluster of two zones, as much of it as concerns the volumes of one driver."""

    api: Api
    driver: Driver
    settings: Settings
    nursery: trio.Nursery

    @property
    def name(self) -> str:
        return self.driver.config.name

    @property
    def key(self) -> str:
        return f"{self.name}/zone"

    def provision(self, **groups: Any) -> None:
        given: dict[str, Any] = {"csi": self.settings.csi, "cluster": self.settings.cluster}
        given["provisioning"] = ProvisioningSettings(strict_topology=True)
        given["retries"] = RetrySettings(start=0.2)
        self.nursery.start_soon(partial(supervisor.run, Settings(**(given | groups)), stop=trio.Event()))

    def node(self, zone: str) -> str:
        return self.api.unique(f"node-{zone}")

    async def build(self, *zones: str, capacity: bool) -> None:
        size = {"cpu": "4", "memory": "8Gi", "pods": "110"}
        for zone in zones:
            name = self.node(zone)
            status = {"capacity": size, "allocatable": size}
            labels = {self.key: zone, "stage": self.api.ns}
            await self.api.create(NODES, {"metadata": {"name": name, "labels": labels}, "status": status})
            entry = {"name": self.name, "nodeID": name, "topologyKeys": [self.key]}
            await self.api.create(CSINODES, {"metadata": {"name": name}, "spec": {"drivers": [entry]}})
        await self.api.create(
            CSIDRIVERS,
            {"metadata": {"name": self.name}, "spec": {"attachRequired": False, "storageCapacity": capacity}},
        )
        mode = {"provisioner": self.name, "volumeBindingMode": "WaitForFirstConsumer"}
        await self.api.create(CLASSES, {"metadata": {"name": self.api.unique("late")}} | mode)

    async def pod(self, name: str, size: str = "1Gi") -> None:
        """A pod with a claim of its own, both of this name; only the nodes of this stage are for it."""
        claim = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": self.api.unique("late"),
            "resources": {"requests": {"storage": size}},
        }
        await self.api.create(CLAIMS, {"metadata": {"name": name}, "spec": claim})
        spec = {
            "nodeSelector": {"stage": self.api.ns},
            "tolerations": [{"operator": "Exists"}],  # no kubelet ever calls these nodes ready
            "containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}],
        }
        await self.api.create(PODS, {"metadata": {"name": name}, "spec": spec})

    async def until(self, path: str, holds: Callable[[Object], Any]) -> Object:
        found: Object = {}
        with trio.move_on_after(PATIENCE):
            while True:
                found = await self.api.get(path)
                if holds(found):
                    return found
                await trio.sleep(0.1)
        raise AssertionError(f"{path} after {PATIENCE:g} s: {found}, {await self.messages()}")

    async def placed(self, name: str) -> tuple[str, Object]:
        """The node of a pod, once it has one, and the claim's volume."""
        pod = await self.until(f"{PODS}/{name}", lambda pod: pod["spec"].get("nodeName"))
        claim = await self.until(f"{CLAIMS}/{name}", lambda claim: claim["status"].get("phase") == "Bound")
        return pod["spec"]["nodeName"], await self.api.get(f"{VOLUMES}/{claim['spec']['volumeName']}")

    async def selected(self, name: str) -> str:
        found = await self.until(
            f"{CLAIMS}/{name}", lambda claim: claim["metadata"].get("annotations", {}).get(SELECTED)
        )
        return str(found["metadata"]["annotations"][SELECTED])

    async def messages(self) -> list[str]:
        return [f"{event['reason']}: {event['message']}" for event in (await self.api.get(EVENTS))["items"]]

    def zone_of(self, volume: Object) -> str:
        [term] = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
        [expression] = term["matchExpressions"]
        assert expression["key"] == self.key
        return str(expression["values"][0])


@asynccontextmanager
async def staged(
    plane: ControlPlane, folder: Path, sizes: dict[str, int], *, capacity: bool = False
) -> AsyncIterator[Stage]:
    """`capacity`: the scheduler looks at what is published, and at nothing else."""
    trust = ssl.create_default_context(cafile=str(plane.ca_file))
    async with entering(plane.server, forget=lambda: None, token=plane.tokens["admin"], trust=trust) as api:
        name = f"{api.ns}.csi.example.com"
        pools = tuple(Pool({f"{name}/zone": zone}, size, max(size, GIB)) for zone, size in sizes.items())
        driver = Driver(Config(name=name, plugin=PLUGIN, pools=pools))
        settings = Settings(
            csi=CsiSettings(address=str(folder / "csi.sock")),
            cluster=ClusterSettings(kubeconfig=str(plane.provisioner_kubeconfig)),
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(driver.serve, settings.csi.address)
            stage = Stage(api, driver, settings, nursery)
            await stage.build(*sizes, capacity=capacity)
            try:
                yield stage
            finally:
                with trio.CancelScope(shield=True):
                    await leave(stage)
            nursery.cancel_scope.cancel()


async def leave(stage: Stage) -> None:
    """Other tests of the session share the cluster; volumes and capacity objects were not made by us."""
    for path, mine in (
        (VOLUMES, lambda obj: obj["spec"].get("csi", {}).get("driver") == stage.name),
        (CAPACITIES, lambda obj: stage.name in obj["metadata"].get("labels", {}).values()),
    ):
        stage.api.made += [
            f"{path}/{obj['metadata']['name']}" for obj in (await stage.api.get(path))["items"] if mine(obj)
        ]


async def test_a_pod_gets_its_volume_where_the_scheduler_wants_it(control_plane: ControlPlane, tmp_path: Path) -> None:
    async with staged(control_plane, tmp_path, {"z1": 50 * GIB, "z2": 50 * GIB}) as stage:
        stage.provision()
        for number in range(4):
            await stage.pod(f"pod-{number}")
        for number in range(4):
            node, volume = await stage.placed(f"pod-{number}")
            assert node == stage.node(stage.zone_of(volume)) == await stage.selected(f"pod-{number}")
        assert len(stage.driver.made("CreateVolume")) == 4
        for call in stage.driver.made("CreateVolume"):
            assert len(call.request.accessibility_requirements.requisite) == 1


async def test_a_zone_that_is_full_by_its_capacity_is_not_chosen(control_plane: ControlPlane, tmp_path: Path) -> None:
    """Without the objects the scheduler would take either; 5 Gi fit in z2 only, and four times."""
    async with staged(control_plane, tmp_path, {"z1": 1 * GIB, "z2": 50 * GIB}, capacity=True) as stage:
        stage.provision(capacity=PUBLISHING)

        def published(found: Object) -> bool:
            return sum(stage.name in obj["metadata"]["labels"].values() for obj in found["items"]) == 2

        await stage.until(CAPACITIES, published)
        for number in range(4):
            await stage.pod(f"pod-{number}", "5Gi")
        for number in range(4):
            node, volume = await stage.placed(f"pod-{number}")
            assert (node, stage.zone_of(volume)) == (stage.node("z2"), "z2")
        assert [call.code for call in stage.driver.made("CreateVolume")] == ["OK"] * 4


async def test_exhausted_storage_sends_the_claim_back_to_the_scheduler(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    """p19-topology-1, topology-13-4: with --strict-topology too; nobody knew before that there is no room."""
    async with staged(control_plane, tmp_path, {"z1": 50 * GIB, "z2": 50 * GIB}) as stage:
        stage.driver.faults.add(Fault(code="RESOURCE_EXHAUSTED", times=1, message="no room there"))
        stage.provision()
        await stage.pod("pod")
        node, volume = await stage.placed("pod")
        assert node == stage.node(stage.zone_of(volume))
        codes = [call.code for call in stage.driver.made("CreateVolume")]
        assert codes == ["RESOURCE_EXHAUSTED", "OK"]
        assert any("no room there" in text and "the scheduler is asked" in text for text in await stage.messages())


async def test_a_node_that_vanishes_after_it_was_chosen(control_plane: ControlPlane, tmp_path: Path) -> None:
    """p19-topology-2, topology-13-10: the scheduler chooses again; no volume is asked for in between."""
    async with staged(control_plane, tmp_path, {"z1": 50 * GIB, "z2": 50 * GIB}) as stage:
        await stage.pod("pod")
        lost = await stage.selected("pod")
        for kind in (CSINODES, NODES):
            code, answer = await stage.api.request("DELETE", f"{kind}/{lost}")
            assert code == 200, answer
        stage.provision()
        node, volume = await stage.placed("pod")
        assert node != lost
        assert node == stage.node(stage.zone_of(volume))
        assert [call.code for call in stage.driver.made("CreateVolume")] == ["OK"]
        assert any(f"failed to get selected CSINode {lost}" in text for text in await stage.messages())


async def test_a_claim_is_tried_once_the_driver_has_registered_on_its_node(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    async with staged(control_plane, tmp_path, {"z1": 50 * GIB}) as stage:
        entry = {"name": stage.name, "nodeID": "n", "topologyKeys": [stage.key]}
        await stage.api.patch(f"{CSINODES}/{stage.node('z1')}", {"spec": {"drivers": []}})
        stage.provision(retries=RetrySettings(start=300.0))
        await stage.pod("pod")
        await stage.until(EVENTS, lambda found: "no topology keys for selected node" in str(found))
        assert stage.driver.made("CreateVolume") == []
        await stage.api.patch(f"{CSINODES}/{stage.node('z1')}", {"spec": {"drivers": [entry]}})
        with trio.fail_after(30):
            await stage.placed("pod")
