"""Short ways to write the objects of the tables."""

from typing import Any

from csi_provisioner.capacity.desired import Desired
from csi_provisioner.capacity.objects import Pair, Publication
from csi_provisioner.capacity.segments import Segment
from csi_provisioner.model import csi
from csi_provisioner.model import kubernetes as k8s

DRIVER = "disk.acme.test"
MANAGER = "external-provisioner"
OWNER = k8s.OwnerReference(apiVersion="apps/v1", kind="StatefulSet", name="acme-ctl", uid="7d1e", controller=True)
PUBLICATION = Publication(DRIVER, MANAGER, "ns1")
LABELS = PUBLICATION.labels()

Z1: Segment = (("acme.test/zone", "z-1"),)
Z2: Segment = (("acme.test/zone", "z-2"),)


def storage_class(name: str = "fast", mode: str | None = "WaitForFirstConsumer", **fields: Any) -> k8s.StorageClass:
    fields = {"provisioner": DRIVER} | fields
    return k8s.StorageClass(metadata=k8s.ObjectMeta(name=name), volumeBindingMode=mode, **fields)


def capacity(
    uid: str,
    segment: Segment = Z1,
    class_name: str = "fast",
    *,
    labels: dict[str, str] | None = LABELS,
    version: str = "1",
    name: str | None = None,
    owners: list[k8s.OwnerReference] | None = None,
    **fields: Any,
) -> k8s.CSIStorageCapacity:
    fields = {"capacity": "1Gi", "nodeTopology": k8s.LabelSelector(matchLabels=dict(segment))} | fields
    return k8s.CSIStorageCapacity(
        metadata=k8s.ObjectMeta(
            name=name or f"csisc-{uid}",
            namespace="ns1",
            uid=uid,
            resourceVersion=version,
            labels=labels,
            ownerReferences=owners,
        ),
        storageClassName=class_name,
        **fields,
    )


def surplus(uid: str) -> str:
    return f"csisc-{uid}"


def answer(available: int, maximum: int | None = None) -> csi.GetCapacityResponse:
    return csi.GetCapacityResponse(available_capacity=available, maximum_volume_size=maximum)


def desired(
    *segments: Segment, classes: tuple[k8s.StorageClass, ...] = (storage_class(),), immediate: bool = False
) -> Desired:
    """As it is after section 7 step 2."""
    made = Desired(PUBLICATION, immediate_binding=immediate)
    made.segments_changed(frozenset(segments))
    for known in classes:
        made.class_changed(known.metadata.name, None, known)
    return made


def known(made: Desired, segment: Segment = Z1, class_name: str = "fast") -> k8s.CSIStorageCapacity | None:
    found = made.known(Pair(segment, class_name))
    assert found is not None
    return found[1]
