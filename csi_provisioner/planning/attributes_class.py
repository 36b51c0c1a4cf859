"""VolumeAttributesClass (provision.md 8.10): whether one is to be read, and its parameters for the driver."""

from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import PersistentVolumeClaim, VolumeAttributesClass
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import dns
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.settings import ProvisioningSettings


def wanted(claim: PersistentVolumeClaim, settings: ProvisioningSettings) -> str | None:
    """The name to read; None also when the gate is off, whatever the claim says."""
    name = claim.spec.volumeAttributesClassName
    # With the gate off nothing is asked for and the volume does not name the class either (section 8.10).
    if not name or not settings.volume_attributes_class:
        return None
    if not dns.is_subdomain(name):
        raise Refusal(
            State.NO_CHANGE,
            f"claim {kubernetes.key(claim)} names the VolumeAttributesClass {name!r}, which no object can be called",
        )
    return name


def unreadable(draft: Draft, why: object) -> Refusal:
    """The caller's GET failed, for whatever reason."""
    return Refusal(
        State.NO_CHANGE,
        f"cannot read VolumeAttributesClass {draft.attributes_class} of claim {kubernetes.key(draft.claim)}: {why}",
    )


def mutable_parameters(draft: Draft, found: VolumeAttributesClass) -> dict[str, str]:
    """Its parameters as they are: neither stripped nor mixed with those of the StorageClass."""
    # These classes belong to no driver by their place: a claim can name that of another one.
    if found.driverName != draft.driver.name:
        raise Refusal(
            State.FINISHED,
            f"VolumeAttributesClass {found.metadata.name} of claim {kubernetes.key(draft.claim)} is for driver "
            f"{found.driverName}, not {draft.driver.name}; name another one",
        )
    return dict(found.parameters or {})
