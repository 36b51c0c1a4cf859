"""Feature gates: which names there are, what they do to the settings, which are refused (process.md 1.4 and 13)."""

from dataclasses import dataclass

from .fatal import Fatal
from .flagset import Pairs, nearest
from .settings import Gates


@dataclass(frozen=True, slots=True)
class _Gate:
    default: bool
    alpha: bool


_GATES = {
    "Topology": _Gate(default=True, alpha=False),
    "VolumeAttributesClass": _Gate(default=True, alpha=False),
    "CrossNamespaceVolumeDataSource": _Gate(default=False, alpha=True),
    "ReleaseLeaderElectionOnExit": _Gate(default=False, alpha=True),
}
# No gate is in beta now, so AllBeta has nothing to flip; it stays a name that may be given.
_GROUPS = ("AllAlpha", "AllBeta")
_RECLAIM_POLICY = "HonorPVReclaimPolicy"


def gates_of(pairs: Pairs[bool]) -> tuple[Gates, list[str], list[str]]:
    """The gates as switched by name, later names first; then what to tell as information, and what as warnings.

    Raises Fatal for a name that is no gate: it is most likely a typing error.
    """
    named = dict(pairs)
    notes, warnings = [], []
    if _RECLAIM_POLICY in named:
        switched_off = not named.pop(_RECLAIM_POLICY)
        remark = "it cannot be switched off any more" if switched_off else "it is always on"
        warnings.append(f"feature gate {_RECLAIM_POLICY} is one of an older version: {remark}")
    for name in named:
        if name not in _GATES and name not in _GROUPS:
            raise Fatal(f"unrecognized feature gate: {name}{nearest(name, (*_GATES, *_GROUPS))}", 255)
        if name in _GATES and not _GATES[name].alpha:
            notes.append(f"feature gate {name} is generally available and will be removed in a later version")
    every_alpha = named.get("AllAlpha", False)

    def on(name: str) -> bool:
        gate = _GATES[name]
        return named.get(name, gate.default or (gate.alpha and every_alpha))

    gates = Gates(
        topology=on("Topology"),
        cross_namespace=on("CrossNamespaceVolumeDataSource"),
        volume_attributes_class=on("VolumeAttributesClass"),
        volume_attributes_class_explicit="VolumeAttributesClass" in named,
        release_on_exit=on("ReleaseLeaderElectionOnExit"),
    )
    return gates, notes, warnings
