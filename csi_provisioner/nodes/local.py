"""This node as its driver describes it: the stand-ins for Node and CSINode objects (node-deployment.md 3).

Read once by NodeGetInfo and never again; no node is watched in this mode. The labels of the stand-in are the driver's
segments and nothing else, so the real labels of the node play no part, neither here nor in deletion (section 9).
"""

from collections.abc import Mapping

import msgspec

from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import CSINode, CSINodeDriver, CSINodeSpec, Node, NodeName, ObjectMeta
from csi_provisioner.planning.cluster import ClusterTopology


class LocalNode(msgspec.Struct, frozen=True):
    """`segments` is None if the driver reports no topology, which is not the same as an empty one: see section 9."""

    name: NodeName
    node_id: str
    segments: Mapping[str, str] | None


def described(name: NodeName, info: csi.NodeGetInfoResponse) -> LocalNode:
    topology = info.accessible_topology
    return LocalNode(name, info.node_id, None if topology is None else dict(topology.segments))


def cluster(local: LocalNode, driver: str) -> ClusterTopology:
    """A cluster of this one node: any other is unknown."""
    segments = dict(local.segments or {})
    entry = CSINodeDriver(name=driver, nodeID=local.node_id, topologyKeys=sorted(segments))
    return ClusterTopology(
        driver,
        [Node(metadata=ObjectMeta(name=local.name, labels=segments))],
        [CSINode(metadata=ObjectMeta(name=local.name), spec=CSINodeSpec(drivers=[entry]))],
    )
