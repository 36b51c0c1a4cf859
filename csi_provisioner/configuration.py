"""From flags and environment to `Settings`: what is read from where, and which setups are refused (`Fatal`).

Everything that can be checked before anything is contacted is checked here, in the order and with the exit codes of
process.md 3 and 10.3. The grammar of flags is in `flagset`, their names and defaults are in `settings` and `flags`.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from csi_provisioner import durations, flags
from csi_provisioner.fatal import Fatal
from csi_provisioner.flagset import Values
from csi_provisioner.gates import gates_of
from csi_provisioner.logs import log
from csi_provisioner.settings import (
    HEALTH_PATH,
    LIVE_PATH,
    PROFILES_PATH,
    READY_PATH,
    STATUS_PATHS,
    CapacitySettings,
    ClusterSettings,
    CsiSettings,
    ElectionSettings,
    Gates,
    HttpSettings,
    LogSettings,
    NodeSettings,
    ProvisioningSettings,
    RetrySettings,
    Settings,
)

POD_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

# Linux's sockaddr_un has 108 bytes for the path, the last of them is the terminator.
_LONGEST_SOCKET_PATH = 107
# Names of PersistentVolumes are DNS subdomains. A prefix that makes none would fail at every volume.
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LONGEST_NAME = 253
_UUID_LENGTHS = (-1, *range(1, 33))


def log_settings(values: Values) -> LogSettings:
    """Settings of the log, which is configured first so that all further errors have the wanted format."""
    form = values[flags.LOGGING_FORMAT]
    if form not in ("text", "json"):
        raise Fatal(f"--logging-format={form}: it must be text or json", 1)
    found = values.fill(LogSettings, json=form == "json")
    if found.json and found.modules:
        raise Fatal("--vmodule works with --logging-format=text only", 1)
    if (frequency := values[flags.LOG_FLUSH_FREQUENCY]) <= 0:
        raise Fatal(f"--log-flush-frequency={durations.show(frequency)}: it must be more than 0", 1)
    for stream in flags.LOG_SPLIT_STREAMS:
        if values[stream]:
            raise Fatal(f"--{stream.name}=true is not supported, the log goes to stderr unsplit", 1)
    for buffer in flags.LOG_BUFFER_SIZES:
        # Any way to write zero: 0, 0.0, 0Ki.
        if not re.match(r"[+-]?[0.]+(?![0-9.])", values[buffer]):
            raise Fatal(f"--{buffer.name}={values[buffer]} is not supported, it must be 0", 1)
    return found


NAMES = ("NODE_NAME", "NAMESPACE", "POD_NAME", "POD_NAMESPACE")
"""Of the environment. What is no text there has no UTF-8, and would end the first request that holds it."""


def read(
    values: Values,
    environ: Mapping[str, str],
    logging: LogSettings,
    *,
    pod_namespace_file: Path = POD_NAMESPACE_FILE,
) -> Settings | None:
    """The checked settings; None for `--version`, which comes after some of the checks (process.md 1.5)."""
    for warning in values.warnings:
        log.warning(warning)
    for name in NAMES:
        if not environ.get(name, "").isprintable():
            raise Fatal(f"{name}={environ[name]}: no object can be called so", 255)
    gates = gates_of(values[flags.FEATURE_GATES])
    nodes = values.fill(NodeSettings)
    # A controller's manifest may have the variable too, and is no node's: its journal goes from one to another.
    nodes = replace(nodes, node_name=environ.get("NODE_NAME", "") if nodes.enabled else "")
    if nodes.enabled and not nodes.node_name:
        raise Fatal("--node-deployment needs the name of the node in the environment variable NODE_NAME", 255)
    if values[flags.VERSION]:
        return None
    settings = values.fill(
        Settings,
        http=_http(values),
        capacity=_capacity(values, environ),
        cluster=_cluster(values, environ),
        csi=_csi(values, environ),
        provisioning=_provisioning(values, gates),
        retries=values.fill(RetrySettings),
        nodes=nodes,
        election=_election(values, environ, pod_namespace_file),
        logging=logging,
        gates=gates,
        traces=bool(environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
        and environ.get("OTEL_SDK_DISABLED", "").lower() != "true",
    )
    _check(settings)
    if values[flags.AUTOMAXPROCS]:
        log.info("--automaxprocs has no effect: the program runs in one thread")
    return settings


def _check(settings: Settings) -> None:
    """Checks across groups, and warnings about setups that are allowed but hardly wanted."""
    http, limits, election = settings.http, settings.cluster, settings.election
    health = {LIVE_PATH, READY_PATH} | ({HEALTH_PATH} if election.enabled else set())
    taken = health | (set(STATUS_PATHS) if http.has_status_page else set())
    is_taken = http.path in taken and http.endpoint and not http.legacy
    if is_taken or (http.path.startswith(PROFILES_PATH) and http.endpoint and http.pprof):
        raise Fatal(f"--metrics-path={http.path}: something else is served at this path", 2)
    # A burst of 0 would let no request through. Without a limit it has no meaning.
    if limits.qps and limits.burst <= 0:
        raise Fatal(f"--kube-api-burst={limits.burst} must be more than 0 when --kube-api-qps is", 255)
    if settings.capacity.enabled and limits.capacity_qps and limits.capacity_burst <= 0:
        raise Fatal(
            f"--kube-api-capacity-burst={limits.capacity_burst} must be more than 0 when --kube-api-capacity-qps is",
            255,
        )
    if settings.shutdown_grace < 0:
        raise _refuse("shutdown-grace-period", settings.shutdown_grace, "it must not be negative")
    if settings.nodes.enabled and election.enabled:
        log.warning(
            "--node-deployment with --leader-election: only the leader's node is served; "
            "leave the election out, every node's provisioner has to be active"
        )
    if not settings.retries.workers:
        log.warning("--worker-threads=0: no volume will be created or deleted")


def _http(values: Values) -> HttpSettings:
    http, legacy = values.fill(HttpSettings), values[flags.METRICS_ADDRESS]
    if http.endpoint and legacy:
        raise Fatal(
            f"only one of --http-endpoint={http.endpoint} and --metrics-address={legacy} can be set, "
            "use --http-endpoint",
            1,
        )
    # The reference's router takes braces for placeholders, so a path with them works nowhere.
    if not http.path.startswith("/") or "{" in http.path or "}" in http.path:
        raise Fatal(f"--metrics-path={http.path}: it must be a path that starts with /", 2)
    if not legacy:
        return http
    log.warning("--metrics-address is deprecated, use --http-endpoint")
    return replace(http, endpoint=legacy, legacy=True)


def _csi(values: Values, environ: Mapping[str, str]) -> CsiSettings:
    csi, source = values.fill(CsiSettings), "--csi-address"
    given = csi.address
    # The flag wins over the environment, but its default does not.
    if "csi-address" not in values and environ.get("CSI_ENDPOINT"):
        given, source = environ["CSI_ENDPOINT"], "CSI_ENDPOINT"
    path = given.removeprefix("unix://") if given.startswith("unix://") else given.removeprefix("unix:")
    if not path.startswith("/"):
        raise Fatal(f"{source}={given} is no address of a socket: give an absolute path, unix:///path or unix:/path", 1)
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise Fatal(f"{source}={given}: the path of a socket has at most {_LONGEST_SOCKET_PATH} bytes", 1)
    if csi.timeout <= 0:
        raise _refuse("timeout", csi.timeout, "it must be more than 0, or no CSI call could ever succeed")
    return replace(csi, address=path)


def _cluster(values: Values, environ: Mapping[str, str]) -> ClusterSettings:
    cluster = values.fill(
        ClusterSettings,
        service_host=environ.get("KUBERNETES_SERVICE_HOST", ""),
        service_port=environ.get("KUBERNETES_SERVICE_PORT", ""),
        fallback_kubeconfig=environ.get("KUBECONFIG", ""),
    )
    # An empty --kubeconfig counts as not given.
    return replace(cluster, kubeconfig=cluster.kubeconfig or environ.get("KUBE_CONFIG_PATH", ""))


def _provisioning(values: Values, gates: Gates) -> ProvisioningSettings:
    found = values.fill(
        ProvisioningSettings,
        cross_namespace=gates.cross_namespace,
        snapshot_topology=gates.snapshot_topology,
        volume_attributes_class=gates.volume_attributes_class,
    )
    if found.volume_journal not in ("auto", "on", "off"):
        raise Fatal(f"--volume-journal={found.volume_journal}: it must be auto, on or off", 2)
    for start in found.claim_annotation_prefixes:
        _check_annotation_prefix(start)
    prefix, length = found.volume_name_prefix, found.volume_name_uuid_length
    if length not in _UUID_LENGTHS:
        raise Fatal(f"--volume-name-uuid-length={length}: it must be -1, for the whole UUID, or 1 to 32", 2)
    # Checked with zeros in place of the UUID, whose characters are all valid in a name.
    name = f"{prefix}-{'0' * (36 if length == -1 else length)}"
    if len(name) > _LONGEST_NAME or not _SUBDOMAIN.fullmatch(name):
        what = f"must be at most {_LONGEST_NAME} lower case letters, digits, '-' and '.', and begin with no sign"
        raise Fatal(f"--volume-name-prefix={prefix}: the name of a volume, prefix-UUID, {what}", 2)
    return found


def _check_annotation_prefix(prefix: str) -> None:
    domain, slash, _ = prefix.partition("/")
    why = ""
    if not slash or not _SUBDOMAIN.fullmatch(domain):
        why = "it must begin with a domain and a slash, such as example.com/"
    elif f".{domain}".endswith((".kubernetes.io", ".k8s.io")):
        why = "annotations of Kubernetes are not for the driver"
    if why:
        raise Fatal(f"--claim-annotation-prefix={prefix}: {why}", 2)


def _capacity(values: Values, environ: Mapping[str, str]) -> CapacitySettings:
    mode = values[flags.CAPACITY_MODE]
    if mode not in ("", "central"):
        raise Fatal(f"--capacity-controller-deployment-mode={mode} is not supported any more: use --enable-capacity", 2)
    found = values.fill(CapacitySettings, namespace=environ.get("NAMESPACE", ""), pod_name=environ.get("POD_NAME", ""))
    return replace(found, enabled=bool(mode) or found.enabled)


def _election(values: Values, environ: Mapping[str, str], pod_namespace_file: Path) -> ElectionSettings:
    kind = values[flags.LEADER_ELECTION_TYPE]
    if kind != "leases":  # locks of different kinds do not exclude each other: two would lead
        raise Fatal(f"--leader-election-type={kind} is not supported any more: only leases are", 2)
    found = values.fill(ElectionSettings)
    namespace = found.namespace or environ.get("POD_NAMESPACE") or _pod_namespace(pod_namespace_file)
    if not namespace.isprintable():
        raise Fatal(f"--leader-election-namespace={namespace}: no namespace can be called so", 255)
    found = replace(found, own_namespace=namespace)
    if not found.enabled:
        return found
    # A leader needs time for more than one try, and must have given up before another one may take the lease.
    lease, renew, retry = found.lease_duration, found.renew_deadline, found.retry_period
    if retry <= 0:
        raise _refuse("leader-election-retry-period", retry, "it must be more than 0")
    if renew <= 1.2 * retry:
        least = f"it must be more than 1.2 times --leader-election-retry-period, here {durations.show(1.2 * retry)}"
        raise _refuse("leader-election-renew-deadline", renew, least)
    if lease <= renew:
        more = f"it must be more than --leader-election-renew-deadline, here {durations.show(renew)}"
        raise _refuse("leader-election-lease-duration", lease, more)
    return replace(found, namespace=namespace or "default")


def _pod_namespace(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, ValueError):  # not in a pod, or its service account is not mounted, or is no text
        return ""


def _refuse(name: str, duration: float, reason: str) -> Fatal:
    return Fatal(f"--{name}={durations.show(duration)}: {reason}", 2)
