"""Every flag of the program, one entry each: name, kind, default, help (process.md 1.3), and those of older lines (13).

Only the table. How a value is read is in `flagset`, what is checked beyond its kind in `configuration`.
"""

from functools import partial
from typing import TypeVar

from .flagset import (
    BOOLEAN,
    DURATION,
    INTEGER,
    LABELS,
    MODULES,
    NUMBER,
    QUANTITY,
    SWITCHES,
    TEXT,
    UNSIGNED,
    VERBOSITY,
    Flag,
    FlagSet,
    Kind,
    Pairs,
)

T = TypeVar("T")

FLAGS = FlagSet()


def _flag(group: str, name: str, kind: Kind[T], default: T, help_: str, environment: str = "") -> Flag[T]:
    return FLAGS.add(group, Flag(name, kind, default, help_, environment))


def _old(name: str, kind: Kind[T], default: T, instead: str = "", target: str = "") -> Flag[T]:
    """A flag of an older line: taken, with a warning that says what becomes of it."""
    warning = f"--{name} is a flag of an older version: {instead or 'it is ignored'}"
    return FLAGS.add("", Flag(name, kind, default, "", warning=warning, target=target))


_NO_LABELS: Pairs[str] = ()
_NO_SWITCHES: Pairs[bool] = ()
_NO_MODULES: Pairs[int] = ()

_general = partial(_flag, "General and connection")
HELP = _general("help", BOOLEAN, False, "Show this text; also -h.")
VERSION = _general("version", BOOLEAN, False, "Print the version and exit.")
CSI_ADDRESS = _general(
    "csi-address",
    TEXT,
    "/run/csi/socket",
    "Socket of the CSI driver: an absolute path, unix:///path or unix:/path.",
    "CSI_ENDPOINT",
)
PROVISIONER = _general(
    "provisioner", TEXT, "", "Name that the driver must have; with another one the program refuses to start."
)
KUBECONFIG = _general(
    "kubeconfig",
    TEXT,
    "",
    "Path of a kubeconfig. Without it and without --master: the service account of the pod, then KUBECONFIG.",
    "KUBE_CONFIG_PATH",
)
MASTER = _general(
    "master",
    TEXT,
    "",
    "URL of the API server; it replaces the server of a kubeconfig, alone it is used without credentials.",
)
TIMEOUT = _general("timeout", DURATION, 10.0, "Limit of each CSI call.")
SHUTDOWN_GRACE_PERIOD = _general(
    "shutdown-grace-period",
    DURATION,
    25.0,
    "Time from a SIGTERM to the end of the process, for running calls, last writes and the lease.",
)
FEATURE_GATES = _general(
    "feature-gates",
    SWITCHES,
    _NO_SWITCHES,
    "Features to switch: Topology (on), VolumeAttributesClass (on), CrossNamespaceVolumeDataSource (off), "
    "ReleaseLeaderElectionOnExit (always so), AllAlpha, AllBeta.",
)
AUTOMAXPROCS = _general("automaxprocs", BOOLEAN, False, "Accepted for compatibility, without effect.")

_provisioning = partial(_flag, "Provisioning")
VOLUME_NAME_PREFIX = _provisioning("volume-name-prefix", TEXT, "pvc", "Prefix of the names of volumes.")
VOLUME_NAME_UUID_LENGTH = _provisioning(
    "volume-name-uuid-length", INTEGER, -1, "Cut the UUID in volume names to so many characters, 1 to 32; -1 keeps all."
)
DEFAULT_FSTYPE = _provisioning(
    "default-fstype", TEXT, "", "File system of volumes whose class names none; empty leaves it to the driver."
)
STRICT_TOPOLOGY = _provisioning(
    "strict-topology", BOOLEAN, False, "Late binding: pass only the topology of the selected node."
)
IMMEDIATE_TOPOLOGY = _provisioning(
    "immediate-topology", BOOLEAN, True, "Immediate binding: pass the topology of the whole cluster."
)
EXTRA_CREATE_METADATA = _provisioning(
    "extra-create-metadata", BOOLEAN, False, "Pass the names of claim and volume as parameters of CreateVolume."
)
CONTROLLER_PUBLISH_READONLY = _provisioning(
    "controller-publish-readonly", BOOLEAN, False, "Make the volumes of ReadOnlyMany claims read-only."
)
PREVENT_VOLUME_MODE_CONVERSION = _provisioning(
    "prevent-volume-mode-conversion",
    BOOLEAN,
    True,
    "Refuse to restore a snapshot with another volume mode, unless the snapshot content allows it.",
)

_retries = partial(_flag, "Retries and workers")
RETRY_INTERVAL_START = _retries("retry-interval-start", DURATION, 1.0, "First wait after a failure; it doubles.")
RETRY_INTERVAL_MAX = _retries("retry-interval-max", DURATION, 300.0, "Longest wait after a failure.")
WORKER_THREADS = _retries("worker-threads", UNSIGNED, 100, "Claims worked on at a time, and as many volumes to delete.")
CLONING_PROTECTION_THREADS = _retries(
    "cloning-protection-threads", UNSIGNED, 1, "Clone sources whose finalizer is removed at a time."
)
SNAPSHOT_ORPHAN_SWEEP_INTERVAL = _retries(
    "snapshot-orphan-sweep-interval",
    DURATION,
    300.0,
    "How often finalizers left on source snapshots are looked for; 0 or less: never.",
)

_limits = partial(_flag, "Limits of API requests")
KUBE_API_QPS = _limits(
    "kube-api-qps",
    NUMBER,
    0.0,
    "Requests to the API server per second. Without it, or with 0 or less, there is no limit but the server's own.",
)
KUBE_API_BURST = _limits("kube-api-burst", INTEGER, 10, "Requests at once, with --kube-api-qps.")
KUBE_API_CAPACITY_QPS = _limits(
    "kube-api-capacity-qps", NUMBER, 1.0, "The same for the requests about storage capacity."
)
KUBE_API_CAPACITY_BURST = _limits(
    "kube-api-capacity-burst", INTEGER, 5, "Requests at once, with --kube-api-capacity-qps."
)

_election = partial(_flag, "Leader election")
LEADER_ELECTION = _election("leader-election", BOOLEAN, False, "Work only while holding the driver's lease.")
LEADER_ELECTION_NAMESPACE = _election(
    "leader-election-namespace", TEXT, "", "Namespace of the lease; empty: that of the pod.", "POD_NAMESPACE"
)
LEADER_ELECTION_LEASE_DURATION = _election(
    "leader-election-lease-duration", DURATION, 15.0, "How long others wait for a leader that is gone."
)
LEADER_ELECTION_RENEW_DEADLINE = _election(
    "leader-election-renew-deadline", DURATION, 10.0, "How long a leader tries to renew the lease."
)
LEADER_ELECTION_RETRY_PERIOD = _election(
    "leader-election-retry-period", DURATION, 5.0, "Time between two tries at the lease."
)
LEADER_ELECTION_LABELS = _election("leader-election-labels", LABELS, _NO_LABELS, "Labels to put on the lease.")

_http = partial(_flag, "HTTP")
HTTP_ENDPOINT = _http(
    "http-endpoint", TEXT, "", "Address for metrics and health, such as :8080 or 127.0.0.1:8080; empty: none."
)
METRICS_ADDRESS = _http(
    "metrics-address", TEXT, "", "Deprecated: as --http-endpoint, without the health of the leader election."
)
METRICS_PATH = _http("metrics-path", TEXT, "/metrics", "Path of the metrics.")
ENABLE_PPROF = _http("enable-pprof", BOOLEAN, False, "Serve profiles under /debug/pprof/.")

_capacity = partial(_flag, "Storage capacity")
ENABLE_CAPACITY = _capacity(
    "enable-capacity",
    BOOLEAN,
    False,
    "Publish CSIStorageCapacity objects. Needs NAMESPACE, and POD_NAME for their owner.",
)
CAPACITY_FOR_IMMEDIATE_BINDING = _capacity(
    "capacity-for-immediate-binding", BOOLEAN, False, "Publish them for classes with immediate binding too."
)
CAPACITY_POLL_INTERVAL = _capacity("capacity-poll-interval", DURATION, 60.0, "How often the driver is asked.")
CAPACITY_OWNERREF_LEVEL = _capacity(
    "capacity-ownerref-level", INTEGER, 1, "Owner of the objects: 0 the pod, 1 its owner, and so on; negative: none."
)
CAPACITY_THREADS = _capacity("capacity-threads", UNSIGNED, 1, "Objects worked on at a time.")

_nodes = partial(_flag, "One provisioner per node")
NODE_DEPLOYMENT = _nodes(
    "node-deployment", BOOLEAN, False, "Run beside the driver of each node. Needs NODE_NAME.", "NODE_NAME"
)
NODE_DEPLOYMENT_IMMEDIATE_BINDING = _nodes(
    "node-deployment-immediate-binding", BOOLEAN, True, "Take part in claims with immediate binding."
)
NODE_DEPLOYMENT_BASE_DELAY = _nodes(
    "node-deployment-base-delay", DURATION, 20.0, "Wait before trying to own such a claim; it doubles on conflicts."
)
NODE_DEPLOYMENT_MAX_DELAY = _nodes("node-deployment-max-delay", DURATION, 60.0, "Longest such wait.")

_logging = partial(_flag, "Logging")
V = _logging("v", VERBOSITY, 0, "Verbosity; 5 shows the CSI calls, without secrets.")
VMODULE = _logging("vmodule", MODULES, _NO_MODULES, "Verbosity of single source files, text format only.")
LOGGING_FORMAT = _logging("logging-format", TEXT, "text", "text or json.")
LOG_FLUSH_FREQUENCY = _logging("log-flush-frequency", DURATION, 5.0, "Accepted for compatibility, without effect.")
LOG_TEXT_SPLIT_STREAM = _logging("log-text-split-stream", BOOLEAN, False, "Only false.")
LOG_JSON_SPLIT_STREAM = _logging("log-json-split-stream", BOOLEAN, False, "Only false.")
LOG_TEXT_INFO_BUFFER_SIZE = _logging("log-text-info-buffer-size", QUANTITY, "0", "Only 0.")
LOG_JSON_INFO_BUFFER_SIZE = _logging("log-json-info-buffer-size", QUANTITY, "0", "Only 0.")

_old("connection-timeout", TEXT, "")
_old("enable-leader-election", BOOLEAN, False, "use --leader-election", target="leader-election")
LEADER_ELECTION_TYPE = _old("leader-election-type", TEXT, "leases", "only leases are supported")
CAPACITY_MODE = _old("capacity-controller-deployment-mode", TEXT, "", "use --enable-capacity")
for _name in ("logtostderr", "alsologtostderr", "skip_headers", "skip_log_headers", "one_output", "add_dir_header"):
    _old(_name, BOOLEAN, False, "it is ignored, the log goes to stderr")
for _name in ("stderrthreshold", "log_dir", "log_file", "log_file_max_size", "log_backtrace_at"):
    _old(_name, TEXT, "", "it is ignored, the log goes to stderr")
