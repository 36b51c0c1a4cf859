"""Small objects for the tests of stores, watches and events."""

from csi_provisioner.model.kubernetes import ObjectMeta, PersistentVolume, PersistentVolumeClaim

Told = list[tuple[str, str | None, str | None]]
"""What a handler heard: key, old and new as `uid@version`."""


def uid_of(name: str) -> str:
    """As the API server makes them."""
    digits = f"{name.encode().hex():0>20.20}"
    return f"{digits[:8]}-0000-4000-8000-{digits[8:]}"


def claim(name: str, version: int | str, *, uid: str = "", foreign: bool = False) -> PersistentVolumeClaim:
    meta = ObjectMeta(
        name=name,
        namespace="ns",
        uid=uid or f"uid-{name}",
        resourceVersion=str(version),
        annotations={"foreign": ""} if foreign else None,
    )
    return PersistentVolumeClaim(metadata=meta)


def volume(name: str, version: int | str, *, uid: str = "") -> PersistentVolume:
    return PersistentVolume(metadata=ObjectMeta(name=name, uid=uid or f"uid-{name}", resourceVersion=str(version)))


def ours(obj: PersistentVolumeClaim) -> PersistentVolumeClaim | None:
    return None if obj.metadata.annotations else obj


def label(obj: PersistentVolumeClaim | PersistentVolume | None) -> str | None:
    return obj and f"{obj.metadata.uid}@{obj.metadata.resourceVersion}"
