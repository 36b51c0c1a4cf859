"""What stands around a claim before anything is planned for it: its own state, its class, a volume that is there."""

from collections.abc import Iterator

from csi_provisioner.model import csi, kubernetes
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim, StorageClass
from csi_provisioner.planning import consumers, gate, naming, quantity, steps, terms, wellknown
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.explanation import Facts, Status, Step, Unread
from csi_provisioner.planning.refusal import Refusal

VOLUME_CONTROLLER = "the volume controller (kube-controller-manager)"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
ANEW = "make the claim anew with another class"


def of_claim(facts: Facts) -> Iterator[Step]:
    claim = facts.claim
    meta, phase = claim.metadata, claim.status.phase or "Pending"
    if facts.dry:
        yield Step(steps.CLAIM, Status.OK, f"{_wish(claim)}, that is not there")
        yield from consumers.quota(facts)
        return
    if meta.deletionTimestamp:
        yield _deleted(facts)
    else:
        yield Step(steps.CLAIM, Status.OK, f"{phase}, {_wish(claim)}, made {meta.creationTimestamp}")
    if meta.finalizers:
        yield Step(steps.FINALIZERS, Status.OK, ", ".join(meta.finalizers))
    if claim.spec.volumeName:
        yield _named(facts, claim.spec.volumeName)


def _wish(claim: PersistentVolumeClaim) -> str:
    resources = claim.spec.resources
    size = (resources.requests or {}).get("storage") if resources else None
    modes = ", ".join((claim.spec.accessModes or ())[:4]) or "no access mode"
    return f"a claim for {size or 'no size'}, {modes}, {claim.spec.volumeMode or 'Filesystem'}"


def _deleted(facts: Facts) -> Step:
    meta = facts.claim.metadata
    text = f"it is being deleted since {meta.deletionTimestamp}, and kept by {', '.join(meta.finalizers or ())}"
    found = consumers.pods(facts)
    if isinstance(found, Unread):
        text, fix = f"{text}; which pods use it is not known: {found.why}", "end the pods that use it"
    elif found:
        names = ", ".join(sorted(pod.metadata.name for pod in found)[:3])
        text, fix = f"{text}; it is used by pod {names}", f"end pod {names}, and it goes by itself"
    else:
        fix = "look at who has put the finalizers on it"
    return Step(steps.CLAIM, Status.WAITS, text, fix, "whoever keeps it")


def _named(facts: Facts, name: str) -> Step:
    claim = facts.claim
    if claim.status.phase == "Bound":
        return Step(steps.BIND, Status.DONE, f"it is bound to PersistentVolume {name}")
    found = facts.read(PersistentVolume, name)
    if isinstance(found, Unread):
        there = "does not exist" if found.missing else f"is not known: {found.why}"
        fix = "restore the PersistentVolume, or make the claim anew"
        return Step(steps.BIND, Status.WAITS, f"it names PersistentVolume {name}, which {there}", fix, "its author")
    return _unbound(claim, found)


def _unbound(claim: PersistentVolumeClaim, volume: PersistentVolume) -> Step:
    """A volume for the claim that is not bound to it yet."""
    name, held, meta = volume.metadata.name, volume.spec.claimRef, claim.metadata
    if held is not None and (held.namespace, held.name, held.uid or meta.uid) != (meta.namespace, meta.name, meta.uid):
        text = f"PersistentVolume {name} is there already, and is that of claim {held.namespace}/{held.name}"
        if (held.namespace, held.name) == (meta.namespace, meta.name):
            text += " as it was before it was made anew"
        fix = "delete that PersistentVolume if nobody needs it, or make this claim anew"
        return Step(steps.BIND, Status.WAITS, text, fix, "an administrator")
    # Ours: from here on Kubernetes has to act, and no try of ours would change anything.
    phase = volume.status.phase if volume.status else None
    text = f"PersistentVolume {name} is written ({phase or 'without a phase'}), and the claim is not bound to it yet"
    if held is None:
        return Step(steps.BIND, Status.WAITS, f"PersistentVolume {name} is there already, and names no claim",
                    f"delete it if nobody needs it, or set its claimRef to {kubernetes.key(claim)}",
                    "an administrator")  # fmt: skip
    return Step(steps.BIND, Status.WAITS, text, "does kube-controller-manager run? See its log", VOLUME_CONTROLLER)


def volume(facts: Facts) -> Step | None:
    """The PersistentVolume that a claim which names none has already: then nothing is done for it any more."""
    uid = facts.claim.metadata.uid
    try:
        own = naming.volume_name(uid, facts.settings)
    except Refusal:
        own = ""  # said when its stage comes
    for name in filter(None, dict.fromkeys((own, naming.default_name(uid)))):
        found = facts.read(PersistentVolume, name)
        if not isinstance(found, Unread):
            return _unbound(facts.claim, found)
        if not found.missing:
            return Step(steps.BIND, Status.NOT_KNOWN, found.why)
    return None


# ---- the class


def without_class(facts: Facts) -> Step:
    claim = facts.claim
    # An empty beta annotation says the same as an empty name.
    chosen = claim.spec.storageClassName is not None or wellknown.BETA_STORAGE_CLASS in (
        claim.metadata.annotations or {}
    )
    if chosen:
        return static(facts, "")
    found = facts.read(StorageClass)
    defaults = [] if isinstance(found, Unread) else [_name(one) for one in found if _is_default(one)]
    if defaults:
        text = f"the claim names no class, and StorageClass {defaults[0]} is the default: it will get that"
        return Step(steps.CLASS, Status.WAITS, text, "does kube-controller-manager run?", VOLUME_CONTROLLER)
    text = "the claim names no class, and no StorageClass is the default"
    fix = f"mark one with the annotation {DEFAULT_CLASS}=true, or {ANEW}"
    return Step(steps.CLASS, Status.WAITS, text, fix, "an administrator")


def static(facts: Facts, name: str) -> Step:
    """Nobody makes volumes of this class; "" is none."""
    size, found = consumers.size_of(facts.claim), facts.read(PersistentVolume)
    text = 'the claim\'s class is "": it waits for a PersistentVolume that is there without a class'
    if name:
        text = f"StorageClass {name} makes no volumes ({NO_PROVISIONER}): it waits for a PersistentVolume of that class"
    if isinstance(found, Unread):
        return Step(steps.CLASS, Status.WAITS, f"{text}; {found.why}", f"make one, or {ANEW}", "an administrator")
    fitting = [_name(one) for one in found if _fits(one, facts.claim, name, size)]
    if fitting:
        text += f"; {fitting[0]} would fit"
        return Step(steps.BIND, Status.WAITS, text, "does kube-controller-manager run?", VOLUME_CONTROLLER)
    return Step(steps.CLASS, Status.WAITS, f"{text}, and none fits", f"make one, or {ANEW}", "an administrator")


def _fits(volume: PersistentVolume, claim: PersistentVolumeClaim, class_: str, size: int) -> bool:
    spec = volume.spec
    return (
        (spec.storageClassName or "") == class_
        and volume.status is not None
        and volume.status.phase == "Available"
        and set(claim.spec.accessModes or ()) <= set(spec.accessModes or ())
        and (spec.volumeMode or "Filesystem") == (claim.spec.volumeMode or "Filesystem")
        and quantity.parse((spec.capacity or {}).get("storage", "0")) >= size
    )


def _name(found: StorageClass | PersistentVolume) -> str:
    return found.metadata.name


def _is_default(one: StorageClass) -> bool:
    return (one.metadata.annotations or {}).get(DEFAULT_CLASS) == "true"


def of_another(facts: Facts, found: StorageClass) -> Step:
    text = f"StorageClass {found.metadata.name} is of provisioner {found.provisioner}, not of {facts.driver.name}"
    fix = f"look at the provisioner of {found.provisioner}, or {ANEW}"
    return Step(steps.CLASS, Status.WAITS, text, fix, f"provisioner {found.provisioner}")


def not_addressed(facts: Facts, found: StorageClass) -> Step:
    """The claim is not annotated for this driver, though its class is of it."""
    provisioner = gate.provisioner_of(facts.claim)
    if provisioner is None:
        text = f"no provisioner is named on the claim yet ({wellknown.STORAGE_PROVISIONER})"
        return Step(steps.CLAIM, Status.WAITS, text, "does kube-controller-manager run? See its log",
                    VOLUME_CONTROLLER)  # fmt: skip
    if facts.driver.in_tree_name and provisioner == facts.driver.in_tree_name:
        text = f"the claim is for the in-tree plugin {provisioner}, and is not handed over to {facts.driver.name}"
        return Step(steps.CLAIM, Status.WAITS, text, "is CSI migration on in kube-controller-manager?",
                    VOLUME_CONTROLLER)  # fmt: skip
    text = f"the claim was made for provisioner {provisioner}; StorageClass {_name(found)} is another one by now"
    return Step(steps.CLASS, Status.WAITS, text, "make the claim anew", f"provisioner {provisioner}")


def of_another_node(facts: Facts, node: str) -> Step:
    """With a provisioner on each node, each makes only the volumes of its own."""
    if node:
        text = f"node {node} is selected, and this provisioner makes only volumes of {facts.own_node}"
        return Step(steps.NODE, Status.WAITS, text, f"ask on {node}", f"the provisioner on {node}")
    if facts.takes_any:
        text = "no node has taken the claim yet: the provisioners of all nodes compete for it"
        return Step(steps.NODE, Status.WORKS, text)
    text = "no node is selected, and the provisioners take no claims with immediate binding"
    fix = "--node-deployment-immediate-binding=true, or a StorageClass that binds late"
    return Step(steps.NODE, Status.WAITS, text, fix, "an administrator")


# ---- places


def places(draft: Draft, cluster: ClusterTopology, found: csi.TopologyRequirement | None) -> str:
    """What would be asked for, and from which labels it comes."""
    node = draft.selected_node
    text = ""
    if node:
        keys, labels = cluster.keys(node), cluster.labels(node) or {}
        own = terms.of_labels(labels, keys)
        text = f"{node} has {terms.text(own) if own else 'none of its labels'} for the driver's keys; "
    if found is None:
        return text + "no place is asked for"
    first = ", ".join(f"{key}={value}" for key, value in sorted(found.preferred[0].segments.items()))
    more = f" and {len(found.requisite) - 1} more" if len(found.requisite) > 1 else ""
    return f"{text}asked for {first}{more}"
