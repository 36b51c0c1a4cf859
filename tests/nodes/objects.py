"""Short ways to write the objects of the tables."""

from csi_provisioner.model import kubernetes as k8s

NODE = k8s.NodeName("node-7")
DRIVER = "disk.acme.test"
SELECTED = "volume.kubernetes.io/selected-node"
ALPHA = "volume.alpha.kubernetes.io/selected-node"


def claim(selected: str | None = None, uid: str = "u", **annotations: str) -> k8s.PersistentVolumeClaim:
    given = dict(annotations) | ({} if selected is None else {SELECTED: selected})
    return k8s.PersistentVolumeClaim(
        metadata=k8s.ObjectMeta(name="data-db-0", namespace="shop", uid=uid, annotations=given or None),
        spec=k8s.ClaimSpec(storageClassName="fast"),
    )


def storage_class(mode: str | None = "Immediate") -> k8s.StorageClass:
    return k8s.StorageClass(metadata=k8s.ObjectMeta(name="fast"), provisioner=DRIVER, volumeBindingMode=mode)
