"""Short ways to write the objects of the tables; `but` changes one field of a part, named by its path."""

from typing import Any, TypeVar

import msgspec

from csi_provisioner.model import csi
from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.planning import classes, request, secrets
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.request import Plan
from csi_provisioner.settings import ProvisioningSettings

S = TypeVar("S", bound=msgspec.Struct)

DRIVER = "acme.csi.test"
UID = "6a1e4d1e-30aa-4c3a-9d1c-7a2f0c9d8e11"
SETTINGS = ProvisioningSettings()
CREATES = frozenset({"CREATE_DELETE_VOLUME"})
ALL = CREATES | {"CREATE_DELETE_SNAPSHOT", "CLONE_VOLUME", "MODIFY_VOLUME"}


def but(obj: S, path: str, value: Any) -> S:
    """A copy of `obj` with the field at `path` (dots go down) set to `value`."""
    head, _, rest = path.partition(".")
    return msgspec.structs.replace(obj, **{head: but(getattr(obj, head), rest, value) if rest else value})


def driver(name: str = DRIVER, controller: frozenset[str] = ALL, **fields: Any) -> DriverFacts:
    return DriverFacts(name=name, plugin=frozenset({"CONTROLLER_SERVICE"}), controller=controller, **fields)


def settings(**fields: Any) -> ProvisioningSettings:
    return ProvisioningSettings(**fields)


def claim(
    name: str = "a",
    size: str | None = "5Gi",
    modes: tuple[str, ...] = ("ReadWriteOnce",),
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> k8s.PersistentVolumeClaim:
    provisioner = {"volume.kubernetes.io/storage-provisioner": DRIVER}
    fields = {"storageClassName": "fast", "volumeMode": "Filesystem"} | spec
    return k8s.PersistentVolumeClaim(
        metadata=k8s.ObjectMeta(
            name=name,
            namespace="shop",
            uid=UID,
            resourceVersion="17",
            annotations=provisioner if annotations is None else annotations,
        ),
        spec=k8s.ClaimSpec(
            accessModes=list(modes),
            resources=k8s.ResourceRequirements(requests={"storage": size}) if size is not None else None,
            **fields,
        ),
        status=k8s.Phase("Pending"),
    )


def storage_class(parameters: dict[str, str] | None = None, **fields: Any) -> k8s.StorageClass:
    fields = {"provisioner": DRIVER, "reclaimPolicy": "Delete"} | fields
    return k8s.StorageClass(metadata=k8s.ObjectMeta(name="fast", uid="class-uid"), parameters=parameters, **fields)


def reference(kind: str, name: str = "src", group: str | None = None, namespace: str | None = None) -> Any:
    return k8s.TypedReference(kind=kind, name=name, apiGroup=group, namespace=namespace)


SNAPSHOT = reference("VolumeSnapshot", group="snapshot.storage.k8s.io")
CLONE = reference("PersistentVolumeClaim")


def draft(
    claim_: k8s.PersistentVolumeClaim | None = None,
    class_: k8s.StorageClass | None = None,
    facts: DriverFacts | None = None,
    options: ProvisioningSettings = SETTINGS,
) -> Draft:
    facts = facts or driver()
    return request.draft(claim_ or claim(), classes.read(class_ or storage_class(), facts), facts, options)


def plan(settled: Draft | None = None, options: ProvisioningSettings = SETTINGS) -> Plan:
    settled = settled or draft()
    return request.finish(settled, None, None, secrets.references(settled), None, None, options)


def response(volume_id: str = "h", capacity: int = 5 << 30, **fields: Any) -> csi.CreateVolumeResponse:
    return csi.CreateVolumeResponse(volume=csi.Volume(volume_id=volume_id, capacity_bytes=capacity, **fields))


def volume(annotations: dict[str, str] | None = None, phase: str = "Released", **spec: Any) -> k8s.PersistentVolume:
    """A volume of this driver as `compose` would have made it, released."""
    spec = {
        "csi": k8s.CSIVolumeSource(driver=DRIVER, volumeHandle="h"),
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": "fast",
        "claimRef": k8s.ObjectReference(name="a", namespace="shop", uid=UID),
    } | spec
    return k8s.PersistentVolume(
        metadata=k8s.ObjectMeta(
            name="pv-1",
            annotations={"pv.kubernetes.io/provisioned-by": DRIVER} if annotations is None else annotations,
            finalizers=["kubernetes.io/pv-protection", "external-provisioner.volume.kubernetes.io/finalizer"],
        ),
        spec=k8s.VolumeSpec(**spec),
        status=k8s.Phase(phase),
    )
