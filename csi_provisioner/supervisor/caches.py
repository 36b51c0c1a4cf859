"""What is watched, and which part of it is kept in memory (process.md 5.3).

Volumes of other drivers are kept by name only, and their claims not at all, except for those that may need a protected
source. Of ours for which nothing is to be done a record of a few bytes is kept (`planning/settled`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import trio

from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.cold import Settled
from csi_provisioner.kube.outline import Look, Outline
from csi_provisioner.kube.reflector import Reflector
from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import (
    GATEWAY,
    BetaReferenceGrant,
    ClaimSpec,
    CSINode,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    ReferenceGrant,
    StorageClass,
    VolumeAttachment,
    VolumeSpec,
)
from csi_provisioner.planning import deletion, finalizers, gate, leftover, settled
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.wellknown import (
    BETA_STORAGE_PROVISIONER,
    CLAIM_KIND,
    CLONE_FINALIZER,
    MIGRATED_TO,
    PROVISIONED_BY,
    SNAPSHOT_KIND,
    STORAGE_PROVISIONER,
)
from csi_provisioner.protection import clones

# Seconds between two reads of a watch where every node has a provisioner, each of which is shown all the others' work
NODE_PAUSE = 0.05


def caches_for(
    facts: DriverFacts,
    segments: Mapping[str, str] | None,
    *,
    holds_claim: Callable[[str], bool],
    holds_volume: Callable[[str], bool],
) -> Caches:
    """Empty caches that keep only what this driver needs. What the memory of a leader holds (a claim by its UID, a
    volume by its name) stays whole."""
    claims = Settled(settled.claim_note, lambda _key, uid: holds_claim(uid), settled.claim)
    volumes = Settled(
        lambda volume: settled.volume_note(volume, ours=leftover.is_told(volume, facts, segments)),
        lambda name, _uid: holds_volume(name),
        lambda meta, note: settled.volume(meta, note, facts.name),
    )
    return Caches(
        claims=Store(project=partial(_kept_claim, facts=facts), index="uid", settled=claims, named=False),
        volumes=Store(project=partial(_kept_volume, facts=facts), settled=volumes, shared=deletion.handle),
    )


async def follow(
    kube: KubeClient,
    caches: Caches,
    facts: DriverFacts,
    *,
    grants: bool,
    nodes: bool,
    pause: float,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Watches until cancelled; started once every cache is complete. A missing right keeps it waiting and is logged."""
    at_claims, at_volumes = looks(facts)
    reflectors: list[Reflector[Any]] = [
        Reflector(kube, PersistentVolumeClaim, caches.claims, on_event=clones.keep_shown, look=at_claims),
        Reflector(kube, PersistentVolume, caches.volumes, look=at_volumes),
        Reflector(kube, StorageClass, caches.storage_classes),
    ]
    if deletion.watches_attachments(facts):
        reflectors.append(Reflector(kube, VolumeAttachment, caches.attachments))
    if grants:
        reflectors.append(Reflector(kube, ReferenceGrant, caches.grants, served=partial(_served_grants, kube)))
    if nodes:
        reflectors += [Reflector(kube, Node, caches.nodes), Reflector(kube, CSINode, caches.csinodes)]
    for reflector in reflectors:
        reflector.pause = pause
    caches.unsynced.update(reflector.kind.__name__ for reflector in reflectors)

    async def followed(reflector: Reflector[Any], kind: str, *, task_status: trio.TaskStatus[None]) -> None:
        caches.lags[kind], caches.followers[kind] = reflector.lag, reflector.look_again
        reflector.on_list = partial(caches.unsynced.discard, kind)
        await reflector.run(task_status=task_status)
        caches.ended.add(kind)  # a defect: it runs for ever

    async def synced(reflector: Reflector[Any]) -> None:
        kind = reflector.kind.__name__
        await watches.start(followed, reflector, kind)
        caches.unsynced.discard(kind)

    log.info("Watching", kinds=" ".join(reflector.kind.__name__ for reflector in reflectors))
    async with trio.open_nursery() as watches:
        # The inner nursery ends when every first list is complete; the watches go on in the outer one.
        async with trio.open_nursery() as syncing:
            for reflector in reflectors:
                syncing.start_soon(synced, reflector)
        log.info("Caches are synced", claims=len(caches.claims), volumes=len(caches.volumes))
        task_status.started()


async def _served_grants(kube: KubeClient) -> type[ReferenceGrant]:
    try:
        if "ReferenceGrant" in await kube.kinds(f"/apis/{GATEWAY}/v1"):
            return ReferenceGrant
    except KubeError as error:
        if error.code not in (403, 404):
            raise
    return BetaReferenceGrant


class _Marks(msgspec.Struct, gc=False):
    """The annotations that say whose a claim or a volume is."""

    chosen: str | None = msgspec.field(default=None, name=STORAGE_PROVISIONER)
    chosen_before: str | None = msgspec.field(default=None, name=BETA_STORAGE_PROVISIONER)
    made_by: str | None = msgspec.field(default=None, name=PROVISIONED_BY)
    migrated: str | None = msgspec.field(default=None, name=MIGRATED_TO)


_marks = msgspec.json.Decoder(_Marks | None).decode


def looks(facts: DriverFacts) -> tuple[Look[PersistentVolumeClaim], Look[PersistentVolume]]:
    """Of which claims and volumes nothing is kept, as far as that is certain without their specs; of the others
    `_kept_claim` and `_kept_volume` decide."""

    def is_foreign_claim(claim: Outline) -> bool:
        # One that is pending may have a source.
        waits = claim.status is None or claim.status.phase in (None, "", "Pending")
        if waits or CLONE_FINALIZER in (claim.metadata.finalizers or ()):
            return False
        marks = _marks(claim.metadata.annotations)
        return marks is None or facts.name not in (marks.chosen, marks.chosen_before, marks.migrated)

    def is_foreign_volume(volume: Outline) -> bool:
        marks = _marks(volume.metadata.annotations)
        if marks is None or marks.made_by is None:
            return False
        return not (facts.answers_to(marks.made_by) or facts.answers_to(marks.migrated))

    return (
        Look(is_foreign_claim, PersistentVolumeClaim, msgspec.json.Decoder(ClaimSpec)),
        Look(is_foreign_volume, PersistentVolume, msgspec.json.Decoder(VolumeSpec)),
    )


def _kept_claim(claim: PersistentVolumeClaim, facts: DriverFacts) -> PersistentVolumeClaim | None:
    """Our claims, sources with our finalizer, and pending claims of any driver that may be copied from a source."""
    if gate.addressed_to(claim, facts) or finalizers.present(claim, CLONE_FINALIZER):
        return claim
    # Whether such a source is still needed depends on these claims, whoever provisions them.
    if claim.status.phase in (None, "", "Pending"):
        for source in (claim.spec.dataSource, claim.spec.dataSourceRef):
            if source is not None and source.kind in (CLAIM_KIND, SNAPSHOT_KIND):
                return claim
    return None


def _kept_volume(volume: PersistentVolume, facts: DriverFacts) -> PersistentVolume | None:
    if not deletion.is_responsible(volume, facts):
        return None
    # Large, and only read again of a volume that goes without its backend volume: whoever adopts that needs them.
    if volume.spec.csi is not None and not volume.metadata.deletionTimestamp:
        volume.spec.csi.volumeAttributes = None
    if volume.status is not None and volume.status.phase != "Released":
        volume.status.lastPhaseTransitionTime = None
    return volume
