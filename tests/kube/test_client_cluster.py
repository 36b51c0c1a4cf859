"""KubeClient against the real API server: what only it can show."""

import base64
from collections.abc import AsyncIterator, Awaitable
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import trio
from lightkube.core.resource import GlobalResource

from csi_provisioner.kube.client import KubeClient, KubeError, connect, resolve
from csi_provisioner.model.kubernetes import (
    CSIStorageCapacity,
    CSIVolumeSource,
    ObjectMeta,
    PersistentVolume,
    PersistentVolumeClaim,
    Secret,
    VolumeSnapshot,
    VolumeSpec,
    resource,
)
from csi_provisioner.settings import ClusterSettings
from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.cluster

CLAIM_SPEC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "x"}


@pytest.fixture
async def admin(control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    settings = ClusterSettings(kubeconfig=str(control_plane.admin_kubeconfig))
    client = connect(resolve(settings), user_agent="csi-provisioner/test")
    yield client
    client.close()


@pytest.fixture
def name() -> str:
    return f"t-{uuid4()}"


@resource("storage.k8s.io", "v1", "NotServed", "notserved")
class NotServed(GlobalResource, msgspec.Struct):
    metadata: ObjectMeta


@resource("nobody.test", "v1", "OfNoGroup", "ofnogroups")
class OfNoGroup(GlobalResource, msgspec.Struct):
    metadata: ObjectMeta


def claim(namespace: str) -> dict[str, Any]:
    return {"metadata": {"name": "c", "namespace": namespace}, "spec": CLAIM_SPEC}


def volume(name: str) -> PersistentVolume:
    return PersistentVolume(
        metadata=ObjectMeta(name=name),
        spec=VolumeSpec(
            accessModes=["ReadWriteOnce"],
            capacity={"storage": "1Gi"},
            csi=CSIVolumeSource(driver="x.test", volumeHandle="h"),
        ),
    )


async def test_an_account_without_a_right_is_told_the_kustomization(control_plane: ControlPlane) -> None:
    file = control_plane.kubeconfig("scheduler")  # who has neither
    client = connect(resolve(ClusterSettings(kubeconfig=str(file))), user_agent="csi-provisioner/test")
    try:
        with pytest.raises(KubeError, match=r"cannot get resource.*; kustomize/components/secrets grants it \("):
            await client.get(Secret, "login", "default")
        with pytest.raises(KubeError, match=r"cannot create resource.*; kustomize/components/capacity grants it \("):
            await client.create(CSIStorageCapacity, CSIStorageCapacity(ObjectMeta(name="c")), "default")
    finally:
        client.close()


async def test_a_volume_from_its_creation_to_its_end(admin: KubeClient, name: str) -> None:
    made = await admin.create(PersistentVolume, volume(name))
    assert made.spec.csi is not None
    with pytest.raises(KubeError) as caught:
        await admin.create(PersistentVolume, volume(name))
    assert caught.value.already_exists
    patched = await admin.patch(PersistentVolume, name, {"metadata": {"finalizers": ["example.test/f"]}})
    assert patched.metadata.finalizers is not None
    assert "example.test/f" in patched.metadata.finalizers
    await admin.patch(PersistentVolume, name, {"metadata": {"finalizers": None}}, strategy="merge")
    version = made.metadata.resourceVersion
    async with admin.watch(PersistentVolume, resource_version=version, timeout_seconds=60) as events:
        await admin.delete(PersistentVolume, name)
        with trio.fail_after(30):  # until the controllers have let go of it
            async for event, _line in events:
                if event.type == "DELETED" and event.object.metadata.name == name:
                    break
    with pytest.raises(KubeError, match=f'delete PersistentVolume {name}: persistentvolumes "{name}" not found'):
        await admin.delete(PersistentVolume, name)


async def test_changes_conflict_and_a_watch_shows_them(admin: KubeClient, name: str) -> None:
    claim = await admin.create(
        PersistentVolumeClaim, {"metadata": {"name": name, "namespace": "default"}, "spec": CLAIM_SPEC}
    )
    version = claim.metadata.resourceVersion

    def annotate(obj: dict[str, object]) -> bool:
        obj["metadata"]["annotations"] = {"a": "b"}  # type: ignore[index]
        return True

    async with admin.watch(PersistentVolumeClaim, resource_version=version, timeout_seconds=60) as events:
        changed = await admin.change(PersistentVolumeClaim, name, "default", seen=version, edit=annotate)
        assert changed is not None
        with pytest.raises(KubeError) as caught:
            await admin.change(PersistentVolumeClaim, name, "default", seen=version, edit=annotate)
        assert caught.value.conflict
        with trio.fail_after(10):
            async for event, _line in events:
                if event.object.metadata.name == name:
                    break
        assert (event.type, event.object.metadata.annotations) == ("MODIFIED", {"a": "b"})
    await admin.delete(PersistentVolumeClaim, name, "default")


async def test_pages_of_one_list(admin: KubeClient, name: str) -> None:
    names = {f"{name}-{i}" for i in range(5)}
    for each in names:
        await admin.create(PersistentVolume, volume(each))
    found, token, versions = set(), None, set()
    while True:
        page = await admin.list_page(PersistentVolume, limit=2, continue_token=token)
        found |= {item.metadata.name for item in page.items}
        versions.add(page.resource_version)
        token = page.continue_token
        if token is None:
            break
    assert names <= found
    assert len(versions) == 1
    for each in names:
        await admin.delete(PersistentVolume, each)


async def test_what_is_gone_and_what_is_another_404(admin: KubeClient, name: str) -> None:
    asked: list[tuple[Awaitable[object], bool, tuple[str, str] | None]] = [
        (admin.get(PersistentVolume, name), True, ("persistentvolumes", name)),
        (admin.delete(PersistentVolume, name), True, ("persistentvolumes", name)),
        (admin.patch(PersistentVolume, name, {"metadata": {}}), True, ("persistentvolumes", name)),
        (admin.get(VolumeSnapshot, name, name), True, ("volumesnapshots", name)),
        (admin.delete(CSIStorageCapacity, name, name), True, ("csistoragecapacities", name)),
        (admin.create(PersistentVolumeClaim, claim(name)), False, ("namespaces", name)),
        (admin.get(NotServed, name), False, None),
        (admin.get(OfNoGroup, name), False, None),
    ]
    for call, gone, missing in asked:
        with pytest.raises(KubeError) as caught:
            await call
        assert (caught.value.code, caught.value.not_found, caught.value.missing) == (404, gone, missing)


async def test_the_server_may_be_killed_and_come_back(
    control_plane: ControlPlane, admin: KubeClient, name: str
) -> None:
    await admin.create(PersistentVolume, volume(name))
    async with admin.watch(PersistentVolume, resource_version="0", timeout_seconds=60) as events:
        await anext(events)
        control_plane.kill_apiserver()
        with pytest.raises(KubeError) as watch_error:
            async for _ in events:
                pass
    with pytest.raises(KubeError) as get_error:
        await admin.get(PersistentVolume, name)
    assert {watch_error.value.code, get_error.value.code} == {0}
    control_plane.start_apiserver()
    await admin.delete(PersistentVolume, name)


async def test_a_frozen_server_holds_nobody_for_ever(control_plane: ControlPlane, name: str) -> None:
    settings = ClusterSettings(kubeconfig=str(control_plane.provisioner_kubeconfig))
    client = connect(resolve(settings), user_agent="csi-provisioner/test")
    with pytest.raises(KubeError) as caught:
        await client.get(PersistentVolume, name)
    assert caught.value.not_found
    control_plane.freeze_apiserver()
    try:
        with trio.move_on_after(0.5) as limit:
            await client.get(PersistentVolume, name)
        assert limit.cancelled_caught
    finally:
        control_plane.thaw_apiserver()
    with pytest.raises(KubeError, match="not found"):
        await client.get(PersistentVolume, name)
    client.close()


async def test_a_client_certificate_opens_the_door(control_plane: ControlPlane) -> None:
    pair = control_plane.ca.issue_cert("admin.test", common_name="someone", organization_name="system:masters")
    user = {
        "client-certificate-data": encoded(pair.cert_chain_pems[0].bytes()),
        "client-key-data": encoded(pair.private_key_pem.bytes()),
    }
    path = control_plane.kubeconfig("admin", file="certificate.kubeconfig", credential=user)
    client = connect(resolve(ClusterSettings(kubeconfig=str(path))), user_agent="csi-provisioner/test")
    assert (await client.discover("/apis/storage.k8s.io/v1"))["groupVersion"] == "storage.k8s.io/v1"
    client.close()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
