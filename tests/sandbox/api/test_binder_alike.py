"""Claims, volumes and pods as the control plane moves them: real controllers and the sandbox's binder, one table."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.cluster.controlplane import ControlPlane
from tests.sandbox.api.client import CLAIMS, CLASSES, VOLUMES, Api, Object, claim, volume

DRIVER = "driver.test"
NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/{ns}/pods"


@pytest.fixture
def anyio_backend(where: ControlPlane | None) -> object:
    return "trio" if where else ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


async def until(api: Api, path: str, seen: Callable[[Object], bool]) -> Object:
    """The object at `path` once it looks as wanted; real controllers take their time, the sandbox none."""
    obj: Object = {}
    for _ in range(200):
        obj = await api.get(path)
        if seen(obj):
            return obj
        await trio.sleep(0.05)
    raise AssertionError(f"never came: {obj}")


def phase(wanted: str) -> Callable[[Object], bool]:
    return lambda obj: bool(obj["status"].get("phase") == wanted)


def plain(claim: Object) -> Object:
    """Its status without what Kubernetes 1.37 says besides, some time later: whether a pod uses the claim."""
    return {name: value for name, value in claim["status"].items() if name != "conditions"}


def annotation(name: str) -> Callable[[Object], bool]:
    return lambda obj: name in obj["metadata"].get("annotations", {})


async def storage_class(api: Api, **fields: Any) -> str:
    name = api.unique("class")
    await api.create(CLASSES, {"metadata": {"name": name}, "provisioner": DRIVER, **fields})
    return name


def made_for(claim: Object, name: str, **spec: Any) -> Object:
    """A volume as a provisioner writes it."""
    reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": claim["metadata"]["namespace"]}
    reference |= {"name": claim["metadata"]["name"], "uid": claim["metadata"]["uid"]}
    class_name = claim["spec"]["storageClassName"]
    made = volume(name, claimRef=reference, storageClassName=class_name, persistentVolumeReclaimPolicy="Delete", **spec)
    made["metadata"]["annotations"] = {"pv.kubernetes.io/provisioned-by": DRIVER}
    return made


async def test_a_claim_is_annotated_for_its_provisioner(api: Api) -> None:
    await api.create(CLAIMS, claim("c", storageClassName=await storage_class(api)))
    asked = await until(api, f"{CLAIMS}/c", annotation("volume.kubernetes.io/storage-provisioner"))
    assert asked["metadata"]["annotations"] == {
        "volume.kubernetes.io/storage-provisioner": DRIVER,
        "volume.beta.kubernetes.io/storage-provisioner": DRIVER,
    }
    assert plain(asked) == {"phase": "Pending"}


async def test_a_class_may_come_after_its_claim(api: Api) -> None:
    await api.create(CLAIMS, claim("c", storageClassName=api.unique("class")))
    await storage_class(api)
    await until(api, f"{CLAIMS}/c", annotation("volume.kubernetes.io/storage-provisioner"))


async def test_a_claim_and_its_volume_are_bound(api: Api) -> None:
    wanted = await api.create(CLAIMS, claim("c", storageClassName=await storage_class(api)))
    name = api.unique("v")
    await api.create(VOLUMES, made_for(wanted, name, size="6Gi"))
    bound = await until(api, f"{CLAIMS}/c", phase("Bound"))
    assert bound["spec"]["volumeName"] == name
    assert plain(bound) == {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "6Gi"}}
    annotations = bound["metadata"]["annotations"]
    assert (
        annotations["pv.kubernetes.io/bind-completed"] == annotations["pv.kubernetes.io/bound-by-controller"] == "yes"
    )
    kept = await until(api, f"{VOLUMES}/{name}", phase("Bound"))
    assert kept["metadata"]["annotations"] == {"pv.kubernetes.io/provisioned-by": DRIVER}
    assert kept["spec"]["claimRef"]["uid"] == wanted["metadata"]["uid"]


async def test_a_volume_outlives_its_claim_released(api: Api) -> None:
    wanted = await api.create(CLAIMS, claim("c", storageClassName=await storage_class(api)))
    name = api.unique("v")
    await api.create(VOLUMES, made_for(wanted, name))
    await until(api, f"{CLAIMS}/c", phase("Bound"))
    await api.request("DELETE", f"{CLAIMS}/c")
    released = await until(api, f"{VOLUMES}/{name}", phase("Released"))
    assert released["spec"]["claimRef"]["uid"] == wanted["metadata"]["uid"]
    assert (await api.request("GET", f"{CLAIMS}/c"))[0] == 404
    await api.request("DELETE", f"{VOLUMES}/{name}")
    await gone(api, f"{VOLUMES}/{name}")


async def gone(api: Api, path: str) -> None:
    for _ in range(200):
        if (await api.request("GET", path))[0] == 404:
            return
        await trio.sleep(0.05)
    raise AssertionError(f"{path} stays")


async def test_a_bound_volume_is_protected(api: Api) -> None:
    wanted = await api.create(CLAIMS, claim("c", storageClassName=await storage_class(api)))
    name = api.unique("v")
    await api.create(VOLUMES, made_for(wanted, name))
    await until(api, f"{VOLUMES}/{name}", phase("Bound"))
    await until(api, f"{CLAIMS}/c", phase("Bound"))
    _, marked = await api.request("DELETE", f"{VOLUMES}/{name}")
    assert marked["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]
    await api.request("DELETE", f"{CLAIMS}/c")
    await gone(api, f"{VOLUMES}/{name}")


async def test_a_volume_for_a_claim_that_is_gone_is_released(api: Api) -> None:
    wanted = await api.create(CLAIMS, claim("c", storageClassName=await storage_class(api)))
    await api.request("DELETE", f"{CLAIMS}/c")
    await gone(api, f"{CLAIMS}/c")
    name = api.unique("v")
    await api.create(VOLUMES, made_for(wanted, name))
    await until(api, f"{VOLUMES}/{name}", phase("Released"))


async def test_a_free_volume_that_fits_is_taken(api: Api) -> None:
    class_name = await storage_class(api)
    for size in ("20Gi", "7Gi", "2Gi"):
        await api.create(VOLUMES, volume(api.unique(size.lower()), size, storageClassName=class_name))
    await until(api, f"{VOLUMES}/{api.unique('7gi')}", phase("Available"))
    await api.create(CLAIMS, claim("c", storageClassName=class_name))
    bound = await until(api, f"{CLAIMS}/c", phase("Bound"))
    assert bound["spec"]["volumeName"] == api.unique("7gi")
    taken = await until(api, f"{VOLUMES}/{api.unique('7gi')}", phase("Bound"))
    assert taken["metadata"]["annotations"] == {"pv.kubernetes.io/bound-by-controller": "yes"}
    assert taken["spec"]["claimRef"]["uid"] == bound["metadata"]["uid"]


async def test_a_claim_names_its_volume(api: Api) -> None:
    class_name, name = await storage_class(api), api.unique("v")
    await api.create(CLAIMS, claim("c", storageClassName=class_name, volumeName=name))
    await api.create(VOLUMES, volume(name, storageClassName=class_name))
    bound = await until(api, f"{CLAIMS}/c", phase("Bound"))
    assert bound["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] == "yes"
    assert "pv.kubernetes.io/bound-by-controller" not in bound["metadata"]["annotations"]


async def test_a_claim_whose_volume_vanishes_is_lost(api: Api) -> None:
    wanted = await api.create(CLAIMS, claim("c", storageClassName=await storage_class(api)))
    path = f"{VOLUMES}/{api.unique('v')}"
    await api.create(VOLUMES, made_for(wanted, api.unique("v")))
    await until(api, f"{CLAIMS}/c", phase("Bound"))
    await until(api, path, phase("Bound"))
    await api.request("DELETE", path)
    await api.patch(path, {"metadata": {"finalizers": None}})
    await until(api, f"{CLAIMS}/c", phase("Lost"))


def pod(name: str, claim_name: str, **spec: Any) -> Object:
    uses = {"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}
    contents = {"containers": [{"name": "c", "image": "i"}], "volumes": [uses], **spec}
    # nobody tells the node to be ready, and an admission plugin taints what is not
    contents["tolerations"] = [{"operator": "Exists"}]
    return {"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, **contents}}


async def node(api: Api, name: str) -> str:
    made = await api.create(NODES, {"metadata": {"name": api.unique(name), "labels": {"test": api.ns}}})
    capacity = {"pods": "100", "cpu": "4", "memory": "8Gi"}
    conditions = [{"type": "Ready", "status": "True"}]
    status = {"capacity": capacity, "allocatable": capacity, "conditions": conditions}
    await api.patch(f"{NODES}/{made['metadata']['name']}/status", {"status": status})
    return str(made["metadata"]["name"])


SELECTED = "volume.kubernetes.io/selected-node"


async def test_a_late_binding_claim_waits_for_a_pod(api: Api) -> None:
    class_name = await storage_class(api, volumeBindingMode="WaitForFirstConsumer")
    wanted = await api.create(CLAIMS, claim("c", storageClassName=class_name))
    assert "annotations" not in wanted["metadata"]
    there = await node(api, "a")
    await api.create(PODS, pod("p", "c", nodeSelector={"test": api.ns}))
    asked = await until(api, f"{CLAIMS}/c", annotation("volume.kubernetes.io/storage-provisioner"))
    assert asked["metadata"]["annotations"][SELECTED] == there
    await api.create(VOLUMES, made_for(wanted, api.unique("v")))
    await until(api, f"{CLAIMS}/c", phase("Bound"))
    await until(api, f"{PODS}/p", lambda obj: obj["spec"].get("nodeName") == there)


async def test_a_claim_in_use_is_protected(api: Api) -> None:
    wanted = await api.create(CLAIMS, claim("c", storageClassName=await storage_class(api)))
    await node(api, "a")
    await api.create(VOLUMES, made_for(wanted, api.unique("v")))
    await until(api, f"{CLAIMS}/c", phase("Bound"))
    await api.create(PODS, pod("p", "c", nodeSelector={"test": api.ns}))
    await until(api, f"{PODS}/p", lambda obj: "nodeName" in obj["spec"])
    await api.request("DELETE", f"{CLAIMS}/c")
    assert (await api.get(f"{CLAIMS}/c"))["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    await api.request("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})
    await gone(api, f"{CLAIMS}/c")


async def test_a_claim_that_lost_its_node_gets_another(api: Api) -> None:
    class_name = await storage_class(api, volumeBindingMode="WaitForFirstConsumer")
    await api.create(CLAIMS, claim("c", storageClassName=class_name))
    nodes = {await node(api, "a"), await node(api, "b")}
    await api.create(PODS, pod("p", "c", nodeSelector={"test": api.ns}))
    first = await until(api, f"{CLAIMS}/c", annotation(SELECTED))
    assert first["metadata"]["annotations"][SELECTED] in nodes
    await api.patch(f"{CLAIMS}/c", {"metadata": {"annotations": {SELECTED: None}}})
    second = await until(api, f"{CLAIMS}/c", annotation(SELECTED))
    assert second["metadata"]["annotations"][SELECTED] in nodes
