"""Every flag of the program in its group of the help text: those of the settings, and those that set none.

How a value is read is in `flagset`, what is checked beyond its kind in `configuration`.
"""

import re
from typing import TypeVar

import msgspec

from . import settings
from .flagset import BOOLEAN, DURATION, QUANTITY, SWITCHES, TEXT, Flag, FlagSet, Kind, Pairs, flags_of

T = TypeVar("T")

HELP = Flag("help", BOOLEAN, False, "Show this text; also -h.")
VERSION = Flag("version", BOOLEAN, False, "Print the version and exit.")
FEATURE_GATES: Flag[Pairs[bool]] = Flag(
    "feature-gates",
    SWITCHES,
    (),
    "Features to switch: Topology (on), VolumeAttributesClass (on), CrossNamespaceVolumeDataSource (off), "
    "VolumeSnapshotTopology (off), ReleaseLeaderElectionOnExit (always so), AllAlpha, AllBeta.",
)
AUTOMAXPROCS = Flag("automaxprocs", BOOLEAN, False, "Accepted for compatibility, without effect.")
METRICS_ADDRESS = Flag("metrics-address", TEXT, "", "Deprecated: --http-endpoint without the election's health.")
LOGGING_FORMAT = Flag("logging-format", TEXT, "text", "text or json.")
LOG_FLUSH_FREQUENCY = Flag("log-flush-frequency", DURATION, 5.0, "Accepted for compatibility, without effect.")
# The reference knows these but refuses every other value, because of a gate that nobody can set (process.md 1.3).
LOG_SPLIT_STREAMS = [Flag(f"log-{form}-split-stream", BOOLEAN, False, "Only false.") for form in ("text", "json")]
LOG_BUFFER_SIZES = [Flag(f"log-{form}-info-buffer-size", QUANTITY, "0", "Only 0.") for form in ("text", "json")]

FLAGS = FlagSet()
FLAGS.add("General", HELP, VERSION, FEATURE_GATES, AUTOMAXPROCS, settings.Settings)
FLAGS.add("CSI driver", settings.CsiSettings)
FLAGS.add("API server", settings.ClusterSettings)
FLAGS.add("Provisioning", settings.ProvisioningSettings)
FLAGS.add("Retries and workers", settings.RetrySettings)
FLAGS.add("Leader election", settings.ElectionSettings)
FLAGS.add("HTTP", settings.HttpSettings, METRICS_ADDRESS)
FLAGS.add("Storage capacity", settings.CapacitySettings)
FLAGS.add("One provisioner per node", settings.NodeSettings)
FLAGS.add("Logging", settings.LogSettings, LOGGING_FORMAT, LOG_FLUSH_FREQUENCY)
FLAGS.add("Logging", *LOG_SPLIT_STREAMS, *LOG_BUFFER_SIZES)


def _old(name: str, kind: Kind[T], default: T, instead: str = "it is ignored", target: str = "") -> Flag[T]:
    """A flag of an older line: taken, with a warning that says what becomes of it (process.md 13)."""
    warning = f"--{name} is a flag of an older version: {instead}"
    old = Flag(name, kind, default, "", warning=warning, target=target)
    FLAGS.add("", old)
    return old


# Manifests of older lines contain these; refusing them would make an update fail.
_old("connection-timeout", TEXT, "")
_old("enable-leader-election", BOOLEAN, False, "use --leader-election", target="leader-election")
LEADER_ELECTION_TYPE = _old("leader-election-type", TEXT, "leases", "only leases are supported")
CAPACITY_MODE = _old("capacity-controller-deployment-mode", TEXT, "", "use --enable-capacity")
# klog's flags; the second group takes a value, which has to be skipped with its flag.
for _name in ("logtostderr", "alsologtostderr", "skip_headers", "skip_log_headers", "one_output", "add_dir_header"):
    _old(_name, BOOLEAN, False, "it is ignored, the log goes to stderr")
for _name in ("stderrthreshold", "log_dir", "log_file", "log_file_max_size", "log_backtrace_at"):
    _old(_name, TEXT, "", "it is ignored, the log goes to stderr")


def in_force(found: settings.Settings) -> dict[str, str]:
    """Flags that say what is in force, also where the environment said it. URLs are without user and password."""
    gates, election, http = found.gates, found.election, found.http
    values = [getattr(found, name) for name in found.__struct_fields__]
    groups = [found, *(group for group in values if isinstance(group, msgspec.Struct))]
    shown = {
        flag.name: flag.kind.show(getattr(group, name)) for group in groups for name, flag in flags_of(group).items()
    }
    switches = {
        "Topology": gates.topology,
        "CrossNamespaceVolumeDataSource": gates.cross_namespace,
        "VolumeSnapshotTopology": gates.snapshot_topology,
    }
    if gates.volume_attributes_class_explicit:
        switches["VolumeAttributesClass"] = gates.volume_attributes_class
    shown |= {
        FEATURE_GATES.name: ",".join(f"{name}={BOOLEAN.show(on)}" for name, on in switches.items()),
        LOGGING_FORMAT.name: "json" if found.logging.json else "text",
        "leader-election-namespace": election.namespace if election.enabled else election.own_namespace,
        "http-endpoint": "" if http.legacy else http.endpoint,
        METRICS_ADDRESS.name: http.endpoint if http.legacy else "",
    }
    return {name: re.sub("://[^/?#]*@", "://", text) for name, text in sorted(shown.items())}
