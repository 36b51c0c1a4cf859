"""What the process has made before any work starts, and every life of it uses."""

from dataclasses import dataclass

from csi_provisioner.csi.driver import Driver
from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.end import End
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.metrics import Metrics
from csi_provisioner.nodes.local import LocalNode
from csi_provisioner.provision.memory import ClaimMemory
from csi_provisioner.provision.orphans import Orphans
from csi_provisioner.settings import ProvisioningSettings, Settings

from .capacity import Access


@dataclass(frozen=True, slots=True)
class Parts:
    """`local` is this node where each has a provisioner of its own; `capacity` is None unless it is published."""

    settings: Settings
    provisioning: ProvisioningSettings
    metrics: Metrics
    kube: KubeClient
    driver: Driver
    events: EventRecorder
    memory: ClaimMemory
    orphans: Orphans
    end: End
    identity: str
    local: LocalNode | None = None
    capacity: Access | None = None
