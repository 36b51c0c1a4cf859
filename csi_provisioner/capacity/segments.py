"""The segments a driver's volumes can lie in (capacity.md 5): what Nodes and CSINodes say, or the one of this node.

A segment is a term of `planning.terms`; the empty one stands for every node. Which changes of nodes call for another
look is decided here too; looking is `discovery`'s.
"""

from collections.abc import Iterable, Mapping

from csi_provisioner.model.kubernetes import CSINode, Node
from csi_provisioner.planning import terms
from csi_provisioner.planning.cluster import entry_of
from csi_provisioner.planning.terms import Term

Segment = Term


def of_nodes(driver: str, csinodes: Iterable[CSINode], nodes: Mapping[str, Node]) -> frozenset[Segment]:
    """capacity.md 5.1. A node without all of its labels yields no segment yet."""
    found = set()
    for csinode in csinodes:
        entry = entry_of(csinode, driver)
        node = nodes.get(csinode.metadata.name)
        if entry is None or node is None:
            continue  # the driver is not registered on it, or the node is gone
        segment = terms.of_labels(node.metadata.labels or {}, terms.normalised(entry.topologyKeys or ()))
        # kubelet sets the labels a moment after the entry; the update of the Node calls for another look.
        if segment is not None:
            found.add(segment)
    return frozenset(found)


def fixed(segments: Mapping[str, str] | None) -> Segment:
    """capacity.md 5.2: from the NodeGetInfo of this node's driver."""
    return tuple(sorted((segments or {}).items()))


def node_matters(old: Node | None, new: Node | None) -> bool:
    return old is None or new is None or (old.metadata.labels or {}) != (new.metadata.labels or {})


def csinode_matters(driver: str, old: CSINode | None, new: CSINode | None) -> bool:
    """Whether the driver's entry or its topology keys have changed."""
    if old is None or new is None:
        return True
    before, after = (entry_of(csinode, driver) for csinode in (old, new))
    # An entry without keys is the empty segment; no entry means no segment.
    if before is None or after is None:
        return before is not after
    return (before.topologyKeys or []) != (after.topologyKeys or [])
