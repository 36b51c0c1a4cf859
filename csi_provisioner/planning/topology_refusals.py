"""What a claim's author and the administrator read when no accessibility requirement can be made (topology.md 9).

Each text names the node, what the driver told about it in its CSINode, the labels that are missing, and what usually
repairs it. The first words are those that people search for. All but E1 leave the state of an earlier try as it was.
"""

from collections.abc import Iterable, Sequence

from csi_provisioner.model.outcome import State
from csi_provisioner.planning import terms
from csi_provisioner.planning.cluster import ClusterTopology, entry_of
from csi_provisioner.planning.refusal import Refusal, some
from csi_provisioner.planning.terms import Keys, Term

PREFIX = "error generating accessibility requirements: "


class Unplaced(Refusal):
    """The driver's entry in a CSINode may heal this, or a label that one of the keys names."""

    def __init__(self, text: str, keys: Keys = ()) -> None:
        super().__init__(State.NO_CHANGE, PREFIX + text)
        self.keys = keys


def no_csinode(node: str) -> Refusal:
    """E1: the only one that asks for another node, because nothing will come of this one."""
    return Refusal(
        # Without the prefix: the reference passes the error of the lookup on as it is.
        State.RESCHEDULE,
        f'failed to get selected CSINode {node}: csinode.storage.k8s.io "{node}" not found: the node was removed '
        "from the cluster, or its kubelet has not registered any CSI driver yet; a node has to be selected again",
    )


def no_keys(node: str, cluster: ClusterTopology) -> Refusal:
    """E2."""
    csinode, driver = cluster.csinode(node), cluster.driver
    entry = entry_of(csinode, driver) if csinode else None
    if entry is not None:
        return Unplaced(
            f"no topology keys for selected node {node}: its CSINode lists driver {driver} (node id {entry.nodeID!r}) "
            "without topology keys, so the driver's NodeGetInfo gave no accessible_topology; "
            "configure the topology of the node plugin and restart it there, so that it registers again"
        )
    others = [entry.name for entry in csinode.spec.drivers or []] if csinode else []
    return Unplaced(
        f"no topology keys for selected node {node}: its CSINode does not list driver {driver} "
        f"(listed: {some(others) or 'none'}); check that a pod of the driver's node plugin runs and is ready "
        "on that node (node selector, tolerations, node-driver-registrar)"
    )


def labels_missing(node: str, keys: Keys, cluster: ClusterTopology) -> Refusal:
    """E3."""
    driver, labels = cluster.driver, cluster.labels(node)
    told = f"driver {driver} registered the topology keys {some(keys)} in its CSINode"
    if labels is None:
        return Unplaced(
            f"selected node {node} does not exist as a Node, though {told}; if the node is gone for good, "
            "its CSINode goes too and a node is selected again, else wait for the node to come back",
            keys,
        )
    missing = [key for key in keys if key not in labels]
    present = terms.text(tuple((key, labels[key]) for key in keys if key in labels))
    return Unplaced(
        f"selected node {node} lacks the label {some(missing)}: {told}, and the node has {present or 'none of them'}; "
        "kubelet sets these labels when the driver registers: restart the driver's node plugin on that node, "
        "or set the label again if somebody removed it",
        keys,
    )


def outside_allowed(node: str, own: Term, allowed: Sequence[Term]) -> Refusal:
    """E4."""
    return _refusal(
        f"selected node {node} ({terms.text(own)}) is outside the allowedTopologies of the StorageClass "
        f"({_terms(allowed)}), and with --strict-topology no other place is possible; "
        "let the pod run only on nodes the class allows, or extend the class"
    )


def nothing_registered(cluster: ClusterTopology) -> Refusal:
    """E5."""
    return Unplaced(
        f"no available topology found: no CSINode lists driver {cluster.driver} with topology keys; "
        "check that the driver's node plugin runs and is ready on at least one node and reports accessible_topology. "
        "For a driver without node plugin set allowedTopologies in the StorageClass or --immediate-topology=false"
    )


def illegal_keys(keys: Iterable[str], driver: str) -> Refusal:
    """E6."""
    return _refusal(
        f"driver {driver} registered the topology keys {some([repr(key) for key in keys])}, which no node label can "
        "have; the driver's node plugin must report keys of the form prefix/name"
    )


def no_node_carries(keys: Keys, driver: str) -> Refusal:
    """E7."""
    return Unplaced(
        f"topology keys {some(keys)} were registered by driver {driver}, but no node carries all of them as labels; "
        "kubelet sets these labels when the driver registers: restart the driver's node plugin, "
        "or set the labels again if somebody removed them",
        keys,
    )


def nothing_fits(node: str, own: Term, requisite: Sequence[Term], allowed: bool) -> Refusal:
    """E8."""
    # Only a scheduler that does not look at the class, or a pod that names its node, leads here.
    what = "allowedTopologies of the StorageClass" if allowed else "topologies found in the cluster"
    return _refusal(
        f"selected node {node} ({terms.text(own)}) is in none of the {what} ({_terms(requisite)}); "
        "let the pod run only on nodes the class allows, or extend the class, and have the node selected again "
        "by removing the annotation volume.kubernetes.io/selected-node from the claim"
    )


def too_many_terms(storage_class: str) -> Refusal:
    """E9."""
    return Refusal(
        State.NO_CHANGE,
        f"{PREFIX}the allowedTopologies of StorageClass {storage_class} make more than {terms.MOST} topologies; "
        "name fewer values, or fewer keys at once, or none and leave the choice to the driver",
    )


def _refusal(text: str) -> Refusal:
    return Refusal(State.NO_CHANGE, PREFIX + text)


def _terms(found: Sequence[Term]) -> str:
    return some(found, lambda term: f"{{{terms.text(term)}}}") or "no term at all"
