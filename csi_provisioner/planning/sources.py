"""Where a volume's first content comes from: which source a claim names, and may it be used (provision.md 8.1 to 8.8).

The objects are read by the caller, one function below after each read. Every text begins with the source's kind and
name. What is wrong with a foreign PersistentVolume is only told to the log: a claim's author must not learn of it.
"""

from collections.abc import Container, Iterable, Iterator, Mapping

import msgspec

from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import (
    ObjectMeta,
    PersistentVolume,
    PersistentVolumeClaim,
    ReferenceGrant,
    TypedReference,
    VolumeSnapshot,
    VolumeSnapshotContent,
)
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import dns, finalizers, quantity, snapshot_topology, wellknown
from csi_provisioner.planning.capabilities import BLOCK
from csi_provisioner.planning.draft import DataSource, Draft
from csi_provisioner.planning.refusal import Refusal, not_ours
from csi_provisioner.planning.snapshot_topology import Places
from csi_provisioner.planning.wellknown import CLAIM_KIND, SNAPSHOT_GROUP, SNAPSHOT_KIND
from csi_provisioner.settings import ProvisioningSettings

POPULATOR_EVENT = "Assuming an external populator will provision the volume"

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))


class Content(msgspec.Struct, frozen=True):
    """A source that passed all checks: `kind` is the source's, `handle` the driver's id of it."""

    kind: str
    handle: str
    warnings: tuple[str, ...] = ()
    places: Places = ()
    """From where a snapshot can be restored; none: from everywhere, or the gate is off."""


# ---- which source (8.1, 8.2)


def normalise(
    claim: PersistentVolumeClaim, settings: ProvisioningSettings, grants: Iterable[ReferenceGrant]
) -> DataSource | None:
    own = claim.metadata.namespace or ""
    # The API server copies one field to the other. Only populators and other namespaces stand in dataSourceRef alone.
    if claim.spec.dataSource is not None:
        return _source(claim.spec.dataSource, own)
    reference = claim.spec.dataSourceRef
    if reference is None:
        return None
    if reference.namespace and not settings.cross_namespace:
        raise Refusal(
            State.FINISHED,
            f"claim {kubernetes.key(claim)} names a data source in namespace {reference.namespace!r}; sources of other "
            "namespaces need the feature gate CrossNamespaceVolumeDataSource",
        )
    # quirk Q9, not kept: an empty namespace is none
    source = _source(reference, reference.namespace or own)
    if source.namespace != own and not any(_grants(grant, claim, source) for grant in grants):
        raise Refusal(
            State.FINISHED,
            f"claim {kubernetes.key(claim)} may not use {source} as its source: no ReferenceGrant in "
            f"namespace {source.namespace} allows it; ask the owner of that namespace for one",
        )
    return source


def _source(reference: TypedReference, namespace: str) -> DataSource:
    return DataSource(kind=reference.kind, name=reference.name, namespace=namespace, group=reference.apiGroup)


def _grants(grant: ReferenceGrant, claim: PersistentVolumeClaim, source: DataSource) -> bool:
    """Both sides must be in one and the same grant, in the namespace of the source."""
    if grant.metadata.namespace != source.namespace:
        return False
    from_claim = any(
        entry.group == "" and entry.kind == CLAIM_KIND and entry.namespace == claim.metadata.namespace
        for entry in grant.spec.from_ or ()
    )
    return from_claim and any(
        entry.group == (source.group or "") and entry.kind == source.kind and entry.name in (None, "", source.name)
        for entry in grant.spec.to or ()
    )


def check_kind(source: DataSource, claim: PersistentVolumeClaim) -> None:
    if not source.name:
        raise Refusal(State.FINISHED, f"the data source of claim {kubernetes.key(claim)} has no name")
    if source.kind == SNAPSHOT_KIND:
        if source.group != SNAPSHOT_GROUP:
            raise Refusal(
                State.FINISHED,
                f"the data source {source} of claim {kubernetes.key(claim)} is of API group "
                f"{source.group or ''!r}; only {SNAPSHOT_GROUP!r} has snapshots",
            )
    # Said before the capabilities are looked at: a populator makes no use of what the driver can do. The group of a
    # claim is not checked, as in the reference.
    elif source.kind != CLAIM_KIND:
        raise not_ours(f"claim {kubernetes.key(claim)} has a data source of kind {source.kind!r}", POPULATOR_EVENT)
    if not (dns.is_subdomain(source.name) and dns.is_label(source.namespace)):
        raise Refusal(
            State.NO_CHANGE,
            f"the data source of claim {kubernetes.key(claim)} is a {source.kind} named {source.name!r} in namespace "
            f"{source.namespace!r}, which no object can be called",
        )


# ---- snapshots (8.7)


def source_unreadable(draft: Draft, why: object) -> Refusal:
    """Check 1: the caller's GET of the snapshot failed, or that of the claim, but for one that is not there."""
    return _refused(draft, f"cannot read it: {why}")


def check_snapshot(draft: Draft, snapshot: VolumeSnapshot, *, under_way: bool = False) -> str:
    """Checks 2 and 3; answers the name of the content to read next."""
    if not (serves(snapshot, draft.claim, under_way=under_way) and _is_held(snapshot, wellknown.SNAPSHOT_FINALIZER)):
        raise _refused(draft, "the snapshot is being deleted")
    # The finalizer above is ours alone; those of the snapshot controller say nothing about our work.
    content = snapshot.status.boundVolumeSnapshotContentName if snapshot.status else None
    if not content:
        raise _refused(draft, "the snapshot is not bound to a VolumeSnapshotContent yet")
    if not dns.is_subdomain(content):
        raise _refused(draft, f"it says that it is bound to {content!r}, which no VolumeSnapshotContent can be called")
    return content


def content_unreadable(draft: Draft, content: str, why: object) -> Refusal:
    """Check 4: the caller's GET of the content failed; the answer itself is for the log."""
    return _refused(draft, f"cannot read VolumeSnapshotContent {content}", detail=str(why))


def check_content(
    draft: Draft, snapshot: VolumeSnapshot, content: VolumeSnapshotContent, settings: ProvisioningSettings
) -> Content:
    """Checks 5 to 11."""
    name = content.metadata.name
    bound_to = content.spec.volumeSnapshotRef
    meta = snapshot.metadata
    # All three, so that nobody gets at data by a snapshot of his own that names the content of somebody else.
    if (bound_to.uid, bound_to.namespace, bound_to.name) != (meta.uid, meta.namespace, meta.name):
        raise _refused(draft, f"VolumeSnapshotContent {name} is bound to a different snapshot")
    # quirk Q10, not kept: the driver's name, also for a class with the name of the in-tree plugin
    if content.spec.driver != draft.driver.name:
        raise _refused(
            draft,
            f"VolumeSnapshotContent {name} is of driver {content.spec.driver}, while StorageClass "
            f"{draft.class_plan.original.metadata.name} is served by {draft.driver.name}",
        )
    if not (snapshot.status and snapshot.status.readyToUse):
        raise _refused(draft, "the snapshot is not ready to use yet")
    handle = content.status.snapshotHandle if content.status else None
    if not handle:
        raise _refused(draft, f"VolumeSnapshotContent {name} has no snapshot handle yet")
    warnings = _check_restore_size(draft, snapshot.status.restoreSize)
    if settings.prevent_volume_mode_conversion:
        _check_mode_conversion(draft, content)
    return Content(SNAPSHOT_KIND, handle, warnings, _places(draft, content) if settings.snapshot_topology else ())


def _places(draft: Draft, content: VolumeSnapshotContent) -> Places:
    try:
        return snapshot_topology.read(content.spec.nodeAffinity)
    except ValueError as error:
        text = f"the nodeAffinity of VolumeSnapshotContent {content.metadata.name} cannot be understood: {error}"
        raise _refused(draft, text) from error


def _check_restore_size(draft: Draft, restore_size: str | float | None) -> tuple[str, ...]:
    if restore_size is None:
        return ()
    try:
        wanted, smallest = quantity.requested(draft.claim), quantity.parse(str(restore_size))
    except Refusal as refusal:
        raise _refused(draft, refusal.message) from refusal
    if wanted is None:
        raise _refused(draft, f"the claim asks for no size, while the snapshot needs {smallest} bytes")
    # A smaller volume could not take the data; a larger one is legal.
    if wanted < smallest:
        raise _refused(draft, f"the claim asks for {wanted} bytes, less than the {smallest} bytes of the snapshot")
    if wanted > smallest:
        return (
            f"claim {kubernetes.key(draft.claim)} asks for {wanted} bytes, more than the {smallest} bytes of its "
            f"source {draft.source}; not every driver grows a restored volume",
        )
    return ()


def _check_mode_conversion(draft: Draft, content: VolumeSnapshotContent) -> None:
    # Whoever writes a volume as a block device and gets it back as a file system can attack the kernel that mounts it.
    # So somebody with rights on contents has to allow it.
    before, after = content.spec.sourceVolumeMode, draft.claim.spec.volumeMode
    if before is None or after is None or before == after:
        return
    allowed = (content.metadata.annotations or {}).get(wellknown.ALLOW_MODE_CHANGE)
    if allowed not in _TRUE:
        state = "is not there" if allowed is None else f"is {allowed!r}"
        raise _refused(
            draft,
            f"the claim wants volume mode {after}, its source volume had {before}, and the annotation "
            f"{wellknown.ALLOW_MODE_CHANGE} that would permit it {state} on VolumeSnapshotContent "
            f"{content.metadata.name}",
        )


# ---- clones (8.8)


def check_clone_claim(draft: Draft, source: PersistentVolumeClaim | None, *, under_way: bool = False) -> str:
    """Checks 1 to 7 on the source claim; answers the name of the volume to read next."""
    if source is None:
        raise _refused(draft, "there is no such claim")
    if source.status.phase != "Bound":
        raise _refused(draft, f"the source claim is {source.status.phase or 'without a phase'}, not Bound")
    if not (serves(source, draft.claim, under_way=under_way) and _is_held(source, wellknown.CLONE_FINALIZER)):
        raise _refused(draft, "the source claim is being deleted")
    # Both have to name a class, but it need not be the same one.
    if source.spec.storageClassName is None:
        raise _refused(draft, "the source claim has no storageClassName")
    if draft.claim.spec.storageClassName is None:
        raise _refused(draft, f"claim {kubernetes.key(draft.claim)} has no storageClassName")
    # What the source asked for, not its status.capacity: the driver may have given more than that.
    held = quantity.requested(source) or 0
    if draft.required_bytes < held:
        raise _refused(draft, f"the claim asks for {draft.required_bytes} bytes, less than the {held} of its source")
    if not source.spec.volumeName:
        raise _refused(draft, "the source claim names no volume")
    if not dns.is_subdomain(source.spec.volumeName):
        raise _vague(draft, f"it names the volume {source.spec.volumeName!r}, which no object can be called")
    return source.spec.volumeName


def clone_volume_unreadable(draft: Draft, volume: str, why: object) -> Refusal:
    """Check 8: the caller's GET of the source's volume failed."""
    return _vague(draft, f"cannot read PersistentVolume {volume}: {why}")


def check_clone_volume(draft: Draft, source: PersistentVolumeClaim, volume: PersistentVolume) -> Content:
    """Checks 9 to 14."""
    name = volume.metadata.name
    csi_source = volume.spec.csi
    if csi_source is None or not csi_source.volumeHandle:
        raise _vague(draft, f"PersistentVolume {name} has no CSI source that names a volume")
    # quirk Q10, not kept, as for snapshots
    if csi_source.driver != draft.driver.name:
        raise _vague(draft, f"PersistentVolume {name} is of driver {csi_source.driver}, not {draft.driver.name}")
    held_by, meta = volume.spec.claimRef, source.metadata
    if held_by is None or (held_by.uid, held_by.namespace, held_by.name) != (meta.uid, meta.namespace, meta.name):
        raise _vague(draft, f"PersistentVolume {name} is not bound to claim {kubernetes.key(source)}")
    phase = volume.status.phase if volume.status else None
    if phase != "Bound":
        raise _vague(draft, f"PersistentVolume {name} is {phase or 'without a phase'}, not Bound")
    if (draft.claim.spec.volumeMode == BLOCK) != (volume.spec.volumeMode == BLOCK):
        raise _refused(draft, "the claim and the volume of its source differ in volume mode")
    return Content(CLAIM_KIND, csi_source.volumeHandle)


# ---- protection of sources while they are used (12)


class Readers(msgspec.Struct, frozen=True):
    """The claims that may be filled from sources. `under_way` (by UID): those whose volume the driver may be making, or
    whose volume waits to be written. They may be deleted."""

    cached: Iterable[PersistentVolumeClaim]
    under_way: Mapping[str, PersistentVolumeClaim]

    def without(self, claim: PersistentVolumeClaim) -> "Readers":
        uid = claim.metadata.uid
        return Readers(
            [other for other in self.cached if other.metadata.uid != uid],
            {other: reader for other, reader in self.under_way.items() if other != uid},
        )

    def unfinished(self, phases: tuple[str | None, ...]) -> Iterator[PersistentVolumeClaim]:
        yield from self.under_way.values()
        yield from (claim for claim in self.cached if claim.status.phase in phases)


def serves(source: VolumeSnapshot | PersistentVolumeClaim, claim: PersistentVolumeClaim, *, under_way: bool) -> bool:
    """May this claim be filled from the source, even if that is being deleted?

    A copy that the driver has begun must be finished, or nobody asks for its volume again. The finalizer does not say
    for which claims it is there: it counts for those under way and, because a restart forgets these, for those made
    before the deletion. Times have whole seconds; within one second the resourceVersions decide.
    """
    gone, made = source.metadata, claim.metadata
    if not gone.deletionTimestamp or under_way:
        return True
    return (made.creationTimestamp or "", _version(made)) < (gone.deletionTimestamp, _version(gone))


def _version(meta: ObjectMeta) -> int:
    return int(meta.resourceVersion) if meta.resourceVersion.isdecimal() else 0


def _is_held(source: VolumeSnapshot | PersistentVolumeClaim, finalizer: str) -> bool:
    return not source.metadata.deletionTimestamp or finalizers.present(source, finalizer)


def unprotected(draft: Draft, code: int, why: object) -> str:
    """The write of a source's finalizer failed with this HTTP status: a warning to go on with, or a refusal.

    Rights on snapshots are optional in the published RBAC, so a Forbidden there must not stop provisioning.
    """
    if draft.source is not None and draft.source.kind == SNAPSHOT_KIND and code == 403:
        return f"snapshot {draft.source.key} is used without protection against its deletion"
    raise _refused(draft, f"cannot put the finalizer on it that keeps it while it is read: {why}")


def snapshot_to_release(claim: PersistentVolumeClaim) -> str | None:
    """Name of the snapshot, in the claim's namespace, whose finalizer goes once the volume is made (9.6)."""
    source = claim.spec.dataSource
    # Snapshots of other namespaces are left to the sweep. That another claim may still read this one is quirk Q12,
    # kept.
    return source.name if source is not None and source.kind == SNAPSHOT_KIND else None


def clone_pending(source: PersistentVolumeClaim, readers: Readers) -> bool:
    """Does a claim of the same namespace still wait to be cloned from `source` (12.2)?"""
    # Only dataSource counts: clones of other namespaces do not hold their source (quirk Q6, kept).
    return any(
        claim.spec.dataSource is not None
        and claim.spec.dataSource.kind == CLAIM_KIND
        and claim.spec.dataSource.name == source.metadata.name
        and claim.metadata.namespace == source.metadata.namespace
        and serves(source, claim, under_way=claim.metadata.uid in readers.under_way)
        for claim in readers.unfinished(("Pending",))
    )


def snapshot_users(readers: Readers) -> Mapping[str, list[PersistentVolumeClaim]]:
    """The unfinished claims that refer to a snapshot, by its `namespace/name` (12.3)."""
    users: dict[str, list[PersistentVolumeClaim]] = {}
    # Of all provisioners, because one of theirs may read the snapshot too. A new claim has no phase for a moment.
    for claim in readers.unfinished((None, "", "Pending")):
        for reference in (claim.spec.dataSource, claim.spec.dataSourceRef):
            if (
                reference is not None
                and reference.kind == SNAPSHOT_KIND
                and reference.apiGroup in (None, SNAPSHOT_GROUP)
            ):
                # dataSource knows no namespace, so this reads both alike
                namespace = reference.namespace or claim.metadata.namespace
                users.setdefault(f"{namespace}/{reference.name}", []).append(claim)
                break
    return users


def is_orphaned(
    snapshot: VolumeSnapshot, users: Mapping[str, list[PersistentVolumeClaim]], under_way: Container[str]
) -> bool:
    """Does the snapshot carry our finalizer for nobody?"""
    return finalizers.present(snapshot, wellknown.SNAPSHOT_FINALIZER) and not any(
        serves(snapshot, claim, under_way=claim.metadata.uid in under_way)
        for claim in users.get(kubernetes.key(snapshot), ())
    )


# ---- texts


def _refused(draft: Draft, why: str, detail: str = "") -> Refusal:
    claim = kubernetes.key(draft.claim)
    return Refusal(State.NO_CHANGE, f"{draft.source} cannot be the source of claim {claim}: {why}", detail)


def _vague(draft: Draft, detail: str) -> Refusal:
    return _refused(draft, "the source is not bound or not valid", detail)
