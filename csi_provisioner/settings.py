"""What the process was told, in one frozen group for each part of it.

A field made by `flag` is a flag of the command line: its name, default and help text (process.md 1.3). All other fields
come from the environment or from several flags; empty means not given. A component takes its own group, only the
supervisor sees them all. Durations are seconds. `configuration` fills the groups and checks them.
"""

import msgspec

from .flagset import CLASS_WORKERS, MODULES, PAIRS, RATE, TEXTS, UNSIGNED, VERBOSITY, Pairs, flag

HEALTH_PATH, LIVE_PATH, READY_PATH = "/healthz/leader-election", "/livez", "/readyz"
STATUSZ_PATH, DATA_PATH, FLAGZ_PATH = STATUS_PATHS = ("/statusz", "/statusz/data", "/flagz")
PROFILES_PATH = "/debug/pprof/"
"""Paths of the HTTP endpoint that cannot be those of the metrics."""


class CsiSettings(msgspec.Struct, frozen=True, kw_only=True):
    # The default of the reference. Manifests of drivers mostly give another path.
    address: str = flag(
        "csi-address",
        "/run/csi/socket",
        "Socket of the CSI driver: an absolute path, unix:///path or unix:/path.",
        environment="CSI_ENDPOINT",
    )
    """Only the path, whichever form was given."""
    timeout: float = flag("timeout", 10.0, "Limit of each CSI call.")
    expected_driver: str = flag("provisioner", "", "Name the driver must have, or the program refuses to start.")


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the API server is, in the order of design.md 4, and how fast it may be asked."""

    kubeconfig: str = flag(
        "kubeconfig",
        "",
        "Path of a kubeconfig. Without it and without --master: the service account of the pod, then KUBECONFIG.",
        environment="KUBE_CONFIG_PATH",
    )
    master: str = flag(
        "master",
        "",
        "URL of the API server; it replaces the server of a kubeconfig, alone it is used without credentials.",
    )
    # The variables that Kubernetes sets in each container of a pod.
    service_host: str = ""
    """KUBERNETES_SERVICE_HOST: the service account of the pod can be used."""
    service_port: str = ""
    fallback_kubeconfig: str = ""
    """KUBECONFIG, the last resort."""
    qps: float | None = flag(
        "kube-api-qps",
        None,
        "Requests to the API server per second. Without it, or with 0 or less, there is no limit but the server's own.",
        kind=RATE,
    )
    """None: no limit of our own, the server's 429 and Retry-After are obeyed."""
    burst: int = flag("kube-api-burst", 10, "Requests at once, with --kube-api-qps.")
    capacity_qps: float | None = flag("kube-api-capacity-qps", 1.0, "The same for storage capacity.", kind=RATE)
    capacity_burst: int = flag("kube-api-capacity-burst", 5, "Requests at once, with --kube-api-capacity-qps.")


class ProvisioningSettings(msgspec.Struct, frozen=True, kw_only=True):
    volume_name_prefix: str = flag("volume-name-prefix", "pvc", "Prefix of the names of volumes.")
    volume_name_uuid_length: int = flag(
        "volume-name-uuid-length", -1, "Cut the UUID in volume names to so many characters, 1 to 32; -1 keeps all."
    )
    default_fstype: str = flag("default-fstype", "", "File system if the class names none; empty: as the driver likes.")
    strict_topology: bool = flag("strict-topology", False, "Late binding: pass only the topology of the selected node.")
    immediate_topology: bool = flag("immediate-topology", True, "Immediate binding: pass the whole cluster's topology.")
    extra_create_metadata: bool = flag(
        "extra-create-metadata", False, "Pass the names of claim and volume as parameters of CreateVolume."
    )
    controller_publish_readonly: bool = flag(
        "controller-publish-readonly", False, "Make the volumes of ReadOnlyMany claims read-only."
    )
    claim_annotation_prefixes: tuple[str, ...] = flag(
        "claim-annotation-prefix",
        (),
        "Pass the claim's annotations under these prefixes, such as example.com/, to the driver as parameters. Whoever "
        "may make claims then speaks to the driver: see docs/how-to/claim-annotations.md.",
        kind=TEXTS,
    )
    volume_journal: str = flag(
        "volume-journal",
        "auto",
        "Keep in Leases what is in progress, so that no volume is lost when this process dies: auto, on (no volume is "
        "made without) or off. auto needs a namespace: --leader-election-namespace, or that of the pod.",
    )
    prevent_volume_mode_conversion: bool = flag(
        "prevent-volume-mode-conversion",
        True,
        "Refuse to restore a snapshot with another volume mode, unless the snapshot content allows it.",
    )
    # From the feature gates, so that provisioning need not see the others.
    cross_namespace: bool = False
    snapshot_topology: bool = False
    volume_attributes_class: bool = True


class RetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    start: float = flag("retry-interval-start", 1.0, "First wait after a failure; it doubles.")
    maximum: float = flag("retry-interval-max", 300.0, "Longest wait after a failure.")
    # For claims and again for volumes: by default up to 100 CreateVolume and 100 DeleteVolume calls at once.
    workers: int = flag("worker-threads", 100, "Claims worked on at a time, and as many deletions.", kind=UNSIGNED)
    class_workers: Pairs[int] = flag(
        "class-workers",
        (),
        "Calls to the driver at a time for volumes of single classes, creations and deletions together; 0 stops them. "
        "The annotation csi-provisioner.io/max-concurrent-calls of a StorageClass says the same, the smaller wins.",
        kind=CLASS_WORKERS,
    )
    adaptive: bool = flag(
        "adaptive-concurrency",
        False,
        "Find for each class and kind of source how many calls the back end answers in time, from 4 on. Not for "
        "drivers that take longer than three quarters of --timeout by themselves: they would stay at 4.",
    )
    cloning_protection_workers: int = flag(
        "cloning-protection-threads", 1, "Clone sources whose finalizer is removed at a time.", kind=UNSIGNED
    )
    snapshot_sweep_interval: float = flag(
        "snapshot-orphan-sweep-interval",
        300.0,
        "How often finalizers left on source snapshots are looked for; 0 or less: never.",
    )


class CapacitySettings(msgspec.Struct, frozen=True, kw_only=True):
    enabled: bool = flag(
        "enable-capacity", False, "Publish CSIStorageCapacity objects. Needs NAMESPACE, and POD_NAME for their owner."
    )
    threads: int = flag("capacity-threads", 1, "Objects worked on at a time.", kind=UNSIGNED)
    poll_interval: float = flag("capacity-poll-interval", 60.0, "How often the driver is asked.")
    immediate_binding: bool = flag(
        "capacity-for-immediate-binding", False, "Publish them for classes with immediate binding too."
    )
    ownerref_level: int = flag(
        "capacity-ownerref-level", 1, "Owner of the objects: 0 the pod, 1 its owner, and so on; negative: none."
    )
    # Two variables for two things: this one is where the objects go, the other one is for the lease.
    namespace: str = ""
    """NAMESPACE, not POD_NAMESPACE (process.md 2)."""
    pod_name: str = ""


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    enabled: bool = flag(
        "node-deployment", False, "Run beside the driver of each node. Needs NODE_NAME.", environment="NODE_NAME"
    )
    immediate_binding: bool = flag("node-deployment-immediate-binding", True, "Take claims with immediate binding.")
    base_delay: float = flag(
        "node-deployment-base-delay", 20.0, "Wait before taking such a claim; conflicts double it."
    )
    # Long on purpose: nodes must not all ask for one claim at the same time.
    max_delay: float = flag("node-deployment-max-delay", 60.0, "Longest such wait.")
    node_name: str = ""
    """Set when enabled, and only then."""


class ElectionSettings(msgspec.Struct, frozen=True, kw_only=True):
    enabled: bool = flag("leader-election", False, "Work only while holding the driver's lease.")
    namespace: str = flag(
        "leader-election-namespace", "", "Namespace of the lease; empty: that of the pod.", environment="POD_NAMESPACE"
    )
    """Always set when enabled (process.md 6.2)."""
    own_namespace: str = ""
    """The same where something names it; the fallback does not count."""
    # These three are the defaults of the reference, so that both programs can compete for one lease.
    lease_duration: float = flag("leader-election-lease-duration", 15.0, "How long others wait for a lost leader.")
    renew_deadline: float = flag("leader-election-renew-deadline", 10.0, "How long a leader tries to renew the lease.")
    retry_period: float = flag("leader-election-retry-period", 5.0, "Time between two tries at the lease.")
    # Pairs and no dict: settings are frozen, and a flag may be given twice.
    labels: Pairs[str] = flag("leader-election-labels", (), "Labels to put on the lease.", kind=PAIRS)
    """Of two with one key the later one counts."""


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    endpoint: str = flag("http-endpoint", "", "Address for metrics and health: :8080 or 127.0.0.1:8080; empty: none.")
    path: str = flag("metrics-path", "/metrics", "Path of the metrics.")
    status_page: bool = flag("status-page", True, "Serve /statusz, a page for people in a browser, and /flagz.")
    pprof: bool = flag("enable-pprof", False, "Serve profiles under /debug/pprof/.")
    legacy: bool = False
    """The address came by `--metrics-address`: no health check of the election (process.md 6.6)."""

    @property
    def has_status_page(self) -> bool:
        return self.status_page and not self.legacy


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    verbosity: int = flag("v", 0, "Verbosity; 5 shows the CSI calls, without secrets.", kind=VERBOSITY)
    modules: Pairs[int] = flag("vmodule", (), "Verbosity of single source files, text format only.", kind=MODULES)
    json: bool = False


class Gates(msgspec.Struct, frozen=True, kw_only=True):
    topology: bool = True
    cross_namespace: bool = False
    snapshot_topology: bool = False
    volume_attributes_class: bool = True
    volume_attributes_class_explicit: bool = False
    """Named by the user: then the cluster is not asked whether it has the API (process.md 1.4)."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    csi: CsiSettings = msgspec.field(default_factory=CsiSettings)
    cluster: ClusterSettings = msgspec.field(default_factory=ClusterSettings)
    provisioning: ProvisioningSettings = msgspec.field(default_factory=ProvisioningSettings)
    retries: RetrySettings = msgspec.field(default_factory=RetrySettings)
    capacity: CapacitySettings = msgspec.field(default_factory=CapacitySettings)
    nodes: NodeSettings = msgspec.field(default_factory=NodeSettings)
    election: ElectionSettings = msgspec.field(default_factory=ElectionSettings)
    http: HttpSettings = msgspec.field(default_factory=HttpSettings)
    logging: LogSettings = msgspec.field(default_factory=LogSettings)
    gates: Gates = msgspec.field(default_factory=Gates)
    traces: bool = False
    """OTEL_EXPORTER_OTLP_ENDPOINT is set; the library that sends them reads it and its like itself."""
    # Kubernetes gives a pod 30 s by default before it kills it.
    shutdown_grace: float = flag(
        "shutdown-grace-period",
        25.0,
        "Time from a SIGTERM to the end of the process, for running calls, last writes and the lease.",
    )
