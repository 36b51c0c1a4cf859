"""This node as its driver describes it, in place of Node and CSINode objects (node-deployment.md 3).

Read once by NodeGetInfo; no node is watched in this mode. The only labels are the driver's segments: the real labels
of the node are used neither here nor for deletion (node-deployment.md 9).
"""

from collections.abc import Mapping

import msgspec

from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import CSINode, CSINodeDriver, CSINodeSpec, Node, NodeName, ObjectMeta
from csi_provisioner.planning.cluster import ClusterTopology


class LocalNode(msgspec.Struct, frozen=True):
    """`segments` is None if the driver reports no topology; an empty one is different (node-deployment.md 9)."""

    name: NodeName
    node_id: str
    segments: Mapping[str, str] | None

    def cluster(self, driver: str) -> ClusterTopology:
        """A cluster that consists of this node."""
        # In the form of the API's objects, so that the rules for topology need not know of this mode.
        segments = dict(self.segments or {})
        entry = CSINodeDriver(name=driver, nodeID=self.node_id, topologyKeys=sorted(segments))
        return ClusterTopology(
            driver,
            [Node(metadata=ObjectMeta(name=self.name, labels=segments))],
            [CSINode(metadata=ObjectMeta(name=self.name), spec=CSINodeSpec(drivers=[entry]))],
        )


def described(name: NodeName, info: csi.NodeGetInfoResponse) -> LocalNode:
    topology = info.accessible_topology
    return LocalNode(name, info.node_id, None if topology is None else dict(topology.segments))
