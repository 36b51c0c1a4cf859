"""Nodes with a driver and a provisioner each, and a claim's way through their race."""

from typing import Any

from csi_provisioner.settings import NodeSettings, Settings
from sandbox.api.errors import Object
from sandbox.driver import GIB, Config, Driver, Pool
from tests.embedded import Cluster
from tests.nodes.objects import DRIVER, SELECTED

KEY = "acme.test/node"
PLUGIN = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")
CLAIM, VOLUME = "PersistentVolumeClaim", "PersistentVolume"


def config(name: str, size: int = 50 * GIB, **fields: Any) -> Config:
    """The driver of one node, which has its own storage."""
    segment = {KEY: name}
    pools = (Pool(segment, size, size),)
    given: dict[str, Any] = {"plugin": PLUGIN, "pools": pools, "node_id": name, "node_segment": segment}
    return Config(name=DRIVER, **(given | fields))


def settings(cluster: Cluster, made: Config, nodes: dict[str, Any] | None = None, **groups: Any) -> Settings:
    node = NodeSettings(enabled=True, node_name=made.node_id, **(nodes or {}))
    return cluster.settings(made, nodes=node, **groups)


async def deploy(
    cluster: Cluster, name: str, size: int = 50 * GIB, nodes: dict[str, Any] | None = None, **groups: Any
) -> Driver:
    """A node with both."""
    made = config(name, size)
    driver = await cluster.driver(made)
    cluster.provisioner(settings(cluster, made, nodes, **groups))
    return driver


def volumes(cluster: Cluster) -> dict[str, str]:
    """The node of each claim's volume, by its node affinity."""
    found = {}
    for volume in cluster.objects.all(VOLUME):
        [term] = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
        [expression] = term["matchExpressions"]
        [value] = expression["values"]
        found[volume["spec"]["claimRef"]["name"]] = value
    return found


def annotate(cluster: Cluster, claim: str, key: str, value: str) -> None:
    def change(obj: Object) -> None:
        obj["metadata"].setdefault("annotations", {})[key] = value

    cluster.objects.edit(CLAIM, claim, "default", change=change)


def unselect(cluster: Cluster, claim: str) -> None:
    """As a node does whose driver is out of space."""

    def change(obj: Object) -> None:
        del obj["metadata"]["annotations"][SELECTED]

    cluster.objects.edit(CLAIM, claim, "default", change=change)
