"""Feature gates: which names there are, what they do to the settings, which are refused (process.md 1.4 and 13)."""

from .fatal import Fatal
from .flagset import Pairs, nearest
from .logs import log
from .settings import Gates

# On and generally available, or off and alpha. None is in beta now, so AllBeta has nothing to flip. The lease is given
# back on exit in any case (design.md 4), so that ReleaseLeaderElectionOnExit changes nothing.
_AVAILABLE = ("Topology", "VolumeAttributesClass")
_ALPHA = ("CrossNamespaceVolumeDataSource", "ReleaseLeaderElectionOnExit", "VolumeSnapshotTopology")
_KNOWN = (*_AVAILABLE, *_ALPHA, "AllAlpha", "AllBeta")
_RECLAIM_POLICY = "HonorPVReclaimPolicy"


def gates_of(pairs: Pairs[bool]) -> Gates:
    """Of two switches of one name the later one counts. Raises Fatal for an unknown name: most likely mistyped."""
    named = dict(pairs)
    if _RECLAIM_POLICY in named:
        remark = "it is always on" if named.pop(_RECLAIM_POLICY) else "it cannot be switched off any more"
        log.warning(f"feature gate {_RECLAIM_POLICY} is one of an older version: {remark}")
    for name in named:
        if name not in _KNOWN:
            raise Fatal(f"unrecognized feature gate: {name}{nearest(name, _KNOWN)}", 255)
        if name in _AVAILABLE:
            log.info(f"feature gate {name} is generally available and will be removed in a later version")
    on = dict.fromkeys(_AVAILABLE, True) | dict.fromkeys(_ALPHA, named.get("AllAlpha", False)) | named
    return Gates(
        topology=on["Topology"],
        cross_namespace=on["CrossNamespaceVolumeDataSource"],
        snapshot_topology=on["VolumeSnapshotTopology"],
        volume_attributes_class=on["VolumeAttributesClass"],
        volume_attributes_class_explicit="VolumeAttributesClass" in named,
    )
