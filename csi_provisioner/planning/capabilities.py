"""What the driver must be able to do, and the volume capabilities to ask it for (provision.md 8.3 and 8.6)."""

from csi_provisioner.model import csi, kubernetes
from csi_provisioner.model.csi import VolumeCapabilityAccessModeMode as Mode
from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from csi_provisioner.model.outcome import State
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.wellknown import CLAIM_KIND, SNAPSHOT_KIND

BLOCK = "Block"
# Access modes of a claim, repeats among them: nobody needs more than four, and writing 90,000, which the API server
# takes, into a request keeps everything else waiting for half a second
MOST_MODES = 1000
_SINGLE_NODE_MULTI_WRITER = "SINGLE_NODE_MULTI_WRITER"

_MODES = {
    "ReadWriteOnce": Mode.SINGLE_NODE_WRITER,
    "ReadWriteOncePod": Mode.SINGLE_NODE_WRITER,
    "ReadOnlyMany": Mode.MULTI_NODE_READER_ONLY,
    "ReadWriteMany": Mode.MULTI_NODE_MULTI_WRITER,
}
# SINGLE_NODE_WRITER does not say whether several pods of the node may write. A driver that knows the finer modes gets
# no other.
_FINER_MODES = _MODES | {
    "ReadWriteOnce": Mode.SINGLE_NODE_MULTI_WRITER,
    "ReadWriteOncePod": Mode.SINGLE_NODE_SINGLE_WRITER,
}


def check_driver(driver: DriverFacts, source_kind: str = "", *, attributes_class: bool = False) -> None:
    """The capabilities of 8.3 in their order; deletion needs the first two (delete.md 7 step 5)."""
    needs = (
        (True, "create or delete volumes", "plugin", "CONTROLLER_SERVICE"),
        (True, "create or delete volumes", "controller", "CREATE_DELETE_VOLUME"),
        (source_kind == SNAPSHOT_KIND, "restore snapshots", "controller", "CREATE_DELETE_SNAPSHOT"),
        (source_kind == CLAIM_KIND, "clone volumes", "controller", "CLONE_VOLUME"),
        (attributes_class, "apply a VolumeAttributesClass", "controller", "MODIFY_VOLUME"),
    )
    for needed, deed, whose, capability in needs:
        if needed and capability not in (driver.plugin if whose == "plugin" else driver.controller):
            lacking = f"it does not report the {whose} capability {capability}"
            raise Refusal(State.FINISHED, f"driver {driver.name} cannot {deed}: {lacking}")


def of_claim(
    claim: PersistentVolumeClaim, driver: DriverFacts, fstype: str, mount_options: list[str] | None
) -> tuple[csi.VolumeCapability, ...]:
    """One capability for each access mode of the claim, in its order, repeats kept."""
    modes = _FINER_MODES if _SINGLE_NODE_MULTI_WRITER in driver.controller else _MODES
    # Each mode is turned into a capability by itself: a claim may ask for ReadOnlyMany and ReadWriteOnce at once.
    wanted = claim.spec.accessModes or []
    for name in wanted:
        if name not in modes:
            known = ", ".join(modes)
            raise Refusal(State.FINISHED, f"claim {kubernetes.key(claim)} has access mode {name!r}, none of {known}")
    if len(wanted) > MOST_MODES:
        text = (
            f"claim {kubernetes.key(claim)} has {len(wanted)} access modes, more than {MOST_MODES} cannot be asked for"
        )
        raise Refusal(State.FINISHED, text)
    block = claim.spec.volumeMode == BLOCK
    made = {name: _capability(modes[name], block, fstype, mount_options) for name in set(wanted)}
    return tuple(made[name] for name in wanted)


def _capability(mode: Mode, block: bool, fstype: str, mount_options: list[str] | None) -> csi.VolumeCapability:
    access = csi.VolumeCapabilityAccessMode(mode=mode)
    # A raw device has no file system, so that neither its type nor mount options mean anything to the driver.
    if block:
        return csi.VolumeCapability(block=csi.VolumeCapabilityBlockVolume(), access_mode=access)
    mount = csi.VolumeCapabilityMountVolume(fs_type=fstype, mount_flags=list(mount_options or ()))
    return csi.VolumeCapability(mount=mount, access_mode=access)
