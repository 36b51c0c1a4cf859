"""A driver of three zones that publishes its capacity, and the objects that come of it."""

from typing import Any

import trio

from csi_provisioner.settings import CapacitySettings
from sandbox.api.errors import Object
from sandbox.driver import GIB, Config, Driver, Pool
from tests.capacity.objects import DRIVER, LABELS
from tests.embedded import Cluster

ZONE = "acme.test/zone"
KIND = "CSIStorageCapacity"
PLUGIN = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")
FREE = {"z-1": 10 * GIB, "z-2": 20 * GIB, "z-3": 0}
CONFIG = Config(
    name=DRIVER, plugin=PLUGIN, pools=tuple(Pool({ZONE: zone}, size, 4 * GIB) for zone, size in FREE.items())
)
SETTINGS = CapacitySettings(enabled=True, ownerref_level=-1, namespace="ns1")
SETTLED = 40.0  # less than a poll interval


def made(cluster: Cluster) -> dict[tuple[str, str], Object]:
    """The objects by zone and class."""
    found = {}
    for obj in cluster.objects.all(KIND):
        zone = (obj["nodeTopology"].get("matchLabels") or {}).get(ZONE, "")
        found[zone, obj["storageClassName"]] = obj
    return found


def exists(cluster: Cluster, name: str, zone: str, class_name: str = "fast", **fields: Any) -> Object:
    obj = {
        "metadata": {"name": name, "labels": LABELS} | fields.pop("metadata", {}),
        "storageClassName": class_name,
        "nodeTopology": {"matchLabels": {ZONE: zone}},
        "capacity": "10Gi",
        "maximumVolumeSize": "4Gi",
    }
    return dict(cluster.objects.create(KIND, obj | fields, "ns1").obj)


async def start(cluster: Cluster, settings: CapacitySettings = SETTINGS, *, settled: float = SETTLED) -> Driver:
    driver = await cluster.driver(CONFIG)
    cluster.provisioner(cluster.settings(CONFIG, capacity=settings))
    await trio.sleep(settled)
    return driver
