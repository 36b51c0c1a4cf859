"""Whether a claim is to be provisioned, by whom, and on which node (provision.md 4, 5 and 7.1).

Node ownership (row 3 of section 4) needs reads and writes and belongs to `nodes/`; a skip here is never worth an event.
"""

import msgspec

from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import NodeName, PersistentVolumeClaim, StorageClass
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import wellknown
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Ignored, Refusal

LATE_BINDING, IMMEDIATE_BINDING = "WaitForFirstConsumer", "Immediate"


class Provision(msgspec.Struct, frozen=True):
    """The claim is ours and ready."""


class Skip(msgspec.Struct, frozen=True):
    """Nothing to do; `reason` is for the debug log."""

    reason: str


class Fail(msgspec.Struct, frozen=True):
    """Cannot be decided yet: try again with back-off, without an event."""

    message: str


Verdict = Provision | Skip | Fail


def provisioner_of(claim: PersistentVolumeClaim) -> str | None:
    """The provisioner the volume controller chose; None if it has not. An empty new key still hides the beta one."""
    annotations = claim.metadata.annotations or {}
    if wellknown.STORAGE_PROVISIONER in annotations:
        return annotations[wellknown.STORAGE_PROVISIONER]
    return annotations.get(wellknown.BETA_STORAGE_PROVISIONER)


def claim_class(claim: PersistentVolumeClaim) -> str:
    """Name of the claim's class: the beta annotation wins, even when empty; "" is no class."""
    annotations = claim.metadata.annotations or {}
    if wellknown.BETA_STORAGE_CLASS in annotations:
        return annotations[wellknown.BETA_STORAGE_CLASS]
    return claim.spec.storageClassName or ""


def addressed_to(claim: PersistentVolumeClaim, driver: DriverFacts) -> bool:
    """Row 2 of section 4: annotated with the driver's name, or handed over to it from an in-tree plugin."""
    annotations = claim.metadata.annotations or {}
    return provisioner_of(claim) == driver.name or annotations.get(wellknown.MIGRATED_TO) == driver.name


def concerns(claim: PersistentVolumeClaim, driver: DriverFacts) -> bool:
    """Rows 1 and 2 of section 4, the cheap look that every claim of the cluster gets."""
    return not claim.spec.volumeName and addressed_to(claim, driver)


def decide(claim: PersistentVolumeClaim, storage_class: StorageClass | None, driver: DriverFacts) -> Verdict:
    """Rows 4 to 8 of section 4; `storage_class` is what the cache has under `claim_class(claim)`."""
    provisioner = provisioner_of(claim)
    if provisioner is None:
        return Skip("no provisioner has been chosen for the claim yet")
    if not driver.answers_to(provisioner):
        return Skip(f"the claim is for provisioner {provisioner!r}")
    if storage_class is None:
        return Fail(missing_class(claim))
    if storage_class.volumeBindingMode == LATE_BINDING and not scheduler_node(claim):
        return Skip("the claim waits for its first consumer: no node selected yet")
    return Provision()


def scheduler_node(claim: PersistentVolumeClaim) -> NodeName | None:
    """The node the scheduler or a per-node provisioner selected; None if the key is absent, maybe empty if present."""
    annotations = claim.metadata.annotations or {}
    node = annotations.get(wellknown.SELECTED_NODE)
    return None if node is None else NodeName(node)


def selected_node(claim: PersistentVolumeClaim) -> NodeName:
    """The node to provision for (section 5 step 6, where the alpha key still counts); "" if none."""
    node = scheduler_node(claim)
    if node is not None:
        return node
    return NodeName((claim.metadata.annotations or {}).get(wellknown.ALPHA_SELECTED_NODE, ""))


def check_addressed(claim: PersistentVolumeClaim, driver: DriverFacts) -> None:
    """Section 7.1 step 1: the same look again, on the claim the attempt is made with."""
    if not addressed_to(claim, driver):
        reason = f"claim {kubernetes.key(claim)} is for provisioner {provisioner_of(claim)!r}"
        raise Ignored(State.FINISHED, reason)


def check_class(claim: PersistentVolumeClaim, storage_class: StorageClass | None, driver: DriverFacts) -> StorageClass:
    """Section 5 steps 4 and 5: the class still exists and is still of this driver, or it was replaced meanwhile."""
    if storage_class is None:
        raise Refusal(State.FINISHED, missing_class(claim))
    if not driver.answers_to(storage_class.provisioner):
        name, provisioner = storage_class.metadata.name, storage_class.provisioner
        raise Ignored(State.FINISHED, f"StorageClass {name!r} is now of provisioner {provisioner!r}")
    return storage_class


def missing_class(claim: PersistentVolumeClaim) -> str:
    return (
        f"StorageClass {claim_class(claim)!r} of claim {kubernetes.key(claim)} does not exist; "
        "create it or make the claim anew with another class"
    )
