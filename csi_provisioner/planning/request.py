"""From a claim to the CreateVolumeRequest: what is decided first, what is put together last (provision.md 8 and 9.1).

In between the caller reads what `sources`, `secrets` and `attributes_class` ask for, in the order of section 8.
"""

from collections.abc import Iterable, Mapping

import msgspec

from csi_provisioner.model import csi, kubernetes
from csi_provisioner.model.kubernetes import PersistentVolumeClaim, ReferenceGrant
from csi_provisioner.model.outcome import State
from csi_provisioner.model.secret import SecretData
from csi_provisioner.planning import (
    attributes_class,
    capabilities,
    claim_annotations,
    gate,
    naming,
    parameters,
    quantity,
    sources,
    steps,
)
from csi_provisioner.planning.classes import ClassPlan
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal, accepted
from csi_provisioner.planning.secrets import References
from csi_provisioner.planning.sources import Content
from csi_provisioner.planning.steps import at
from csi_provisioner.planning.wellknown import SNAPSHOT_KIND
from csi_provisioner.settings import ProvisioningSettings

NO_SECRET = SecretData()

LARGEST = 4 << 20
"""Bytes that a gRPC server takes unless it is told otherwise. It would answer more with ResourceExhausted, for which
another node is chosen, again and again."""


class Plan(msgspec.Struct, frozen=True):
    """Everything the call and the volume after it need. `secrets` are kept for the undo of an unusable volume."""

    draft: Draft
    request: csi.CreateVolumeRequest
    references: References
    secrets: SecretData
    expects_content: bool
    remark: str = ""
    """What is to be said besides if the call fails."""

    def __repr__(self) -> str:
        # the request holds secret values
        return f"Plan(volume {self.draft.name} for claim {kubernetes.key(self.draft.claim)})"


def draft(
    claim: PersistentVolumeClaim,
    class_plan: ClassPlan,
    driver: DriverFacts,
    settings: ProvisioningSettings,
    grants: Iterable[ReferenceGrant] = (),
) -> Draft:
    """Rows 2 to 11 of section 8, in their order."""
    # The order is a contract: of several mistakes people are told the same one as by the reference.
    with at(steps.SOURCE):
        source = sources.normalise(claim, settings, grants)
    with at(steps.CLASS):
        accepted(class_plan.translation)
    with at(steps.SOURCE):
        if source is not None:
            sources.check_kind(source, claim)
    with at(steps.ATTRIBUTES):
        attributes_name = attributes_class.wanted(claim, settings)
    with at(steps.DRIVER):
        capabilities.check_driver(driver, source.kind if source else "", attributes_class=attributes_name is not None)
    # An empty selector is one too.
    if claim.spec.selector is not None:
        raise Refusal(
            State.FINISHED,
            f"claim {kubernetes.key(claim)} has a selector, which looks for existing volumes and cannot be met "
            "by a new one; make the claim anew without it",
        )
    name = naming.volume_name(claim.metadata.uid, settings)
    with at(steps.PARAMETERS):
        fstype = accepted(class_plan.fstype) or settings.default_fstype
    return Draft(
        claim=claim,
        class_plan=class_plan,
        driver=driver,
        name=name,
        fstype=fstype,
        required_bytes=quantity.requested(claim) or 0,
        capabilities=capabilities.of_claim(claim, driver, fstype, class_plan.effective.mountOptions),
        source=source,
        attributes_class=attributes_name,
        selected_node=gate.selected_node(claim),
        annotations=claim_annotations.under(settings.claim_annotation_prefixes, claim.metadata.annotations),
    )


def check_parameters(draft: Draft) -> None:
    """Row 18 alone: it comes before the VolumeAttributesClass of row 20 is read."""
    accepted(draft.class_plan.parameters)
    claim_annotations.check(draft)


def finish(
    draft: Draft,
    content: Content | None,
    requirement: csi.TopologyRequirement | None,
    references: References,
    secrets: SecretData | None,
    mutable_parameters: dict[str, str] | None,
    settings: ProvisioningSettings,
) -> Plan:
    """Rows 18 and 19, and the request."""
    given = {**accepted(draft.class_plan.parameters), **draft.annotations}
    # After the reserved keys are gone, because these three have the same prefix.
    if settings.extra_create_metadata:
        given.update(parameters.metadata(draft.claim, draft.name))
    claim_annotations.check_size(draft, given)
    secrets = secrets or NO_SECRET
    request = csi.CreateVolumeRequest(
        name=draft.name,
        # limit_bytes is never set: a volume may be larger than what was asked for.
        capacity_range=csi.CapacityRange(required_bytes=draft.required_bytes),
        volume_capabilities=list(draft.capabilities),
        parameters=given,
        secrets=secrets.reveal(),
        volume_content_source=_content_source(content),
        accessibility_requirements=requirement,
        mutable_parameters=mutable_parameters or {},
    )
    size = size_of(request)
    if size > LARGEST:
        raise Refusal(
            State.NO_CHANGE,
            f"the request for claim {kubernetes.key(draft.claim)} has {size} bytes, and drivers take {LARGEST}: give "
            f"StorageClass {draft.class_plan.original.metadata.name} fewer or shorter allowedTopologies, mount options "
            "and parameters, or the claim fewer access modes",
        )
    return Plan(draft, request, references, secrets, _expects_content(draft.claim, settings))


def size_of(request: csi.CreateVolumeRequest) -> int:
    """Its size on the wire, to within a few hundred bytes: only what people can make long is counted. Encoding it would
    take longer."""
    places, capabilities = request.accessibility_requirements, request.volume_capabilities
    size = sum(_map_size(given) for given in (request.parameters, request.secrets, request.mutable_parameters))
    if places is not None:
        size += 2 * sum(_field_size(_map_size(place.segments)) for place in places.requisite)  # and once as preferred
    if capabilities and (mount := capabilities[0].mount) is not None:
        flags = sum(_field_size(len(flag.encode())) for flag in mount.mount_flags)
        mode = 2 + 2  # the access mode, a number in a message
        size += len(capabilities) * _field_size(_field_size(flags + _field_size(len(mount.fs_type.encode()))) + mode)
    return size


def _map_size(texts: Mapping[str, str]) -> int:
    entries = (_field_size(len(key.encode())) + _field_size(len(value.encode())) for key, value in texts.items())
    return sum(_field_size(entry) for entry in entries)


def _field_size(length: int) -> int:
    """Of a field with so many bytes of content: its tag and the length come before them."""
    return length + (2 if length < 1 << 7 else 3 if length < 1 << 14 else 4)


def _content_source(content: Content | None) -> csi.VolumeContentSource | None:
    if content is None:
        return None
    if content.kind == SNAPSHOT_KIND:
        return csi.VolumeContentSource(snapshot=csi.VolumeContentSourceSnapshotSource(snapshot_id=content.handle))
    return csi.VolumeContentSource(volume=csi.VolumeContentSourceVolumeSource(volume_id=content.handle))


def _expects_content(claim: PersistentVolumeClaim, settings: ProvisioningSettings) -> bool:
    """Must the answer name its source (9.3 check 4)?"""
    reference = claim.spec.dataSourceRef
    crossing = settings.cross_namespace and reference is not None and bool(reference.namespace)
    # Without a namespace the API server has copied dataSourceRef to dataSource, unless it names a populator, whose
    # claims never come this far.
    return claim.spec.dataSource is not None or crossing
