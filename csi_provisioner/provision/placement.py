"""Where a claim's volume may be made: the cluster's topology, and what earlier tries of the claim saw (topology.md)."""

from dataclasses import dataclass

from csi_provisioner.model import csi
from csi_provisioner.planning import topology
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.topology_refusals import Unplaced
from csi_provisioner.settings import ProvisioningSettings

from .memory import ClaimMemory
from .unplaced import UnplacedClaims


@dataclass(eq=False)
class ClusterPlacement:
    """While the driver may be making a claim's volume, the answer for that claim stays the same."""

    cluster: ClusterTopology
    settings: ProvisioningSettings
    memory: ClaimMemory
    unplaced: UnplacedClaims | None = None

    def requirement(self, draft: Draft) -> csi.TopologyRequirement | None:
        # While a call may run, labels that changed meanwhile must not change what is asked for (topology.md).
        uid = draft.claim.metadata.uid
        facts = topology.facts(draft, self.settings, in_flight=self.memory.of(uid).asked is not None)
        if self.unplaced is not None:
            self.unplaced.over(uid)
        try:
            return topology.requirement(facts, self.cluster, self.memory.topology(uid))
        except Unplaced as refusal:
            if self.unplaced is not None:
                self.unplaced.wait(uid, draft.selected_node, refusal.keys)
            raise

    def forget(self, uid: str) -> None:
        self.memory.finish(uid)
