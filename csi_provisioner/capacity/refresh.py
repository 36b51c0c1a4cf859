"""Which pairs a volume that was made or deleted has changed (capacity.md 10); everything else is left to polling."""

from csi_provisioner.capacity.desired import Desired
from csi_provisioner.capacity.objects import Pair
from csi_provisioner.model.kubernetes import PersistentVolume
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import affinity


def after_provisioning(desired: Desired, volume: PersistentVolume, class_name: str) -> list[Pair]:
    """The volume as it was written: one without affinity may lie in any segment."""
    if volume.spec.nodeAffinity is None:
        return desired.of_class(class_name)
    return desired.of_segments(affinity.segments(volume.spec.nodeAffinity))


def after_failure(desired: Desired, state: State, class_name: str) -> list[Pair]:
    """Also for a claim that was ignored. A try that changed nothing in the driver says nothing of its space."""
    return [] if state is State.NO_CHANGE else desired.of_class(class_name)


def after_deletion(desired: Desired, volume: PersistentVolume) -> list[Pair]:
    if volume.spec.nodeAffinity is None:
        return []
    return desired.of_segments(affinity.segments(volume.spec.nodeAffinity))
