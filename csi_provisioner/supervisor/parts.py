"""What the process has made before any work starts, and what outlives a term of its work."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from csi_provisioner.csi.driver import Driver
from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.end import End
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.kube.kept import Kept
from csi_provisioner.metrics import Metrics
from csi_provisioner.planning.rights import Right
from csi_provisioner.provision.memory import ClaimMemory
from csi_provisioner.provision.orphans import Orphans
from csi_provisioner.provision.writer import JournalWriter
from csi_provisioner.settings import ProvisioningSettings, Settings

if TYPE_CHECKING:
    from csi_provisioner.capacity.publisher import CapacityClient
    from csi_provisioner.nodes.local import LocalNode


class Parts(msgspec.Struct, frozen=True):
    """What the process has made before any work starts, and what outlives a term. `local` is this node where each has a
    provisioner of its own; `capacity` is None unless it is published; `synced` is told when the caches are whole;
    `away` tells for how many seconds between two moments the driver did not answer."""

    settings: Settings
    provisioning: ProvisioningSettings
    metrics: Metrics
    kube: KubeClient
    driver: Driver
    events: EventRecorder
    memory: ClaimMemory
    orphans: Orphans
    kept: Kept
    end: End
    identity: str
    journal: JournalWriter | None = None
    local: "LocalNode | None" = None
    capacity: "CapacityClient | None" = None
    synced: Callable[[], None] = lambda: None
    granted: dict[Right, float] = msgspec.field(default_factory=dict)
    """Rights that this process was found to have, and when."""
    away: Callable[[float, float], float] = lambda begin, end: 0.0
