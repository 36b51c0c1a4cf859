"""Labels that decide who manages a CSIStorageCapacity (capacity.md 4). Nothing else does; owners play no part."""

from collections.abc import Mapping

from csi_provisioner.planning.fnv import fnv1a

DRIVER_LABEL = "csi.storage.k8s.io/drivername"
MANAGER_LABEL = "csi.storage.k8s.io/managed-by"

_MANAGER = "external-provisioner"
_LONGEST = 63  # of a label value


def managed_by(node: str | None) -> str:
    """The manager's name: the same for all in a central deployment, with its node's name in a per-node one.

    Long node names are shortened as ever, so that objects made before an update stay managed after it.
    """
    if node is None:
        return _MANAGER
    whole = f"{_MANAGER}-{node}"
    if len(whole) <= _LONGEST:
        return whole
    tail = f"-{fnv1a(_MANAGER):08x}-{node}"
    if len(tail) < _LONGEST:
        return _MANAGER[: _LONGEST - len(tail)] + tail
    return f"{_MANAGER}-{fnv1a(whole):08x}"


def labels(driver: str, manager: str) -> dict[str, str]:
    return {DRIVER_LABEL: driver, MANAGER_LABEL: manager}


def selector(driver: str, manager: str) -> str:
    """For the watch: objects of others do not even reach us."""
    return ",".join(f"{key}={value}" for key, value in labels(driver, manager).items())


def is_managed(found: Mapping[str, str] | None, driver: str, manager: str) -> bool:
    return labels(driver, manager).items() <= (found or {}).items()
