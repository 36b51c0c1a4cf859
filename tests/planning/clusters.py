"""The clusters of topology.md 12 as objects; `zone` and `rack` stand for `acme.test/zone` and `acme.test/rack`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from csi_provisioner.model import csi
from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.planning import terms
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.topology import PlacementFacts, TopologyMemory, requirement
from csi_provisioner.settings import ProvisioningSettings

DRIVER = "disk.acme.test"
SPEC: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "topology.yaml").read_text())

Segments = list[dict[str, str]]


def full(name: str) -> str:
    return f"acme.test/{name}"


def node(name: str, labels: dict[str, str]) -> k8s.Node:
    return k8s.Node(metadata=k8s.ObjectMeta(name=name, labels={full(key): value for key, value in labels.items()}))


def csinode(name: str, keys: Iterable[str] | None, driver: str = DRIVER) -> k8s.CSINode:
    """Without our driver if `keys` is None."""
    entries = [k8s.CSINodeDriver(name="other.acme.test", nodeID="o", topologyKeys=["other.test/zone"])]
    if keys is not None:
        entries.append(k8s.CSINodeDriver(name=driver, nodeID=f"id-{name}", topologyKeys=[full(key) for key in keys]))
    return k8s.CSINode(metadata=k8s.ObjectMeta(name=name), spec=k8s.CSINodeSpec(drivers=entries))


def cluster(name: str) -> ClusterTopology:
    members = SPEC["clusters"][name]
    return ClusterTopology(
        DRIVER,
        [node(member, facts["labels"]) for member, facts in members.items()],
        [
            csinode(member, None if facts["keys"] == "absent" else facts["keys"])
            for member, facts in members.items()
            if facts["keys"] != "none"
        ],
    )


def allowed(selectors: Iterable[dict[str, list[str]]]) -> list[k8s.TopologySelectorTerm]:
    return [
        k8s.TopologySelectorTerm(
            matchLabelExpressions=[
                k8s.LabelSelectorRequirement(key=full(key), values=values) for key, values in selector.items()
            ]
        )
        for selector in selectors
    ]


def facts(case: dict[str, Any], *, in_flight: bool = False) -> PlacementFacts:
    return PlacementFacts(
        claim=case["pvc"],
        selected_node=k8s.NodeName(case.get("selected", "")),
        allowed=terms.read(allowed(case.get("allowed", []))),
        settings=ProvisioningSettings(
            strict_topology=case.get("strict", False), immediate_topology=case.get("immediateTopology", True)
        ),
        in_flight=in_flight,
    )


def case(name: str) -> dict[str, Any]:
    return next(case for case in SPEC["cases"] if case["id"] == name)


def ask(
    case: dict[str, Any],
    cluster: ClusterTopology,
    memory: TopologyMemory | None = None,
    *,
    in_flight: bool = False,
) -> csi.TopologyRequirement | None:
    return requirement(facts(case, in_flight=in_flight), cluster, memory or TopologyMemory())


def shown(topologies: Iterable[csi.Topology]) -> Segments:
    return [{key.removeprefix("acme.test/"): value for key, value in t.segments.items()} for t in topologies]


def wanted(case: dict[str, Any]) -> tuple[Segments, Segments]:
    return case["requisite"], case["preferred"]


def answered(found: csi.TopologyRequirement | None) -> tuple[Segments, Segments]:
    assert found is not None
    return shown(found.requisite), shown(found.preferred)
