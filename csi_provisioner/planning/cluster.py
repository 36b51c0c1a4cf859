"""The cluster as one driver's topology sees it: which node registered which keys, and the terms the labels make.

Kept up to date object by object by the handlers of the Node and CSINode stores, so that no claim pays for the number
of nodes (topology.md 7). One writer, many readers; everything it gives out is immutable.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from csi_provisioner.model import csi
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
        self._sets: Counter[Keys] = Counter()  # how many nodes registered each set of keys
        self._united: tuple[list[tuple[Term, ...]], tuple[Term, ...], list[csi.Topology]] = ([], (), [])
        self._terms: dict[Keys, _Terms] = {}  # for each key set somebody asked for
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
        # Most updates of a Node leave its labels as they are.
        if before == after:
            return
        for keys, known in self._terms.items():
            gone, come = (None if labels is None else terms.of_labels(labels, keys) for labels in (before, after))
            known.change(gone, come)

    def csinode_changed(self, name: str, _old: CSINode | None, new: CSINode | None) -> None:
        self._csinodes.pop(name, None)
        before = self._registered.pop(NodeName(name), None)
        if before is not None:
            self._sets[before] -= 1
        if new is None:
            return
        self._csinodes[name] = new
        entry = entry_of(new, self.driver)
        # Without keys it is as good as not registered. Only the refusals tell the two apart, for people.
        if entry is not None and entry.topologyKeys:
            keys = self._registered[NodeName(name)] = terms.normalised(entry.topologyKeys)
            self._sets[keys] += 1

    # ---- what claims ask for

    def csinode(self, node: str) -> CSINode | None:
        return self._csinodes.get(node)

    def labels(self, node: str) -> Mapping[str, str] | None:
        """None if there is no such Node."""
        return self._labels.get(node)

    def keys(self, node: str) -> Keys:
        """The driver's topology keys on that node, sorted; empty if it registered none there."""
        return self._registered.get(NodeName(node), ())

    def registered(self) -> Sequence[Keys]:
        """Each set of keys that the driver registered on a node: several while a new version of it is rolled out."""
        return sorted(+self._sets)

    def terms(self, keys: Keys) -> tuple[Term, ...]:
        """The distinct terms of all nodes that carry every key, whether or not the driver runs there."""
        return self._of(keys).ordered()

    def united(self, sets: Sequence[Keys]) -> tuple[Term, ...]:
        """Those of several sets of keys, in canonical order; the same tuple until something changes."""
        if len(sets) == 1:
            return self.terms(sets[0])
        parts, (known, found, _) = [self.terms(keys) for keys in sets], self._united
        if len(parts) != len(known) or any(part is not before for part, before in zip(parts, known, strict=True)):
            found = terms.canonical(chain.from_iterable(parts))
            self._united = parts, found, [terms.topology(term) for term in found]
        return found

    def messages(self, found: tuple[Term, ...]) -> Sequence[csi.Topology]:
        """The terms as the driver gets them; shared, so not to be changed."""
        if not found:
            return ()
        if found is self._united[1]:
            return self._united[2]
        known = self._terms.get(tuple(key for key, _ in found[0]))
        if known is not None and known.ordered() is found:
            return known.messages
        return [terms.topology(term) for term in found]

    def _of(self, keys: Keys) -> "_Terms":
        known = self._terms.get(keys)
        if known is None:
            # As in the reference only labels count: nodes that are cordoned or have no CSINode make terms too.
            found = (terms.of_labels(labels, keys) for labels in self._labels.values())
            known = self._terms[keys] = _Terms(term for term in found if term is not None)
        return known


class _Terms:
    """The distinct terms that nodes make of one key set, and their messages, both in canonical order.

    A node that comes or goes costs one insertion, and a claim nothing, even if every node makes a term of its own.
    """

    def __init__(self, found: Iterable[Term]) -> None:
        self._counts = Counter(found)
        self._order = sorted(self._counts)  # terms of the same keys: their own order is the canonical one
        self._ordered: tuple[Term, ...] | None = None
        self.messages = [terms.topology(term) for term in self._order]

    def ordered(self) -> tuple[Term, ...]:
        """The same tuple until something changes."""
        if self._ordered is None:
            self._ordered = tuple(self._order)
        return self._ordered

    def change(self, gone: Term | None, come: Term | None) -> None:
        if gone == come:
            return
        # What comes is counted before what goes, so that a term that is in both is never taken out.
        if come is not None:
            self._counts[come] += 1
            if self._counts[come] == 1:
                place = bisect_left(self._order, come)
                self._order.insert(place, come)
                self.messages.insert(place, terms.topology(come))
                self._ordered = None
        if gone is not None:
            self._counts[gone] -= 1
            if not self._counts[gone]:
                del self._counts[gone]
                place = bisect_left(self._order, gone)
                del self._order[place], self.messages[place]
                self._ordered = None
