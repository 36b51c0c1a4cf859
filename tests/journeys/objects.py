"""Objects of the journeys as plain dictionaries, and where each kind lives in the API."""

from typing import Any

Object = dict[str, Any]

CLAIM, VOLUME, CLASS, SECRET = "claim", "volume", "class", "secret"
EVENT, VOLUME_EVENT = "event", "event of a volume"
SNAPSHOT, CONTENT, ATTRIBUTES, ATTACHMENT = "snapshot", "content", "attributes class", "attachment"

PATHS = {
    CLAIM: "/api/v1/namespaces/{ns}/persistentvolumeclaims",
    VOLUME: "/api/v1/persistentvolumes",
    CLASS: "/apis/storage.k8s.io/v1/storageclasses",
    SECRET: "/api/v1/namespaces/{ns}/secrets",
    EVENT: "/api/v1/namespaces/{ns}/events",
    VOLUME_EVENT: "/api/v1/namespaces/default/events",  # where those of objects without a namespace go
    SNAPSHOT: "/apis/snapshot.storage.k8s.io/v1/namespaces/{ns}/volumesnapshots",
    CONTENT: "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents",
    ATTRIBUTES: "/apis/storage.k8s.io/v1/volumeattributesclasses",
    ATTACHMENT: "/apis/storage.k8s.io/v1/volumeattachments",
}

STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
VOLUME_FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
CLONE_FINALIZER = "provisioner.storage.kubernetes.io/cloning-protection"
SNAPSHOT_FINALIZER = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"

GIB = 1 << 30


def claim(name: str, class_name: str, **spec: Any) -> Object:
    contents = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": class_name,
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return {"metadata": {"name": name}, "spec": contents | spec}


def from_claim(name: str) -> Object:
    return {"dataSource": {"kind": "PersistentVolumeClaim", "name": name}}


def from_snapshot(name: str) -> Object:
    return {"dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name}}


def static_volume(name: str, class_name: str, driver: str, handle: str) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": class_name,
            "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Delete",
            "csi": {"driver": driver, "volumeHandle": handle},
        },
    }


def snapshot(name: str, namespace: str, content: str) -> Object:
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"source": {"volumeSnapshotContentName": content}},
    }


def content(name: str, driver: str, handle: str, of: Object) -> Object:
    meta = of["metadata"]
    reference = {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": name},
        "spec": {
            "deletionPolicy": "Delete",
            "driver": driver,
            "source": {"snapshotHandle": handle},
            "volumeSnapshotRef": {"kind": "VolumeSnapshot"} | reference,
        },
    }


def attachment(name: str, volume: str) -> Object:
    spec = {"attacher": "attacher.example.com", "nodeName": "node-1", "source": {"persistentVolumeName": volume}}
    return {"metadata": {"name": name}, "spec": spec}


def finalizers(obj: Object | None) -> list[str]:
    return list((obj or {}).get("metadata", {}).get("finalizers", []))


def phase(obj: Object | None) -> str:
    return str(((obj or {}).get("status") or {}).get("phase", ""))
