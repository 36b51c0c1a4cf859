"""Claims that wait for a node to say where it is (topology.md 9): which of them a change of a Node or CSINode wakes.

Their back-off goes on meanwhile, and may be minutes when the driver has registered at last. Of a busy cluster's updates
nearly all mean nothing here: only the driver's own entry counts, and the labels that its keys name.
"""

import random
from collections.abc import Callable

import msgspec

from csi_provisioner.model.kubernetes import CSINode, Node, NodeName, PersistentVolumeClaim
from csi_provisioner.planning.cluster import entry_of
from csi_provisioner.planning.terms import Keys

# Seconds within which the claims of one node are tried: a node that comes back may have hundreds.
SPREAD = 1.0


class UnplacedClaims(msgspec.Struct, eq=False):
    """`wake`: have the claim of that UID tried after so many seconds."""

    driver: str
    wake: Callable[[str, float], None]
    random: Callable[[], float] = random.random
    _waits: dict[str, tuple[str, Keys]] = msgspec.field(default_factory=dict)
    _places: dict[str, dict[Keys, set[str]]] = msgspec.field(default_factory=dict)
    """By node, "" for any, then by the labels that matter: nobody walks all claims."""

    def wait(self, uid: str, node: NodeName, keys: Keys) -> None:
        """The try has failed for want of the driver's entry, or of a label that these keys name."""
        self.over(uid)
        self._waits[uid] = node, keys
        self._places.setdefault(node, {}).setdefault(keys, set()).add(uid)

    def over(self, uid: str) -> None:
        if uid not in self._waits:
            return
        node, keys = self._waits.pop(uid)
        self._places[node][keys].discard(uid)
        if not self._places[node][keys]:
            del self._places[node][keys]
        if not self._places[node]:
            del self._places[node]

    # ---- handlers of the stores

    def saw_claim(self, _key: str, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        if new is None and old is not None:
            self.over(old.metadata.uid)

    def saw_csinode(self, name: str, old: CSINode | None, new: CSINode | None) -> None:
        before, after = (None if csinode is None else entry_of(csinode, self.driver) for csinode in (old, new))
        if before != after:
            self._wake(name, lambda _keys: True)

    def saw_node(self, name: str, old: Node | None, new: Node | None) -> None:
        before, after = ({} if node is None else node.metadata.labels or {} for node in (old, new))
        if before != after:
            self._wake(name, lambda keys: any(before.get(key) != after.get(key) for key in keys))

    def _wake(self, node: str, matters: Callable[[Keys], bool]) -> None:
        places = [item for place in (node, "") for item in self._places.get(place, {}).items()]
        for uid in [uid for keys, uids in places if matters(keys) for uid in uids]:
            self.over(uid)
            self.wake(uid, SPREAD * self.random())
