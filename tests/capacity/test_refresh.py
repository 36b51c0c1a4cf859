"""Capacity.md 10: what a volume made or deleted refreshes."""

import pytest

from csi_provisioner.capacity.objects import Pair
from csi_provisioner.capacity.segments import Segment
from csi_provisioner.model import csi
from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import affinity

from .objects import Z1, Z2, desired, storage_class

CLASSES = (storage_class(), storage_class("slow"))
OF_Z1 = {Pair(Z1, "fast"), Pair(Z1, "slow")}
OF_FAST = {Pair(Z1, "fast"), Pair(Z2, "fast")}


def volume(*segments: Segment) -> k8s.PersistentVolume:
    where = affinity.of_answer([csi.Topology(segments=dict(segment)) for segment in segments])
    return k8s.PersistentVolume(metadata=k8s.ObjectMeta(name="pv"), spec=k8s.VolumeSpec(nodeAffinity=where))


PROVISIONED = [
    ("by-topology", volume(Z1), OF_Z1),
    ("several-terms", volume(Z2, Z1), OF_Z1 | {Pair(Z2, "fast"), Pair(Z2, "slow")}),
    ("more-keys-do-not-match", volume((*Z1, ("x", "y"))), set()),
    ("without-affinity", volume(), OF_FAST),
]


@pytest.mark.parametrize(
    ("made", "expected"), [row[1:] for row in PROVISIONED], ids=[f"capacity-10-{row[0]}" for row in PROVISIONED]
)
def test_after_provisioning(made: k8s.PersistentVolume, expected: set[Pair]) -> None:
    assert set(desired(Z1, Z2, classes=CLASSES).tried("fast", made)) == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.FINISHED, OF_FAST),
        (State.IN_BACKGROUND, OF_FAST),
        (State.RESCHEDULE, OF_FAST),
        (State.NO_CHANGE, set()),
    ],
    ids=lambda value: f"capacity-10-{value.name}" if isinstance(value, State) else "",
)
def test_after_failure(state: State, expected: set[Pair]) -> None:
    assert set(desired(Z1, Z2, classes=CLASSES).tried("fast", state)) == expected


def test_a_deletion_refreshes_the_pairs_of_its_segments() -> None:
    """capacity.md 10."""
    made = desired(Z1, Z2, classes=CLASSES)
    assert set(made.deleted(volume(Z1))) == OF_Z1
    assert made.deleted(volume()) == []


def test_an_unknown_class_refreshes_nothing() -> None:
    """capacity.md 10."""
    assert desired(Z1).tried("gone", volume()) == []
