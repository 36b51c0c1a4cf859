"""What the process was told, in one frozen group per part of it.

Data only: the command line's grammar is in `flagset`, the flags in `flags`, the checks in `configuration`. A component
takes its own group and the supervisor sees them all. The defaults are those of the flags (process.md 1.3); durations
are seconds.
"""

from dataclasses import dataclass, field

HEALTH_PATH = "/healthz/leader-election"
PROFILES_PATH = "/debug/pprof/"
"""Paths of the HTTP endpoint that cannot be those of the metrics."""


@dataclass(frozen=True, kw_only=True)
class CsiSettings:
    address: str = "/run/csi/socket"
    """Path of the driver's Unix socket, whichever form was given."""
    timeout: float = 10.0
    expected_driver: str | None = None
    """`--provisioner`: a driver with another name is refused."""


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Where the API server is, in the order of design.md 4, and how fast it may be asked."""

    kubeconfig: str | None = None
    """`--kubeconfig`, else KUBE_CONFIG_PATH."""
    master: str | None = None
    service_host: str | None = None
    """KUBERNETES_SERVICE_HOST: the service account of the pod can be used."""
    service_port: str | None = None
    fallback_kubeconfig: str | None = None
    """KUBECONFIG, the last resort."""
    qps: float | None = None
    """None: no limit of our own, the server's 429 and Retry-After are obeyed."""
    burst: int = 10
    capacity_qps: float | None = 1.0
    capacity_burst: int = 5


@dataclass(frozen=True, kw_only=True)
class ProvisioningSettings:
    volume_name_prefix: str = "pvc"
    volume_name_uuid_length: int = -1
    """-1: the whole UID."""
    default_fstype: str = ""
    strict_topology: bool = False
    immediate_topology: bool = True
    extra_create_metadata: bool = False
    controller_publish_readonly: bool = False
    prevent_volume_mode_conversion: bool = True
    cross_namespace: bool = False
    volume_attributes_class: bool = True


@dataclass(frozen=True, kw_only=True)
class RetrySettings:
    start: float = 1.0
    maximum: float = 300.0
    workers: int = 100
    """For claims, and as many for volumes. 0: nothing is worked on."""
    cloning_protection_workers: int = 1
    snapshot_sweep_interval: float = 300.0
    """0 or less: no sweep."""


@dataclass(frozen=True, kw_only=True)
class CapacitySettings:
    enabled: bool = False
    threads: int = 1
    poll_interval: float = 60.0
    immediate_binding: bool = False
    ownerref_level: int = 1
    """Negative: no owner."""
    namespace: str | None = None
    """NAMESPACE, not POD_NAMESPACE (process.md 2)."""
    pod_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    enabled: bool = False
    immediate_binding: bool = True
    base_delay: float = 20.0
    max_delay: float = 60.0
    node_name: str | None = None
    """Always set when enabled."""


@dataclass(frozen=True, kw_only=True)
class ElectionSettings:
    enabled: bool = False
    namespace: str = "default"
    """Resolved as in process.md 6.2 when enabled."""
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 5.0
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    endpoint: str = ""
    """Listen address, empty: no HTTP at all."""
    path: str = "/metrics"
    pprof: bool = False
    legacy: bool = False
    """The address came by `--metrics-address`: no health check of the election (process.md 6.6)."""


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    json: bool = False
    verbosity: int = 0
    modules: tuple[tuple[str, int], ...] = ()
    """`--vmodule`: file pattern and its verbosity."""


@dataclass(frozen=True, kw_only=True)
class Gates:
    topology: bool = True
    cross_namespace: bool = False
    volume_attributes_class: bool = True
    volume_attributes_class_explicit: bool = False
    """Named by the user: then the cluster is not asked whether it has the API (process.md 1.4)."""
    release_on_exit: bool = False
    """Accepted; the lease is released on exit in any case (design.md 4)."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    csi: CsiSettings = field(default_factory=CsiSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    provisioning: ProvisioningSettings = field(default_factory=ProvisioningSettings)
    retries: RetrySettings = field(default_factory=RetrySettings)
    capacity: CapacitySettings = field(default_factory=CapacitySettings)
    nodes: NodeSettings = field(default_factory=NodeSettings)
    election: ElectionSettings = field(default_factory=ElectionSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    logging: LogSettings = field(default_factory=LogSettings)
    gates: Gates = field(default_factory=Gates)
    shutdown_grace: float = 25.0
    """From a SIGTERM to the end of the process."""
