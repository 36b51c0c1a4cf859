"""What is watched, and how little of it is kept (process.md 5.3).

Objects of other drivers are kept by name only, but for the few fields that some rule reads of every object.
"""

import gc
from dataclasses import dataclass
from typing import Any

import trio

from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.reflector import Reflector
from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import (
    CSINode,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    ReferenceGrant,
    StorageClass,
    VolumeAttachment,
)
from csi_provisioner.planning import deletion, finalizers, gate
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.wellknown import CLAIM_KIND, CLONE_FINALIZER, SNAPSHOT_KIND
from csi_provisioner.protection import clones


@dataclass(frozen=True, slots=True)
class Stores:
    """None: not watched with this driver or these gates."""

    claims: Store[PersistentVolumeClaim]
    volumes: Store[PersistentVolume]
    storage_classes: Store[StorageClass]
    attachments: Store[VolumeAttachment] | None = None
    grants: Store[ReferenceGrant] | None = None
    nodes: Store[Node] | None = None
    csinodes: Store[CSINode] | None = None


def stores(facts: DriverFacts, *, grants: bool, nodes: bool) -> Stores:
    """Empty stores for what this driver needs."""
    return Stores(
        claims=Store(project=lambda claim: _kept_claim(claim, facts), index="uid"),
        volumes=Store(project=lambda volume: _kept_volume(volume, facts)),
        storage_classes=Store(),
        attachments=Store() if deletion.watches_attachments(facts) else None,
        grants=Store() if grants else None,
        nodes=Store() if nodes else None,
        csinodes=Store() if nodes else None,
    )


async def follow(
    kube: KubeClient, kept: Stores, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Watch until cancelled; started once every store is whole. A missing right keeps it waiting, with error logs."""
    reflectors: list[Reflector[Any]] = [
        Reflector(kube, PersistentVolumeClaim, kept.claims, on_event=clones.keep_shown),
        Reflector(kube, PersistentVolume, kept.volumes),
        Reflector(kube, StorageClass, kept.storage_classes),
    ]
    if kept.attachments is not None:
        reflectors.append(Reflector(kube, VolumeAttachment, kept.attachments))
    if kept.grants is not None:
        reflectors.append(Reflector(kube, ReferenceGrant, kept.grants))
    if kept.nodes is not None and kept.csinodes is not None:
        reflectors += [Reflector(kube, Node, kept.nodes), Reflector(kube, CSINode, kept.csinodes)]
    log.info("Watching", kinds=" ".join(reflector.kind.__name__ for reflector in reflectors))
    async with trio.open_nursery() as watches:
        async with trio.open_nursery() as syncing:
            for reflector in reflectors:
                syncing.start_soon(watches.start, reflector.run)
        # What is here now lives long; the collector need not look at it again and again. What an earlier life of the
        # process froze is over, and goes first.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        log.info("Caches are synced", claims=len(kept.claims), volumes=len(kept.volumes))
        task_status.started()


def _kept_claim(claim: PersistentVolumeClaim, facts: DriverFacts) -> PersistentVolumeClaim | None:
    """Ours, sources that carry our finalizer, and unfinished claims that a source may be protected for."""
    if gate.addressed_to(claim, facts) or finalizers.present(claim, CLONE_FINALIZER):
        return claim
    if claim.status.phase in (None, "", "Pending"):
        for source in (claim.spec.dataSource, claim.spec.dataSourceRef):
            if source is not None and source.kind in (CLAIM_KIND, SNAPSHOT_KIND):
                return claim
    return None


def _kept_volume(volume: PersistentVolume, facts: DriverFacts) -> PersistentVolume | None:
    if not deletion.is_responsible(volume, facts):
        return None
    if volume.spec.csi is not None:
        volume.spec.csi.volumeAttributes = None  # written once by us, never read again
    return volume
