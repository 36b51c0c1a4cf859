"""Which volumes are ours, whether they are to be deleted, and how (delete.md 3 to 7).

Refusals carry a state because all do; deletion has no use for it: every failure is tried again with back-off.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from csi_provisioner.migration import TranslationError, translate
from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import (
    CSIVolumeSource,
    PersistentVolume,
    SecretReference,
    StorageClass,
    VolumeAttachment,
)
from csi_provisioner.model.outcome import State
from csi_provisioner.model.secret import SecretData
from csi_provisioner.planning import affinity, finalizers, secrets, wellknown
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal, not_ours, some
from csi_provisioner.planning.wellknown import VOLUME_FINALIZER

FinalizerChange = Literal["add", "remove"]


class Target(msgspec.Struct, frozen=True):
    """A volume in its CSI form; `migrated` says that the cluster has it in its in-tree form."""

    volume: PersistentVolume
    source: CSIVolumeSource
    migrated: bool


def is_responsible(volume: PersistentVolume, driver: DriverFacts) -> bool:
    """Section 3."""
    annotations = volume.metadata.annotations or {}
    made_by, migrated_to = annotations.get(wellknown.PROVISIONED_BY), annotations.get(wellknown.MIGRATED_TO)
    if made_by is not None:
        # Where it is, it decides alone: a volume of an in-tree plugin may have been made by the driver that took over.
        return driver.answers_to(made_by) or driver.answers_to(migrated_to)
    # Volumes that people wrote by hand have no such annotation. They are deleted by the driver that they name.
    return driver.answers_to(migrated_to if volume.spec.csi is None else volume.spec.csi.driver)


def finalizer_change(volume: PersistentVolume) -> FinalizerChange | None:
    """What section 4 asks for on a volume we are responsible for."""
    guarded = finalizers.present(volume, VOLUME_FINALIZER)
    # Retained volumes are never deleted here, so that our finalizer would keep their objects for ever.
    if guarded:
        return "remove" if volume.spec.persistentVolumeReclaimPolicy in ("Retain", "Recycle") else None
    # For volumes made by hand or by an old version. With the finalizer it does not matter whether the volume or its
    # claim is deleted first: the driver is asked in any case.
    wanted = (
        volume.spec.persistentVolumeReclaimPolicy == "Delete"
        and not volume.metadata.deletionTimestamp
        and _phase(volume) == "Bound"
    )
    return "add" if wanted else None


def finalizer_patch(change: FinalizerChange) -> dict[str, Any]:
    """A strategic-merge patch of our entry alone: finalizers are a merge list, so others' changes survive."""
    key = "finalizers" if change == "add" else "$deleteFromPrimitiveList/finalizers"
    return {"metadata": {key: [VOLUME_FINALIZER]}}


def should_delete(volume: PersistentVolume) -> bool:
    """Section 5. A volume being deleted without our finalizer has been handled before."""
    if volume.metadata.deletionTimestamp and not finalizers.present(volume, VOLUME_FINALIZER):
        return False
    # Whether the claim is gone is decided by Kubernetes, which says Released then; the claimRef is not looked at.
    # Failed is for people: they have to look at it.
    return _phase(volume) == "Released" and volume.spec.persistentVolumeReclaimPolicy == "Delete"


def target(volume: PersistentVolume) -> Target:
    """Rows 2 and 3 of section 7."""
    name = volume.metadata.name
    try:
        # Of any plugin that is known, not only of ours: section 3 has decided that the volume is ours.
        translated = translate.volume_to_csi(volume)
    except TranslationError as error:
        raise Refusal(State.FINISHED, f"cannot delete volume {name}: {error}") from error
    volume = translated or volume
    if volume.spec.csi is None or not volume.spec.csi.volumeHandle:
        raise Refusal(State.FINISHED, f"cannot delete volume {name}: it has no CSI source that names a volume")
    return Target(volume, volume.spec.csi, migrated=translated is not None)


def handle(volume: PersistentVolume) -> str | None:
    """The volume's id for its driver; "" for a volume of no CSI driver, None if its in-tree form cannot be read."""
    try:
        source = (translate.volume_to_csi(volume) or volume).spec.csi
    except TranslationError:
        return None
    return source.volumeHandle if source else ""


def check_accessible(volume: PersistentVolume, segments: Mapping[str, str] | None) -> None:
    """Row 4, per-node deployment only: `segments` are the local driver's topology, None if it reports none."""
    required = volume.spec.nodeAffinity.required if volume.spec.nodeAffinity else None
    if required is None or segments is None:
        return
    if not affinity.matches(required, segments):
        raise not_ours(f"volume {volume.metadata.name} is not of this node")


def watches_attachments(driver: DriverFacts) -> bool:
    """Without this capability nothing attaches, and VolumeAttachments are neither watched nor asked."""
    return "PUBLISH_UNPUBLISH_VOLUME" in driver.controller


class Attached(Refusal):
    """The volume is still on `nodes`: that is no failure, and waited for."""

    def __init__(self, name: str, attachments: Sequence[VolumeAttachment]) -> None:
        self.nodes = nodes(attachments)
        objects, it = ("VolumeAttachments", "they are") if len(attachments) > 1 else ("VolumeAttachment", "it is")
        super().__init__(
            State.FINISHED,
            f"volume {name} is still attached to node{'s' * (len(self.nodes) > 1)} {some(self.nodes)} "
            f"({objects} {some(sorted(attachment.metadata.name for attachment in attachments))}), and is deleted once "
            f"{it} gone; a node that is shut down for good lets go once it is deleted, or tainted "
            "node.kubernetes.io/out-of-service",
        )


def nodes(attachments: Iterable[VolumeAttachment]) -> tuple[str, ...]:
    return tuple(sorted({attachment.spec.nodeName for attachment in attachments}))


def check_detached(volume: PersistentVolume, attachments: Iterable[VolumeAttachment]) -> None:
    """Row 7: that an attachment exists is enough, whatever it says of itself."""
    name = volume.metadata.name
    # One that is being deleted counts too: until it is gone, a node may still write to the volume.
    found = [attachment for attachment in attachments if attachment.spec.source.persistentVolumeName == name]
    if found:
        raise Attached(name, found)


class SecretOf(Protocol):
    """The reference to the secret that a volume would be deleted with. A Refusal: its deletion cannot be asked for."""

    def __call__(self, volume: PersistentVolume) -> SecretReference | None: ...


def secret_of(class_of: Callable[[str], StorageClass | None], driver: DriverFacts) -> SecretOf:
    def found(volume: PersistentVolume) -> SecretReference | None:
        return secrets.deletion_reference(volume, class_of, driver, migrated=volume.spec.csi is None).reference

    return found


def named_besides(
    volume: PersistentVolume, same_handle: Iterable[PersistentVolume], secret_of: SecretOf
) -> list[PersistentVolume]:
    """Others of those for which the driver would be asked to delete the very same: an id may be unique only to the
    back end that a secret opens."""

    def is_same(other: PersistentVolume) -> bool:
        try:
            return secret_of(other) == secret_of(volume)
        except Refusal:
            return True  # nobody can tell

    return [other for other in same_handle if other.metadata.name != volume.metadata.name and is_same(other)]


def check_unshared(
    volume: PersistentVolume,
    same_handle: Iterable[PersistentVolume],
    segments: Mapping[str, str] | None,
    secret_of: SecretOf,
) -> None:
    """It is not deleted from under another PersistentVolume. Two that are both to be deleted do not wait for each
    other, and a driver of one node may give an id that another node's gives too."""
    name = volume.metadata.name
    for other in named_besides(volume, same_handle, secret_of):
        if should_delete(other):
            continue
        try:
            check_accessible(other, segments)
        except Refusal:
            continue
        raise Refusal(
            State.FINISHED,
            f"volume {name} is not deleted while {described(other)} names the same volume of the driver; if both were "
            f"made for claims, the driver gave one id twice. To let PersistentVolume {name} go without its volume, set "
            "its reclaim policy to Retain and delete it",
        )


def described(volume: PersistentVolume) -> str:
    """For people: with its claim, which says more to them."""
    claim = volume.spec.claimRef
    return f"PersistentVolume {volume.metadata.name}" + (f" (claim {claim.namespace}/{claim.name})" if claim else "")


def request(target: Target, data: SecretData | None) -> csi.DeleteVolumeRequest:
    """Row 8: the handle unchanged."""
    return csi.DeleteVolumeRequest(volume_id=target.source.volumeHandle, secrets=data.reveal() if data else {})


def released_at(volume: PersistentVolume) -> float | None:
    """When, in seconds since 1970; None where the API server does not tell."""
    when = volume.status.lastPhaseTransitionTime if volume.status is not None else None
    try:
        return datetime.fromisoformat(when).timestamp() if when and _phase(volume) == "Released" else None
    except ValueError:
        return None


def _phase(volume: PersistentVolume) -> str | None:
    return volume.status.phase if volume.status else None
