"""Everything that is read or written for a claim before the driver is asked, in the order of provision.md 8.

Each stage is one rule of `planning` that says what to read next, and one await. No decision is made here; what the
rules refuse comes out as their `Refusal`.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

import msgspec
from lightkube.core.resource import Resource

from csi_provisioner.kube.client import KubeClient, KubeError, U
from csi_provisioner.logs import log
from csi_provisioner.model import kubernetes
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
from csi_provisioner.planning import attributes_class, classes, finalizers, request, secrets, sources, steps
from csi_provisioner.planning.classes import ClassPlan
from csi_provisioner.planning.draft import DataSource, Draft
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.request import Plan
from csi_provisioner.planning.sources import Content
from csi_provisioner.planning.steps import at
from csi_provisioner.planning.wellknown import CLONE_FINALIZER, SNAPSHOT_FINALIZER, SNAPSHOT_KIND
from csi_provisioner.settings import ProvisioningSettings

from .placement import ClusterPlacement

# More than any cluster has classes of one driver at a time
CLASS_PLANS = 500

T = TypeVar("T", bound=Resource)


class Gatherer(msgspec.Struct, eq=False):
    """`grants` are all cached ReferenceGrants; `placement` is None while topology is not active. `under_way(uid)`: the
    driver may be at work on the volume of that claim; `taken(uid)`: with these annotations."""

    kube: KubeClient
    facts: DriverFacts
    settings: ProvisioningSettings
    grants: Callable[[], Iterable[ReferenceGrant]]
    placement: ClusterPlacement | None
    under_way: Callable[[str], bool]
    taken: Callable[[str], Mapping[str, str] | None]
    _class_plans: dict[str, tuple[str, str, ClassPlan]] = msgspec.field(default_factory=dict)

    async def plan(self, claim: PersistentVolumeClaim, storage_class: StorageClass, *, protect: bool = True) -> Plan:
        """The complete request. `protect=False` leaves the sources without finalizers, for a look that changes nothing.

        Raises `Refusal`; cancellation between two writes is harmless, each is repeated by the next try.
        """
        # In the order of provision.md 8: of several things that are wrong, people are told the first.
        with at(steps.CLAIM):
            draft = request.draft(claim, self.class_plan(storage_class), self.facts, self.settings, self.grants())
        taken = self.taken(claim.metadata.uid)
        draft = draft if taken is None else msgspec.structs.replace(draft, annotations=taken)
        _warn(draft.class_plan.warnings, draft)
        with at(steps.SOURCE):
            content = await self._content(draft, protect) if draft.source else None
        with at(steps.TOPOLOGY):
            requirement = self.placement.requirement(draft, content) if self.placement else None
        with at(steps.SECRET):
            reference = secrets.provisioner_reference(draft)
            data = await self._secret(draft, reference) if reference else None
            references = secrets.references(draft)
        # Said before the VolumeAttributesClass is read, which may be missing as well.
        with at(steps.PARAMETERS):
            request.check_parameters(draft)
        with at(steps.ATTRIBUTES):
            mutable = await self._mutable_parameters(draft) if draft.attributes_class else None
        with at(steps.PARAMETERS):
            plan = request.finish(draft, content, requirement, references, data, mutable, self.settings)
        remark = self.placement.remark(draft, content) if self.placement else ""
        return msgspec.structs.replace(plan, remark=remark) if remark else plan

    def class_plan(self, storage_class: StorageClass) -> ClassPlan:
        """Made once for each version of the class."""
        meta = storage_class.metadata
        known = self._class_plans.get(meta.name)
        if known is not None and known[:2] == (meta.uid, meta.resourceVersion):
            return known[2]
        if len(self._class_plans) >= CLASS_PLANS:
            self._class_plans.clear()  # classes come and go under new names; reading one again costs little
        plan = classes.read(storage_class, self.facts)
        self._class_plans[meta.name] = (meta.uid, meta.resourceVersion, plan)
        return plan

    async def _content(self, draft: Draft, protect: bool) -> Content:
        assert draft.source is not None
        if draft.source.kind == SNAPSHOT_KIND:
            return await self._snapshot(draft, draft.source, protect)
        return await self._clone(draft, draft.source, protect)

    async def _snapshot(self, draft: Draft, source: DataSource, protect: bool) -> Content:
        unreadable = partial(sources.source_unreadable, draft)
        snapshot = await self._read(VolumeSnapshot, source.name, source.namespace, unreadable)
        name = sources.check_snapshot(draft, snapshot, under_way=self.under_way(draft.claim.metadata.uid))
        found = await self._read(VolumeSnapshotContent, name, None, partial(sources.content_unreadable, draft, name))
        content = sources.check_content(draft, snapshot, found, self.settings)
        _warn(content.warnings, draft)
        # After the checks: what is refused leaves no finalizer on an object of other people.
        if protect and not finalizers.present(snapshot, SNAPSHOT_FINALIZER):
            await self._protect(draft, snapshot, SNAPSHOT_FINALIZER)
        return content

    async def _clone(self, draft: Draft, source: DataSource, protect: bool) -> Content:
        # Its cache keeps no more of most claims than that they are there.
        claim: PersistentVolumeClaim | None = None
        try:
            claim = await self.kube.get(PersistentVolumeClaim, source.name, source.namespace)
        except KubeError as error:
            if not error.not_found:
                raise sources.source_unreadable(draft, error) from error
        name = sources.check_clone_claim(draft, claim, under_way=self.under_way(draft.claim.metadata.uid))
        assert claim is not None
        volume = await self._read(PersistentVolume, name, None, partial(sources.clone_volume_unreadable, draft, name))
        content = sources.check_clone_volume(draft, claim, volume)
        if protect and not finalizers.present(claim, CLONE_FINALIZER):
            await self._protect(draft, claim, CLONE_FINALIZER)
        return content

    async def _protect(self, draft: Draft, source: U, finalizer: str) -> None:
        try:
            await self.kube.update(source, lambda raw: finalizers.add(raw, finalizer))
        except KubeError as error:
            log.warning(sources.unprotected(draft, error.code, error), PVC=draft.claim, err=error)
            return
        named = {"kind": type(source).__name__, "source": kubernetes.key(source), "finalizer": finalizer}
        log.v(3, "Protected a source against deletion", **named)

    async def _secret(self, draft: Draft, reference: SecretReference) -> SecretData:
        unreadable = partial(secrets.unreadable, draft, reference)
        return secrets.decoded(await self._read(Secret, reference.name, reference.namespace, unreadable))

    async def _mutable_parameters(self, draft: Draft) -> dict[str, str]:
        unreadable = partial(attributes_class.unreadable, draft)
        found = await self._read(VolumeAttributesClass, draft.attributes_class or "", None, unreadable)
        return attributes_class.mutable_parameters(draft, found)

    async def _read(
        self, kind: type[T], name: str, namespace: str | None, unreadable: Callable[[KubeError], Refusal]
    ) -> T:
        try:
            return await self.kube.get(kind, name, namespace)
        except KubeError as error:
            raise unreadable(error) from error


def _warn(warnings: Iterable[str], draft: Draft) -> None:
    for warning in warnings:
        log.warning(warning, PVC=draft.claim)
