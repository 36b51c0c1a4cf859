"""Volumes on their way out, made and released without the provisioner."""

from typing import Any

from sandbox.driver.config import Config
from sandbox.driver.state import Wanted
from tests.installation import VOLUME, Installation
from tests.journeys.objects import VOLUME_FINALIZER

PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
PROTECTION = "kubernetes.io/pv-protection"


def released(
    site: Installation,
    name: str = "pv",
    *,
    annotations: dict[str, str] | None = None,
    finalizers: tuple[str, ...] = (VOLUME_FINALIZER,),
    phase: str = "Released",
    **spec: Any,
) -> str:
    """A volume of this driver whose claim is gone; the driver's id of it."""
    volume = site.driver.state.create_volume(Wanted(name, 1 << 30))
    wanted: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"},
        "storageClassName": "fast",
        "persistentVolumeReclaimPolicy": "Delete",
        "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "gone", "uid": f"uid-of-{name}"},
    }
    if not any(field in spec for field in ("awsElasticBlockStore", "gcePersistentDisk")):
        wanted["csi"] = {"driver": site.config.name, "volumeHandle": volume.id}
    wanted |= spec
    metadata = {
        "name": name,
        "annotations": {PROVISIONED_BY: site.config.name} | (annotations or {}),
        "finalizers": [*finalizers, PROTECTION],
    }
    site.objects.create(
        VOLUME, {"metadata": metadata, "spec": {field: value for field, value in wanted.items() if value is not None}}
    )
    site.edit(VOLUME, name, lambda obj: obj.update(status={"phase": phase}), status=True)
    return volume.id


def bound(site: Installation, name: str = "pv", **fields: Any) -> str:
    """A volume bound to a claim that is there."""
    handle = released(site, name, phase="Available", claimRef=None, **fields)
    site.claim(f"claim-of-{name}", volumeName=name)
    return handle


def attached(site: Installation, volume: str, name: str = "attachment", node: str = "node-1", **status: Any) -> None:
    spec = {"attacher": site.config.name, "nodeName": node, "source": {"persistentVolumeName": volume}}
    site.objects.create("VolumeAttachment", {"metadata": {"name": name}, "spec": spec})
    if status:
        site.edit("VolumeAttachment", name, lambda obj: obj.update(status=status), status=True)


async def reconfigured(site: Installation, config: Config) -> None:
    """Another driver on the same socket."""
    site.kill_driver()
    await site.rest(0.1)
    await site.serve(config)
