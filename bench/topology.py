"""What topology costs with many nodes: the index after one node changed, and one claim.

    python -m bench.topology [nodes]

Three shapes of cluster: a few zones, many racks, and the worst, every node its own segment. Goals with 5,000 nodes:
less than 20 ms per change of nodes, less than 1 ms per claim.
"""

import sys
from statistics import median
from time import process_time

from csi_provisioner.capacity import segments
from csi_provisioner.model.kubernetes import CSINode, CSINodeDriver, CSINodeSpec, Node, NodeName, ObjectMeta
from csi_provisioner.planning import topology
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.settings import ProvisioningSettings

DRIVER, ZONE, RACK, HOST = "disk.acme.test", "acme.test/zone", "acme.test/rack", "acme.test/node"
SHAPES = {"zones": [ZONE], "racks": [RACK, ZONE], "hosts": [HOST]}
REPEATS = 50


def node(i: int, zone: str) -> Node:
    # as many labels as a node of a cloud carries
    labels = {f"example.test/label-{n}": str(n) for n in range(20)}
    labels |= {ZONE: zone, RACK: f"rack-{i % 200}", HOST: f"node-{i}"}
    return Node(metadata=ObjectMeta(name=f"node-{i}", labels=labels))


def csinode(i: int, keys: list[str]) -> CSINode:
    drivers = [CSINodeDriver(name=f"other-{n}.test", topologyKeys=["x"]) for n in range(3)]
    drivers.append(CSINodeDriver(name=DRIVER, nodeID=f"node-{i}", topologyKeys=keys))
    return CSINode(metadata=ObjectMeta(name=f"node-{i}"), spec=CSINodeSpec(drivers=drivers))


def facts(i: int, selected: str) -> topology.PlacementFacts:
    return topology.PlacementFacts(f"data-web-{i}", NodeName(selected), None, ProvisioningSettings())


def measure(count: int, keys: list[str]) -> dict[str, float]:
    nodes = [node(i, f"zone-{i % 6}") for i in range(count)]
    csinodes = [csinode(i, keys) for i in range(count)]
    spent: dict[str, list[float]] = {}

    def note(what: str, begin: float) -> None:
        spent.setdefault(what, []).append((process_time() - begin) * 1000)

    begin = process_time()
    cluster = ClusterTopology(DRIVER, nodes, csinodes)
    cluster.terms(cluster.keys("node-0"))
    note("first index", begin)
    for i in range(REPEATS):
        begin = process_time()
        cluster.node_changed(f"node-{i}", nodes[i], node(i + count, "zone-x"))
        cluster.terms(cluster.keys("node-0"))
        note("change of a node", begin)
    for i in range(REPEATS):
        for mode, selected in (("immediate", ""), ("delayed", f"node-{count - 1}")):
            begin = process_time()
            topology.requirement(facts(i, selected), cluster, topology.TopologyMemory())
            note(f"claim, {mode}", begin)
    for _ in range(5):
        begin = process_time()
        segments.of_nodes(DRIVER, csinodes, {n.metadata.name: n for n in nodes})
        note("segments for capacity", begin)
    return {what: median(times) for what, times in spent.items()}


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    print(f"{count} nodes; median of {REPEATS}, milliseconds of processor time")
    for shape, keys in SHAPES.items():
        print(f"{shape:6}", ", ".join(f"{what} {ms:.2f}" for what, ms in measure(count, keys).items()))
