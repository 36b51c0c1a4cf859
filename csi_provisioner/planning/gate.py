"""Whether a claim is to be provisioned, by whom, and on which node (provision.md 4, 5 and 7.1).

Node ownership (row 3 of section 4) needs reads and writes and belongs to `nodes/`; a skip here is never worth an event.
"""

from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import NodeName, PersistentVolumeClaim, StorageClass
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import steps, wellknown
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal, not_ours

LATE_BINDING, IMMEDIATE_BINDING = "WaitForFirstConsumer", "Immediate"


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
    # The in-tree name alone is not enough: until Kubernetes writes migrated-to, the in-tree plugin makes the volume.
    return provisioner_of(claim) == driver.name or annotations.get(wellknown.MIGRATED_TO) == driver.name


def concerns(claim: PersistentVolumeClaim, driver: DriverFacts) -> bool:
    """Rows 1 and 2 of section 4, the cheap look that every claim of the cluster gets."""
    # Neither the phase nor a deletionTimestamp counts: a claim being deleted is provisioned (quirk Q14, kept).
    return not claim.spec.volumeName and addressed_to(claim, driver)


def decide(claim: PersistentVolumeClaim, storage_class: StorageClass | None, driver: DriverFacts) -> StorageClass:
    """Rows 4 to 8 of section 4: the class to provision from, now. `storage_class` is what the cache has under
    `claim_class(claim)`. Raises Refusal."""
    provisioner = provisioner_of(claim)
    if provisioner is None:
        raise not_ours("no provisioner has been chosen for the claim yet")
    if not driver.answers_to(provisioner):
        raise not_ours(f"the claim is for provisioner {provisioner!r}")
    # NoChange: a class that is missing says nothing of a call that may be running.
    if storage_class is None:
        raise class_missing(claim)
    if storage_class.volumeBindingMode == LATE_BINDING and not scheduler_node(claim):
        raise not_ours("the claim waits for its first consumer: no node selected yet", step=steps.NODE)
    return storage_class


def class_missing(claim: PersistentVolumeClaim) -> Refusal:
    return Refusal(
        State.NO_CHANGE,
        f"StorageClass {claim_class(claim)!r} of claim {kubernetes.key(claim)} does not exist; "
        "create it or make the claim anew with another class",
        step=steps.CLASS,
    )


def scheduler_node(claim: PersistentVolumeClaim) -> NodeName | None:
    """The node the scheduler or a per-node provisioner selected; None if the key is absent, maybe empty if present."""
    annotations = claim.metadata.annotations or {}
    node = annotations.get(wellknown.SELECTED_NODE)
    return None if node is None else NodeName(node)


def selected_node(claim: PersistentVolumeClaim) -> NodeName:
    """The node to provision for (section 5 step 6, where the alpha key still counts); "" if none."""
    # Only here does the alpha key count. Whether a claim still waits for a node is asked without it.
    node = scheduler_node(claim)
    if node is not None:
        return node
    return NodeName((claim.metadata.annotations or {}).get(wellknown.ALPHA_SELECTED_NODE, ""))


def check_class(storage_class: StorageClass, driver: DriverFacts) -> None:
    """Section 5 step 5: the class may have been replaced after the claim was annotated."""
    name, provisioner = storage_class.metadata.name, storage_class.provisioner
    if not driver.answers_to(provisioner):
        raise not_ours(f"StorageClass {name!r} is now of provisioner {provisioner!r}", step=steps.CLASS)
