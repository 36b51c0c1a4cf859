"""What of a class's parameters is for the cluster and what is for the driver (provision.md 8.5 and 8.9)."""

from collections.abc import Mapping

from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import wellknown
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.templates import DEPRECATED_KEYS, RESERVED_KEYS

_RESERVED = RESERVED_KEYS | {wellknown.FSTYPE_PARAMETER}


def fstype(class_name: str, parameters: Mapping[str, str]) -> str | Refusal:
    """The file system the class asks for, "" if none: the flag's default is the caller's, there is no built-in one."""
    found = [key for key in parameters if _is_fstype(key)]
    # Which of them wins would depend on the order of a map.
    if len(found) > 1:
        keys = " and ".join(sorted(found))
        return Refusal(
            State.FINISHED, f"StorageClass {class_name!r} gives the fs type more than once, as {keys}; keep one of them"
        )
    return parameters[found[0]] if found else ""


def for_driver(class_name: str, parameters: Mapping[str, str]) -> dict[str, str] | Refusal:
    """A copy without the reserved keys; deprecated keys stay in, as drivers may read them."""
    unknown = sorted(key for key in parameters if key.startswith(wellknown.PARAMETER_PREFIX) and key not in _RESERVED)
    # Nobody reads such a key, so that a typing error would be without effect and without a word.
    if unknown:
        return Refusal(
            State.FINISHED,
            f"StorageClass {class_name!r} has parameters that nobody knows under the reserved prefix "
            f"{wellknown.PARAMETER_PREFIX}: {', '.join(unknown)}; correct or remove them",
        )
    return {key: value for key, value in parameters.items() if key not in _RESERVED}


def metadata(claim: PersistentVolumeClaim, volume_name: str) -> dict[str, str]:
    """What `--extra-create-metadata` adds."""
    return {
        wellknown.CLAIM_NAME_PARAMETER: claim.metadata.name,
        wellknown.CLAIM_NAMESPACE_PARAMETER: claim.metadata.namespace or "",
        wellknown.VOLUME_NAME_PARAMETER: volume_name,
    }


def warnings(class_name: str, parameters: Mapping[str, str]) -> tuple[str, ...]:
    """One line for each deprecated key."""
    return tuple(
        f"StorageClass {class_name!r} uses the deprecated parameter {key!r}; use its form under "
        f"{wellknown.PARAMETER_PREFIX}"
        for key in parameters
        if key in DEPRECATED_KEYS or (_is_fstype(key) and key != wellknown.FSTYPE_PARAMETER)
    )


def _is_fstype(key: str) -> bool:
    return key == wellknown.FSTYPE_PARAMETER or key.lower() == "fstype"
