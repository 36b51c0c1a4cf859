"""From flags and environment to `Settings`: what is read from where, and which setups are refused (`Fatal`).

Everything that can be judged before anything is contacted is judged here, in the order and with the exit codes of
process.md 3 and 10.3. The grammar of flags is in `flagset`, their table in `flags`.
"""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

from csi_provisioner import durations, flags
from csi_provisioner.fatal import Fatal
from csi_provisioner.flagset import Flag, Values
from csi_provisioner.gates import gates_of
from csi_provisioner.logs import log
from csi_provisioner.settings import (
    HEALTH_PATH,
    PROFILES_PATH,
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

# sockaddr_un of Linux holds 108 bytes, the last one is the terminator.
_LONGEST_SOCKET_PATH = 107
# An object's name as Kubernetes wants it; so long is one of a PersistentVolume at most.
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LONGEST_NAME = 253
_UUID_LENGTHS = (-1, *range(1, 33))
_LOG_BUFFERS = (flags.LOG_TEXT_INFO_BUFFER_SIZE, flags.LOG_JSON_INFO_BUFFER_SIZE)
_LOG_STREAMS = (flags.LOG_TEXT_SPLIT_STREAM, flags.LOG_JSON_SPLIT_STREAM)


def log_settings(values: Values) -> LogSettings:
    """The log's settings; it is configured before the rest is looked at, so that errors come out in its format."""
    form = values[flags.LOGGING_FORMAT]
    if form not in ("text", "json"):
        raise Fatal(f"--logging-format={form}: it must be text or json", 1)
    if form == "json" and values[flags.VMODULE]:
        raise Fatal("--vmodule works with --logging-format=text only", 1)
    if values[flags.LOG_FLUSH_FREQUENCY] <= 0:
        raise _refuse_value(1, values, flags.LOG_FLUSH_FREQUENCY, "it must be more than 0")
    for stream in _LOG_STREAMS:
        if values[stream]:
            raise Fatal(f"--{stream.name}=true is not supported, the log goes to stderr unsplit", 1)
    for buffer in _LOG_BUFFERS:
        if not re.match(r"[+-]?[0.]+(?![0-9.])", values[buffer]):
            raise Fatal(f"--{buffer.name}={values[buffer]} is not supported, it must be 0", 1)
    return LogSettings(json=form == "json", verbosity=values[flags.V], modules=values[flags.VMODULE])


def read(
    values: Values,
    environ: Mapping[str, str],
    logging: LogSettings,
    *,
    pod_namespace_file: Path = POD_NAMESPACE_FILE,
) -> Settings | None:
    """The settings, checked; None if only the version is asked for, which some checks come before (process.md 1.5)."""
    for warning in values.warnings:
        log.warning(warning)
    gates = _gates(values)
    nodes = _nodes(values, environ)
    if values[flags.VERSION]:
        return None
    http = _http(values)
    _refuse_old_modes(values)
    if nodes.enabled and values[flags.LEADER_ELECTION]:
        log.warning(
            "--node-deployment with --leader-election: only the leader's node is served; "
            "leave the election out, every node's provisioner has to be active"
        )
    if not values[flags.WORKER_THREADS]:
        log.warning("--worker-threads=0: no volume will be created or deleted")
    if values[flags.AUTOMAXPROCS]:
        log.info("--automaxprocs has no effect: the program runs in one thread")
    return Settings(
        cluster=_cluster(values, environ),
        csi=_csi(values, environ),
        provisioning=_provisioning(values, gates),
        retries=RetrySettings(
            start=values[flags.RETRY_INTERVAL_START],
            maximum=values[flags.RETRY_INTERVAL_MAX],
            workers=values[flags.WORKER_THREADS],
            cloning_protection_workers=values[flags.CLONING_PROTECTION_THREADS],
            snapshot_sweep_interval=values[flags.SNAPSHOT_ORPHAN_SWEEP_INTERVAL],
        ),
        capacity=_capacity(values, environ),
        nodes=nodes,
        election=_election(values, environ, pod_namespace_file),
        http=http,
        logging=logging,
        gates=gates,
        shutdown_grace=_not_negative(values, flags.SHUTDOWN_GRACE_PERIOD),
    )


def _gates(values: Values) -> Gates:
    gates, notes, warnings = gates_of(values[flags.FEATURE_GATES])
    for note in notes:
        log.info(note)
    for warning in warnings:
        log.warning(warning)
    return gates


def _nodes(values: Values, environ: Mapping[str, str]) -> NodeSettings:
    enabled, name = values[flags.NODE_DEPLOYMENT], environ.get("NODE_NAME") or None
    if enabled and name is None:
        raise Fatal("--node-deployment needs the name of the node in the environment variable NODE_NAME", 255)
    return NodeSettings(
        enabled=enabled,
        immediate_binding=values[flags.NODE_DEPLOYMENT_IMMEDIATE_BINDING],
        base_delay=values[flags.NODE_DEPLOYMENT_BASE_DELAY],
        max_delay=values[flags.NODE_DEPLOYMENT_MAX_DELAY],
        node_name=name,
    )


def _http(values: Values) -> HttpSettings:
    endpoint, legacy, path = values[flags.HTTP_ENDPOINT], values[flags.METRICS_ADDRESS], values[flags.METRICS_PATH]
    if endpoint and legacy:
        raise Fatal(
            f"only one of --http-endpoint={endpoint} and --metrics-address={legacy} can be set, use --http-endpoint", 1
        )
    if legacy:
        log.warning("--metrics-address is deprecated, use --http-endpoint")
    # Braces are placeholders to the router; nobody has them in a path of metrics.
    if not path.startswith("/") or "{" in path or "}" in path:
        raise Fatal(f"--metrics-path={path}: it must be a path that starts with /", 2)
    pprof = values[flags.ENABLE_PPROF]
    is_health = path == HEALTH_PATH and endpoint and values[flags.LEADER_ELECTION]
    if is_health or (path.startswith(PROFILES_PATH) and (endpoint or legacy) and pprof):
        raise Fatal(f"--metrics-path={path}: something else is served at this path", 2)
    return HttpSettings(endpoint=endpoint or legacy, path=path, pprof=pprof, legacy=bool(legacy))


def _refuse_old_modes(values: Values) -> None:
    kind, mode = values[flags.LEADER_ELECTION_TYPE], values[flags.CAPACITY_MODE]
    if kind != "leases":
        # Two kinds of lock do not exclude each other.
        raise Fatal(f"--leader-election-type={kind} is not supported any more: only leases are", 2)
    if mode and mode != "central":
        raise Fatal(f"--capacity-controller-deployment-mode={mode} is not supported any more: use --enable-capacity", 2)


def _csi(values: Values, environ: Mapping[str, str]) -> CsiSettings:
    given, source = values[flags.CSI_ADDRESS], "--csi-address"
    if flags.CSI_ADDRESS not in values and environ.get("CSI_ENDPOINT"):
        given, source = environ["CSI_ENDPOINT"], "CSI_ENDPOINT"
    path = given.removeprefix("unix://") if given.startswith("unix://") else given.removeprefix("unix:")
    if not path.startswith("/"):
        raise Fatal(f"{source}={given} is no address of a socket: give an absolute path, unix:///path or unix:/path", 1)
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise Fatal(f"{source}={given}: the path of a socket has at most {_LONGEST_SOCKET_PATH} bytes", 1)
    timeout = values[flags.TIMEOUT]
    if timeout <= 0:
        raise _refuse_value(2, values, flags.TIMEOUT, "it must be more than 0, or no CSI call could ever succeed")
    return CsiSettings(address=path, timeout=timeout, expected_driver=values[flags.PROVISIONER] or None)


def _cluster(values: Values, environ: Mapping[str, str]) -> ClusterSettings:
    _check_rate(values, flags.KUBE_API_QPS, flags.KUBE_API_BURST)
    if _capacity_enabled(values):
        _check_rate(values, flags.KUBE_API_CAPACITY_QPS, flags.KUBE_API_CAPACITY_BURST)
    return ClusterSettings(
        kubeconfig=values[flags.KUBECONFIG] or environ.get("KUBE_CONFIG_PATH") or None,
        master=values[flags.MASTER] or None,
        service_host=environ.get("KUBERNETES_SERVICE_HOST") or None,
        service_port=environ.get("KUBERNETES_SERVICE_PORT") or None,
        fallback_kubeconfig=environ.get("KUBECONFIG") or None,
        qps=_rate(values[flags.KUBE_API_QPS]),
        burst=values[flags.KUBE_API_BURST],
        capacity_qps=_rate(values[flags.KUBE_API_CAPACITY_QPS]),
        capacity_burst=values[flags.KUBE_API_CAPACITY_BURST],
    )


def _check_rate(values: Values, qps: Flag[float], burst: Flag[int]) -> None:
    if values[qps] > 0 and values[burst] <= 0:
        raise Fatal(f"--{burst.name}={values[burst]} must be more than 0 when --{qps.name} is", 255)


def _rate(qps: float) -> float | None:
    """Requests per second; None: no limit."""
    return qps if 0 < qps < math.inf else None


def _provisioning(values: Values, gates: Gates) -> ProvisioningSettings:
    prefix, length = values[flags.VOLUME_NAME_PREFIX], values[flags.VOLUME_NAME_UUID_LENGTH]
    if length not in _UUID_LENGTHS:
        raise Fatal(f"--volume-name-uuid-length={length}: it must be -1, for the whole UUID, or 1 to 32", 2)
    name = f"{prefix}-{'0' * (36 if length == -1 else length)}"
    if len(name) > _LONGEST_NAME or not _SUBDOMAIN.fullmatch(name):
        what = f"must be at most {_LONGEST_NAME} lower case letters, digits, '-' and '.', and begin with no sign"
        raise Fatal(f"--volume-name-prefix={prefix}: the name of a volume, prefix-UUID, {what}", 2)
    return ProvisioningSettings(
        volume_name_prefix=prefix,
        volume_name_uuid_length=length,
        default_fstype=values[flags.DEFAULT_FSTYPE],
        strict_topology=values[flags.STRICT_TOPOLOGY],
        immediate_topology=values[flags.IMMEDIATE_TOPOLOGY],
        extra_create_metadata=values[flags.EXTRA_CREATE_METADATA],
        controller_publish_readonly=values[flags.CONTROLLER_PUBLISH_READONLY],
        prevent_volume_mode_conversion=values[flags.PREVENT_VOLUME_MODE_CONVERSION],
        cross_namespace=gates.cross_namespace,
        volume_attributes_class=gates.volume_attributes_class,
    )


def _capacity_enabled(values: Values) -> bool:
    return values[flags.ENABLE_CAPACITY] or values[flags.CAPACITY_MODE] == "central"


def _capacity(values: Values, environ: Mapping[str, str]) -> CapacitySettings:
    return CapacitySettings(
        enabled=_capacity_enabled(values),
        threads=values[flags.CAPACITY_THREADS],
        poll_interval=values[flags.CAPACITY_POLL_INTERVAL],
        immediate_binding=values[flags.CAPACITY_FOR_IMMEDIATE_BINDING],
        ownerref_level=values[flags.CAPACITY_OWNERREF_LEVEL],
        namespace=environ.get("NAMESPACE") or None,
        pod_name=environ.get("POD_NAME") or None,
    )


def _election(values: Values, environ: Mapping[str, str], pod_namespace_file: Path) -> ElectionSettings:
    if not values[flags.LEADER_ELECTION]:
        return ElectionSettings()
    lease, renew = flags.LEADER_ELECTION_LEASE_DURATION, flags.LEADER_ELECTION_RENEW_DEADLINE
    retry = flags.LEADER_ELECTION_RETRY_PERIOD
    if values[retry] <= 0:
        raise _refuse_value(2, values, retry, "it must be more than 0")
    if values[renew] <= 1.2 * values[retry]:
        least = durations.show(1.2 * values[retry])
        raise _refuse_value(2, values, renew, f"it must be more than 1.2 times --{retry.name}, here {least}")
    if values[lease] <= values[renew]:
        more = durations.show(values[renew])
        raise _refuse_value(2, values, lease, f"it must be more than --{renew.name}, here {more}")
    labels = values[flags.LEADER_ELECTION_LABELS]  # repeats add up, a later key replaces an earlier one
    namespace = values[flags.LEADER_ELECTION_NAMESPACE] or environ.get("POD_NAMESPACE")
    return ElectionSettings(
        enabled=True,
        namespace=namespace or _pod_namespace(pod_namespace_file) or "default",
        lease_duration=values[lease],
        renew_deadline=values[renew],
        retry_period=values[retry],
        labels=tuple(dict(labels).items()),
    )


def _pod_namespace(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:  # not in a pod, or its token is not mounted
        return ""


def _not_negative(values: Values, flag: Flag[float]) -> float:
    if values[flag] < 0:
        raise _refuse_value(2, values, flag, "it must not be negative")
    return values[flag]


def _refuse_value(exit_code: int, values: Values, flag: Flag[float], reason: str) -> Fatal:
    return Fatal(f"--{flag.name}={durations.show(values[flag])}: {reason}", exit_code)
