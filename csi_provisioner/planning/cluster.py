"""The cluster as one driver's topology sees it: which node registered which keys, and the terms the labels make.

Kept up to date object by object by the handlers of the Node and CSINode stores, so that no claim pays for the number
of nodes (topology.md 7). One writer, many readers; everything it gives out is immutable.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from csi_provisioner.model.kubernetes import CSINode, CSINodeDriver, Node, NodeName
from csi_provisioner.planning import terms
from csi_provisioner.planning.terms import Keys, Term


def entry_of(csinode: CSINode, driver: str) -> CSINodeDriver | None:
    """The first entry of the driver, which is the one that counts."""
    for entry in csinode.spec.drivers or []:
        if entry.name == driver:
            return entry
    return None


class ClusterTopology:
    def __init__(self, driver: str, nodes: Iterable[Node] = (), csinodes: Iterable[CSINode] = ()) -> None:
        self.driver = driver
        self._labels: dict[str, Mapping[str, str]] = {}
        self._csinodes: dict[str, CSINode] = {}
        self._registered: dict[NodeName, Keys] = {}
        # for each key set somebody asked for: how many nodes make each term, and the terms in canonical order
        self._counts: dict[Keys, Counter[Term]] = {}
        self._terms: dict[Keys, tuple[Term, ...]] = {}
        for node in nodes:
            self.node_changed(node.metadata.name, None, node)
        for csinode in csinodes:
            self.csinode_changed(csinode.metadata.name, None, csinode)

    # ---- handlers of the stores

    def node_changed(self, name: str, _old: Node | None, new: Node | None) -> None:
        before = self._labels.pop(name, None)
        after = None if new is None else new.metadata.labels or {}
        if after is not None:
            self._labels[name] = after
        if before == after:
            return
        for keys, counts in self._counts.items():
            gone, come = (None if labels is None else terms.of_labels(labels, keys) for labels in (before, after))
            if gone == come:
                continue
            if come is not None:
                counts[come] += 1
                if counts[come] == 1:
                    self._terms.pop(keys, None)
            if gone is not None:
                counts[gone] -= 1
                if not counts[gone]:
                    del counts[gone]
                    self._terms.pop(keys, None)

    def csinode_changed(self, name: str, _old: CSINode | None, new: CSINode | None) -> None:
        self._csinodes.pop(name, None)
        self._registered.pop(NodeName(name), None)
        if new is None:
            return
        self._csinodes[name] = new
        entry = entry_of(new, self.driver)
        if entry is not None and entry.topologyKeys:
            self._registered[NodeName(name)] = terms.normalised(entry.topologyKeys)

    # ---- what claims ask for

    def csinode(self, node: str) -> CSINode | None:
        return self._csinodes.get(node)

    def labels(self, node: str) -> Mapping[str, str] | None:
        """None if there is no such Node."""
        return self._labels.get(node)

    def keys(self, node: str) -> Keys:
        """The driver's topology keys on that node, sorted; empty if it registered none there."""
        return self._registered.get(NodeName(node), ())

    def registered(self) -> Sequence[NodeName]:
        """The nodes on which the driver registered at least one key."""
        return list(self._registered)

    def terms(self, keys: Keys) -> tuple[Term, ...]:
        """The distinct terms of all nodes that carry every key, whether or not the driver runs there."""
        if keys not in self._counts:
            found = (terms.of_labels(labels, keys) for labels in self._labels.values())
            self._counts[keys] = Counter(term for term in found if term is not None)
        if keys not in self._terms:
            self._terms[keys] = terms.canonical(self._counts[keys])
        return self._terms[keys]
