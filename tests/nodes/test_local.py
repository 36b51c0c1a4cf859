"""Node-deployment.md 3 and 9: this node's stand-ins, and what follows from them."""

from typing import Any

import pytest

from csi_provisioner.model import csi
from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.outcome import State
from csi_provisioner.nodes import local
from csi_provisioner.planning import affinity, deletion, terms
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.topology import PlacementFacts, TopologyMemory, requirement
from csi_provisioner.settings import ProvisioningSettings

from .objects import DRIVER, NODE

KEY = "acme.test/node"


def info(segments: dict[str, str] | None) -> csi.NodeGetInfoResponse:
    topology = None if segments is None else csi.Topology(segments=segments)
    return csi.NodeGetInfoResponse(node_id="id-7", accessible_topology=topology)


HERE = local.described(NODE, info({KEY: "node-7"}))


def test_the_node_stands_in_for_the_objects_of_the_api() -> None:
    """node-deployment.md 3."""
    index = HERE.cluster(DRIVER)
    csinode = index.csinode("node-7")
    assert csinode is not None
    assert csinode.spec.drivers == [k8s.CSINodeDriver(name=DRIVER, nodeID="id-7", topologyKeys=[KEY])]
    assert index.labels("node-7") == {KEY: "node-7"}
    assert index.csinode("node-8") is None
    assert index.labels("node-8") is None


def ask(selected: str, allowed: list[str] | None, strict: bool, here: local.LocalNode = HERE) -> Any:
    expression = k8s.LabelSelectorRequirement(key=KEY, values=allowed or [])
    facts = PlacementFacts(
        claim="data-db-0",
        selected_node=k8s.NodeName(selected),
        allowed=terms.read([k8s.TopologySelectorTerm(matchLabelExpressions=[expression])] if allowed else []),
        settings=ProvisioningSettings(strict_topology=strict, immediate_topology=False),
    )
    found = requirement(facts, here.cluster(DRIVER), TopologyMemory())
    assert found is not None
    return [[t.segments[KEY] for t in topologies] for topologies in (found.requisite, found.preferred)]


OWN = [["node-7"], ["node-7"]]
REQUIREMENTS = [
    ("strict-empty", None, True, OWN),
    ("empty", None, False, OWN),
    ("strict-fitting", ["node-9", "node-7", "node-1"], True, OWN),
    (
        "fitting",
        ["node-9", "node-7", "node-1"],
        False,
        [["node-1", "node-7", "node-9"], ["node-7", "node-9", "node-1"]],
    ),
]


@pytest.mark.parametrize(
    ("allowed", "strict", "expected"),
    [row[1:] for row in REQUIREMENTS],
    ids=[f"node-deployment-3-{row[0]}" for row in REQUIREMENTS],
)
def test_requirement(allowed: list[str] | None, strict: bool, expected: list[list[str]]) -> None:
    assert ask("node-7", allowed, strict) == expected


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not-strict"])
def test_a_class_that_excludes_this_node_is_refused(strict: bool) -> None:
    """Also topology-13-8. node-deployment.md 15.2."""
    with pytest.raises(Refusal, match="node-7"):
        ask("node-7", ["node-8"], strict)


def test_another_node_is_not_found() -> None:
    """node-deployment.md 3."""
    with pytest.raises(Refusal) as caught:
        ask("node-8", None, False)
    assert caught.value.state is State.RESCHEDULE


def test_a_driver_without_topology_has_no_keys() -> None:
    """node-deployment.md 3."""
    with pytest.raises(Refusal, match="no topology keys for selected node node-7") as caught:
        ask("node-7", None, False, local.described(NODE, info(None)))
    assert caught.value.state is State.NO_CHANGE


def volume(*terms: dict[str, str]) -> k8s.PersistentVolume:
    """`required` without terms if there are none."""
    where = affinity.of_answer([csi.Topology(segments=term) for term in terms] or [csi.Topology()])
    return k8s.PersistentVolume(metadata=k8s.ObjectMeta(name="pv"), spec=k8s.VolumeSpec(nodeAffinity=where))


UNSET = k8s.PersistentVolume(metadata=k8s.ObjectMeta(name="pv"))
NOT_REQUIRED = k8s.PersistentVolume(
    metadata=k8s.ObjectMeta(name="pv"), spec=k8s.VolumeSpec(nodeAffinity=k8s.VolumeNodeAffinity())
)
DELETIONS: list[tuple[str, k8s.PersistentVolume, dict[str, str] | None, bool]] = [
    ("own", volume({KEY: "node-7"}), {KEY: "node-7"}, True),
    ("other", volume({KEY: "node-8"}), {KEY: "node-7"}, False),
    ("two-terms", volume({KEY: "node-8"}, {KEY: "node-7"}), {KEY: "node-7"}, True),
    ("unknown-label", volume({KEY: "node-7", "acme.test/disk": "ssd"}), {KEY: "node-7"}, False),
    ("hostname", volume({"kubernetes.io/hostname": "node-7"}), {KEY: "node-7"}, False),
    ("no-terms", volume(), {KEY: "node-7"}, False),
    ("unset", UNSET, {KEY: "node-7"}, True),
    ("not-required", NOT_REQUIRED, {KEY: "node-7"}, True),
    ("driver-without-topology", volume({KEY: "node-8"}), None, True),
    ("driver-with-empty-topology", volume({KEY: "node-7"}), {}, False),
]


@pytest.mark.parametrize(
    ("given", "segments", "ours"),
    [row[1:] for row in DELETIONS],
    ids=[f"node-deployment-9-{row[0]}" for row in DELETIONS],
)
def test_a_volume_is_its_nodes(given: k8s.PersistentVolume, segments: dict[str, str] | None, ours: bool) -> None:
    """node-deployment.md 15.1."""
    here = local.described(NODE, info(segments))
    if ours:
        deletion.check_accessible(given, here.segments)
    else:
        with pytest.raises(Refusal) as refused:
            deletion.check_accessible(given, here.segments)
        assert refused.value.ignored
