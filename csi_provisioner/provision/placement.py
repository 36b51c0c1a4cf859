"""Where a claim's volume may be made: the cluster's topology, and what earlier tries of the claim saw (topology.md)."""

import msgspec

from csi_provisioner.model import csi
from csi_provisioner.planning import snapshot_topology, terms, topology
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.sources import Content
from csi_provisioner.planning.topology_refusals import Unplaced
from csi_provisioner.settings import ProvisioningSettings

from .memory import ClaimMemory
from .unplaced import UnplacedClaims


class ClusterPlacement(msgspec.Struct, eq=False):
    """While the driver may be making a claim's volume, the answer for that claim stays the same."""

    cluster: ClusterTopology
    settings: ProvisioningSettings
    memory: ClaimMemory
    unplaced: UnplacedClaims | None = None

    def requirement(self, draft: Draft, content: Content | None) -> csi.TopologyRequirement | None:
        # While a call may run, labels that changed meanwhile must not change what is asked for (topology.md).
        uid = draft.claim.metadata.uid
        facts = topology.facts(draft, content, self.settings, in_flight=self.memory.of(uid).asked is not None)
        if self.unplaced is not None:
            self.unplaced.over(uid)
        try:
            return topology.requirement(facts, self.cluster, self.memory.topology(uid))
        except Unplaced as refusal:
            if self.unplaced is not None:
                self.unplaced.wait(uid, draft.selected_node, refusal.keys)
            raise

    def remark(self, draft: Draft, content: Content | None) -> str:
        """What a snapshot says of the selected node, for a call that fails."""
        node = draft.selected_node
        own = terms.of_labels(self.cluster.labels(node) or {}, self.cluster.keys(node)) if node else None
        return snapshot_topology.remark(draft, content.places, own) if own and content is not None else ""

    def forget(self, uid: str) -> None:
        self.memory.finish(uid)
