"""Everything that is read or written for a claim before the driver is asked, in the order of provision.md 8.

Each stage is one rule of `planning` that says what to read next, and one await. No decision is made here; what the
rules refuse comes out as their `Refusal`.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log
from csi_provisioner.model import csi, kubernetes
from csi_provisioner.model.kubernetes import (
    PersistentVolume,
    PersistentVolumeClaim,
    ReferenceGrant,
    Secret,
    SecretReference,
    StorageClass,
    VolumeAttributesClass,
    VolumeSnapshot,
    VolumeSnapshotContent,
)
from csi_provisioner.model.secret import SecretData
from csi_provisioner.planning import attributes_class, classes, finalizers, request, secrets, sources
from csi_provisioner.planning.classes import ClassPlan
from csi_provisioner.planning.draft import DataSource, Draft
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.request import Plan
from csi_provisioner.planning.sources import Content
from csi_provisioner.planning.wellknown import CLONE_FINALIZER, SNAPSHOT_FINALIZER, SNAPSHOT_KIND
from csi_provisioner.settings import ProvisioningSettings

# More than any cluster has classes of one driver at a time
CLASS_PLANS = 500

Source = TypeVar("Source", PersistentVolumeClaim, VolumeSnapshot)


class Placement(Protocol):
    """Where a volume may be made (topology.md); asked only while topology is active."""

    def requirement(self, draft: Draft) -> csi.TopologyRequirement | None: ...
    def forget(self, uid: str) -> None:
        """The next try for this claim may ask for another place."""


class Gatherer:
    """`grants` are all cached ReferenceGrants; `placement` is None while topology is not active. `under_way(uid)`: the
    driver may be at work on the volume of that claim."""

    def __init__(
        self,
        kube: KubeClient,
        claims: Store[PersistentVolumeClaim],
        facts: DriverFacts,
        settings: ProvisioningSettings,
        *,
        grants: Callable[[], Iterable[ReferenceGrant]],
        placement: Placement | None,
        under_way: Callable[[str], bool],
    ) -> None:
        self._kube = kube
        self._claims = claims
        self._facts = facts
        self._settings = settings
        self._grants = grants
        self._placement = placement
        self._under_way = under_way
        self._class_plans: dict[str, tuple[str, str, ClassPlan]] = {}

    async def plan(self, claim: PersistentVolumeClaim, storage_class: StorageClass, *, protect: bool = True) -> Plan:
        """The complete request. `protect=False` leaves the sources without finalizers, for a look that changes nothing.

        Raises `Refusal`; cancellation between two writes is harmless, each is repeated by the next try.
        """
        draft = request.draft(claim, self.class_plan(storage_class), self._facts, self._settings, self._grants())
        _warn(draft.warnings, draft)
        content = await self._content(draft, protect) if draft.source else None
        requirement = self._placement.requirement(draft) if self._placement else None
        reference = secrets.provisioner_reference(draft)
        data = await self._secret(draft, reference) if reference else None
        references = secrets.references(draft)
        request.check_parameters(draft)
        mutable = await self._mutable_parameters(draft) if draft.attributes_class else None
        return request.finish(draft, content, requirement, references, data, mutable, self._settings)

    def class_plan(self, storage_class: StorageClass) -> ClassPlan:
        """Made once for each version of the class."""
        meta = storage_class.metadata
        known = self._class_plans.get(meta.name)
        if known is not None and known[:2] == (meta.uid, meta.resourceVersion):
            return known[2]
        if len(self._class_plans) >= CLASS_PLANS:
            self._class_plans.clear()  # classes come and go under new names; reading one again costs little
        plan = classes.read(storage_class, self._facts)
        self._class_plans[meta.name] = (meta.uid, meta.resourceVersion, plan)
        return plan

    async def _content(self, draft: Draft, protect: bool) -> Content:
        assert draft.source is not None
        if draft.source.kind == SNAPSHOT_KIND:
            return await self._snapshot(draft, draft.source, protect)
        return await self._clone(draft, draft.source, protect)

    async def _snapshot(self, draft: Draft, source: DataSource, protect: bool) -> Content:
        try:
            snapshot = await self._kube.get(VolumeSnapshot, source.name, source.namespace)
        except KubeError as error:
            raise sources.snapshot_unreadable(draft, error) from error
        name = sources.check_snapshot(draft, snapshot, under_way=self._under_way(draft.claim.metadata.uid))
        try:
            found = await self._kube.get(VolumeSnapshotContent, name)
        except KubeError as error:
            raise sources.content_unreadable(draft, name, error) from error
        content = sources.check_content(draft, snapshot, found, self._settings)
        _warn(content.warnings, draft)
        if protect and not finalizers.present(snapshot, SNAPSHOT_FINALIZER):
            await self._protect(draft, VolumeSnapshot, snapshot, SNAPSHOT_FINALIZER)
        return content

    async def _clone(self, draft: Draft, source: DataSource, protect: bool) -> Content:
        claim = await self._source_claim(source)
        name = sources.check_clone_claim(draft, claim, under_way=self._under_way(draft.claim.metadata.uid))
        assert claim is not None
        try:
            volume = await self._kube.get(PersistentVolume, name)
        except KubeError as error:
            raise sources.clone_volume_unreadable(draft, name, error) from error
        content = sources.check_clone_volume(draft, claim, volume)
        if protect and not finalizers.present(claim, CLONE_FINALIZER):
            changed = await self._protect(draft, PersistentVolumeClaim, claim, CLONE_FINALIZER)
            if changed is not None:
                self._claims.remember(changed)
        return content

    async def _source_claim(self, source: DataSource) -> PersistentVolumeClaim | None:
        claim = self._claims.get(source.key)
        if claim is not None or source.key not in self._claims:
            return claim
        try:  # the cache keeps no more than the names of claims that other provisioners made
            return await self._kube.get(PersistentVolumeClaim, source.name, source.namespace)
        except KubeError as error:
            if error.not_found:
                return None
            raise

    async def _protect(self, draft: Draft, kind: type[Source], obj: Source, finalizer: str) -> Source | None:
        meta = obj.metadata
        try:
            changed = await self._kube.change(
                kind,
                meta.name,
                meta.namespace,
                seen=meta.resourceVersion,
                edit=lambda raw: finalizers.add(raw, finalizer),
            )
        except KubeError as error:
            log.warning(sources.unprotected(draft, error.code, error), PVC=draft.claim, err=error)
            return None
        log.v(
            3,
            "Protected a source against deletion",
            kind=kind.__name__,
            source=kubernetes.key(obj),
            finalizer=finalizer,
        )
        return changed

    async def _secret(self, draft: Draft, reference: SecretReference) -> SecretData:
        try:
            secret = await self._kube.get(Secret, reference.name, reference.namespace)
        except KubeError as error:
            raise secrets.unreadable(draft, reference, error) from error
        return secrets.decoded(secret)

    async def _mutable_parameters(self, draft: Draft) -> dict[str, str]:
        name = draft.attributes_class or ""
        try:
            found = await self._kube.get(VolumeAttributesClass, name)
        except KubeError as error:
            raise attributes_class.unreadable(draft, error) from error
        return attributes_class.mutable_parameters(draft, found)


def _warn(warnings: Iterable[str], draft: Draft) -> None:
    for warning in warnings:
        log.warning(warning, PVC=draft.claim)
