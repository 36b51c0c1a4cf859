"""Who else decides about a claim: the pods that use it, the room that drivers publish, the quotas of its namespace."""

from collections.abc import Iterator, Mapping

from csi_provisioner.model.kubernetes import (
    CSIStorageCapacity,
    LabelSelector,
    Node,
    PersistentVolumeClaim,
    StorageClass,
)
from csi_provisioner.model.usage import Pod, ResourceQuota
from csi_provisioner.planning import gate, quantity, steps
from csi_provisioner.planning.explanation import Facts, Status, Step, Unread
from csi_provisioner.planning.refusal import Refusal

SCHEDULER = "the scheduler"
_OVER = ("Succeeded", "Failed")


def pods(facts: Facts) -> list[Pod] | Unread:
    """That use the claim and still run or want to."""
    meta = facts.claim.metadata
    found: list[Pod] | Unread = facts.read(Pod, "", meta.namespace or "")
    if isinstance(found, Unread):
        return found
    return [pod for pod in found if pod.uses(meta.name) and pod.status.phase not in _OVER]


def size_of(claim: PersistentVolumeClaim) -> int:
    """One that is too large is refused when its stage comes."""
    try:
        return quantity.requested(claim) or 0
    except Refusal:
        return quantity.LARGEST


# ---- no node is selected


def steps_of(facts: Facts, storage_class: StorageClass) -> Iterator[Step]:
    """Why a claim that binds late has no node yet. Room comes first: without any, no pod can be scheduled."""
    name = storage_class.metadata.name
    if facts.dry:
        text = f"StorageClass {name} binds late: a node is selected once a pod uses the claim"
        yield Step(steps.NODE, Status.WAITS, text, "--node NAME says for which node", SCHEDULER)
        return
    found = pods(facts)
    if isinstance(found, Unread):
        yield Step(steps.NODE, Status.NOT_KNOWN, found.why)
        text = f"StorageClass {name} binds late, and no node is selected for the claim yet"
        yield Step(steps.NODE, Status.WAITS, text, "look at the pods that use the claim", SCHEDULER)
        return
    if not found:
        text = f"StorageClass {name} binds late, and no pod uses the claim"
        yield Step(steps.NODE, Status.WAITS, text, "start a pod that uses it", "whoever starts a pod")
        return
    # One that is in trouble says more than one that has just come.
    pod = min(found, key=lambda pod: (_trouble(pod) is None, pod.metadata.name))
    if _trouble(pod) is not None:
        yield from _room(facts, name, None, short_only=True)
    yield _unscheduled(pod)


def _trouble(pod: Pod) -> str | None:
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return condition.message or condition.reason or ""
    return None


def _unscheduled(pod: Pod) -> Step:
    name = pod.metadata.name
    if pod.spec.nodeName:
        text = f"pod {name} names its node itself (spec.nodeName): the scheduler is not asked, and selects none"
        return Step(steps.NODE, Status.WAITS, text, "choose the node by nodeSelector or affinity", "the pod's author")
    if pod.spec.schedulingGates:
        text = f"pod {name} is held back by its schedulingGates"
        return Step(steps.NODE, Status.WAITS, text, "look at who is to remove them", "whoever holds the gates")
    trouble = _trouble(pod)
    if trouble is None:
        text = f"pod {name} uses the claim, and the scheduler has not looked at it yet"
        return Step(steps.NODE, Status.WAITS, text, "is kube-scheduler, or the pod's own scheduler, up?", SCHEDULER)
    text = f"pod {name} cannot be scheduled: {trouble}"
    return Step(steps.NODE, Status.WAITS, text, "make a node fit for the pod, or the pod for a node", SCHEDULER)


# ---- room


def room(facts: Facts, storage_class: str) -> Iterator[Step]:
    """For the node that is selected, else anywhere. Only the scheduler looks at it: once it has chosen, the driver is
    asked all the same."""
    node = gate.selected_node(facts.claim)
    labels = None
    if node:
        nodes = facts.read(Node)
        if isinstance(nodes, Unread):
            return
        labels = next((found.metadata.labels or {} for found in nodes if found.metadata.name == node), {})
    for step in _room(facts, storage_class, labels):
        yield step if facts.dry else Step(step.step, Status.OK, step.text)


def _room(
    facts: Facts, storage_class: str, labels: Mapping[str, str] | None, *, short_only: bool = False
) -> Iterator[Step]:
    found = facts.read(CSIStorageCapacity, "", facts.capacity_namespace)
    if isinstance(found, Unread):
        if facts.dry:
            yield Step(steps.CAPACITY, Status.NOT_KNOWN, found.why)
        return
    objects = [
        one
        for one in found
        if one.storageClassName == storage_class and (labels is None or _selects(one.nodeTopology, labels))
    ]
    # A driver that publishes none is not asked by the scheduler how much room it has.
    if not any(one.storageClassName == storage_class for one in found):
        return
    size, sizes = size_of(facts.claim), [_largest(one) for one in objects]
    fitting, largest = sum(has >= size for has in sizes), quantity.format(max(sizes, default=0))
    wanted, count = quantity.format(size), f"{len(objects)} CSIStorageCapacity objects of StorageClass {storage_class}"
    if not fitting:
        text = f"none of {count} has room for {wanted}: the largest volume is {largest}"
        yield Step(steps.CAPACITY, Status.WAITS, text, "ask for less, or add storage", "whoever runs the storage")
    elif not short_only:
        yield Step(steps.CAPACITY, Status.OK, f"{fitting} of {count} have room for {wanted}")


def _largest(one: CSIStorageCapacity) -> int:
    """As the scheduler reads it: nothing published is nothing there."""
    try:
        return quantity.parse(one.maximumVolumeSize or one.capacity or "0")
    except Refusal:
        return 0


def _selects(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    if selector is None:
        return False
    pairs = (selector.matchLabels or {}).items()
    return all(labels.get(key) == value for key, value in pairs) and all(
        _holds(expression["key"], expression["operator"], expression.get("values") or [], labels)
        for expression in selector.matchExpressions or ()
    )


def _holds(key: str, operator: str, values: list[str], labels: Mapping[str, str]) -> bool:
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
    return key not in labels


# ---- quotas


def quota(facts: Facts) -> Iterator[Step]:
    """Would the API server take one claim more?"""
    claim, namespace = facts.claim, facts.claim.metadata.namespace or ""
    found = facts.read(ResourceQuota, "", namespace)
    if isinstance(found, Unread):
        yield Step(steps.QUOTA, Status.NOT_KNOWN, found.why)
        return
    size, of_class = size_of(claim), f"{gate.claim_class(claim)}.storageclass.storage.k8s.io/"
    wanted = {"requests.storage": size, "persistentvolumeclaims": 1}
    wanted |= {of_class + key: amount for key, amount in wanted.items()}
    for one in found:
        name, used = one.metadata.name, one.status.used or {}
        if one.spec.scopes or one.spec.scopeSelector is not None:
            yield Step(steps.QUOTA, Status.NOT_KNOWN, f"ResourceQuota {name} has scopes, which are not looked at")
            continue
        for key, hard in (one.status.hard or {}).items():
            if key in wanted and quantity.parse(used.get(key, "0")) + wanted[key] > quantity.parse(hard):
                text = f"ResourceQuota {name} of namespace {namespace} allows {hard} of {key}"
                text += f", and {used.get(key, '0')} is used"
                yield Step(steps.QUOTA, Status.REFUSED, text, "ask for less, or have the quota raised")
                return
    yield Step(steps.QUOTA, Status.OK, f"no ResourceQuota of namespace {namespace} is against it")
