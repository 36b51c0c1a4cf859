"""The PersistentVolume of a volume that was made (provision.md 10), and its in-tree form for a migrated class (9.5)."""

from csi_provisioner.migration import TranslationError, translate
from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import (
    CSIVolumeSource,
    ObjectMeta,
    ObjectReference,
    PersistentVolume,
    PersistentVolumeClaim,
    VolumeSpec,
)
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import affinity, gate, quantity, templates, wellknown
from csi_provisioner.planning.capabilities import BLOCK
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.request import Plan
from csi_provisioner.planning.secrets import References
from csi_provisioner.settings import ProvisioningSettings


def compose(
    plan: Plan, made: csi.Volume, driver: DriverFacts, identity: str, settings: ProvisioningSettings
) -> PersistentVolume:
    """Always the CSI form: it is also what is deleted again if its translation fails."""
    draft, references = plan.draft, plan.references
    claim, storage_class = draft.claim, draft.class_plan.original
    return PersistentVolume(
        metadata=ObjectMeta(
            name=draft.name,
            # Of the class as it is in the cluster: an in-tree class keeps its own name there.
            annotations=_annotations(storage_class.provisioner, references),
            # Whatever the reclaim policy: it is taken off again where volumes are retained (delete.md 4).
            finalizers=[wellknown.VOLUME_FINALIZER],
        ),
        spec=VolumeSpec(
            accessModes=claim.spec.accessModes,
            mountOptions=storage_class.mountOptions,
            capacity={"storage": quantity.format(made.capacity_bytes)},
            persistentVolumeReclaimPolicy=storage_class.reclaimPolicy,
            nodeAffinity=affinity.of_answer(made.accessible_topology) if driver.topology else None,
            volumeMode=claim.spec.volumeMode,
            storageClassName=gate.claim_class(claim),
            volumeAttributesClassName=draft.attributes_class,
            claimRef=claim_reference(claim),
            csi=CSIVolumeSource(
                driver=driver.name,
                volumeHandle=made.volume_id,
                fsType="" if claim.spec.volumeMode == BLOCK else draft.fstype,
                readOnly=settings.controller_publish_readonly and _is_read_only(draft.capabilities),
                # The driver wins, should it use the same key.
                volumeAttributes={wellknown.IDENTITY_ATTRIBUTE: identity} | made.volume_context,
                controllerPublishSecretRef=references.get(templates.CONTROLLER_PUBLISH),
                nodeStageSecretRef=references.get(templates.NODE_STAGE),
                nodePublishSecretRef=references.get(templates.NODE_PUBLISH),
                controllerExpandSecretRef=references.get(templates.CONTROLLER_EXPAND),
                nodeExpandSecretRef=references.get(templates.NODE_EXPAND),
            ),
        ),
    )


def to_in_tree(plan: Plan, volume: PersistentVolume) -> PersistentVolume:
    """The form a migrated class calls for; the volume as it is for any other.

    On Refusal the caller deletes the volume (quirk Q2, not kept): the refusal's state applies if that works, else
    `InBackground`.
    """
    if not plan.draft.class_plan.migrated:
        return volume
    try:
        return translate.volume_to_in_tree(volume, plan.draft.driver.name)
    except TranslationError as error:
        raise Refusal(
            State.FINISHED,
            f"cannot write volume {plan.draft.name} of driver {plan.draft.driver.name} as a volume of "
            f"{plan.draft.class_plan.original.provisioner}: {error}",
        ) from error


def claim_reference(claim: PersistentVolumeClaim) -> ObjectReference:
    """The claim as this try saw it: its resourceVersion too."""
    meta = claim.metadata
    return ObjectReference(wellknown.CLAIM_KIND, "v1", meta.name, meta.namespace, meta.uid, meta.resourceVersion)


def _annotations(provisioner: str, references: References) -> dict[str, str]:
    deletion, modify = references.get(templates.PROVISIONER), references.get(templates.CONTROLLER_MODIFY)
    annotations = {
        wellknown.PROVISIONED_BY: provisioner,
        # both keys always: their presence tells the deletion not to look at the class (delete.md 8)
        wellknown.DELETION_SECRET_NAME: deletion.name if deletion else "",
        wellknown.DELETION_SECRET_NAMESPACE: deletion.namespace if deletion else "",
    }
    if modify is not None:
        annotations[wellknown.MODIFY_SECRET_NAME] = modify.name
        annotations[wellknown.MODIFY_SECRET_NAMESPACE] = modify.namespace
    return annotations


def _is_read_only(capabilities: tuple[csi.VolumeCapability, ...]) -> bool:
    # With a second mode somebody may write to the volume.
    modes = [capability.access_mode.mode for capability in capabilities if capability.access_mode]
    return modes == [csi.VolumeCapabilityAccessModeMode.MULTI_NODE_READER_ONLY]
