"""Where a claim's volume may be made: the cluster's topology, and what earlier tries of the claim saw (topology.md)."""

from collections.abc import Collection

from csi_provisioner.model import csi
from csi_provisioner.planning import topology
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.topology import Choose, TopologyMemory
from csi_provisioner.settings import ProvisioningSettings


class ClusterPlacement:
    """`in_flight` are the UIDs of claims whose volume the driver may still be making: their answer stays the same."""

    def __init__(
        self,
        cluster: ClusterTopology,
        settings: ProvisioningSettings,
        memories: dict[str, TopologyMemory],
        *,
        in_flight: Collection[str],
        choose: Choose,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._memories = memories
        self._in_flight = in_flight
        self._choose = choose

    def requirement(self, draft: Draft) -> csi.TopologyRequirement | None:
        uid = draft.claim.metadata.uid
        facts = topology.facts(draft, self._settings, in_flight=uid in self._in_flight)
        memory = self._memories.setdefault(uid, TopologyMemory())
        return topology.requirement(facts, self._cluster, memory, self._choose)

    def forget(self, uid: str) -> None:
        self._memories.pop(uid, None)
