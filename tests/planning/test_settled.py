"""For which claims and volumes nothing is to be done, and what their records tell (`planning/settled`)."""

from typing import Any

import pytest

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.planning import deletion, leftover, settled
from csi_provisioner.planning.wellknown import CLONE_FINALIZER, PROVISIONED_BY, VOLUME_FINALIZER
from tests.planning import objects
from tests.planning.objects import DRIVER, but, driver

BOUND = but(objects.claim(volumeName="pv-1"), "status.phase", "Bound")
GONE = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("changes", "is_settled"),
    [
        ({}, True),
        ({"status.phase": "Lost"}, True),
        ({"metadata.finalizers": [CLONE_FINALIZER]}, True),
        ({"metadata.deletionTimestamp": GONE}, True),
        ({"spec.volumeName": None}, False),
        ({"spec.volumeName": ""}, False),
        ({"status.phase": "Pending"}, False),
        ({"status.phase": ""}, False),
        ({"status.phase": None}, False),
        ({"metadata.deletionTimestamp": GONE, "metadata.finalizers": [CLONE_FINALIZER]}, False),
    ],
)
def test_a_bound_claim_that_nobody_waits_for_us_to_let_go_has_settled(
    changes: dict[str, Any], is_settled: bool
) -> None:
    claim = BOUND
    for path, value in changes.items():
        claim = but(claim, path, value)
    assert settled.claim_note(claim) == (b"" if is_settled else None)


def volume(phase: str, policy: str = "Delete", *, finalizer: bool = True, gone: bool = False) -> k8s.PersistentVolume:
    made = objects.volume({PROVISIONED_BY: DRIVER}, phase, persistentVolumeReclaimPolicy=policy)
    made = but(made, "metadata.finalizers", [VOLUME_FINALIZER] if finalizer else [])
    return but(made, "metadata.deletionTimestamp", GONE if gone else None)


@pytest.mark.parametrize("phase", ["Pending", "Available", "Bound", "Released", "Failed"])
@pytest.mark.parametrize("policy", ["Delete", "Retain", "Recycle"])
@pytest.mark.parametrize("finalizer", [True, False])
@pytest.mark.parametrize("gone", [True, False])
def test_a_volume_has_settled_where_neither_finalizer_nor_deletion_is_for_us(
    phase: str, policy: str, finalizer: bool, gone: bool
) -> None:
    found = volume(phase, policy, finalizer=finalizer, gone=gone)
    to_do = deletion.finalizer_change(found) is not None or deletion.should_delete(found)
    assert (settled.volume_note(found, ours=True) is None) == (to_do or leftover.was_being_deleted(found))


def test_one_whose_id_cannot_be_told_stays_whole() -> None:
    found = volume("Bound")
    found.spec.csi, found.spec.gcePersistentDisk = None, k8s.GCEPersistentDisk(pdName="pd")
    found.metadata.labels = {"topology.kubernetes.io/zone": "a__b"}
    assert deletion.handle(found) is None
    assert settled.volume_note(found, ours=True) is None


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_a_record_tells_what_it_takes_to_tell_of_a_volume_that_goes(ours: bool, policy: str) -> None:
    found = volume("Bound", policy, finalizer=policy == "Delete")
    assert found.spec.csi is not None
    found.spec.csi.volumeHandle = "ä#1/\0"
    note = settled.volume_note(found, ours=ours)
    assert note is not None
    assert settled.class_of(note) == "fast"
    sketch = settled.volume(k8s.ObjectMeta("pv", uid="u"), note, DRIVER)
    assert deletion.handle(sketch) == "ä#1/\0"
    assert leftover.is_told(sketch, driver(), {"zone": "a"}) == ours
    told = leftover.of_volume(sketch, driver(), when=5)
    assert (told.name, told.volume_id, told.spec) == ("pv", "ä#1/\0", None)
    assert ("Retain" in told.reason) == (policy == "Retain")
    assert deletion.finalizer_change(sketch) is None
    assert not deletion.should_delete(sketch)


def test_of_an_in_tree_volume_the_id_is_that_for_its_driver() -> None:
    found = volume("Bound")
    found.spec.csi, found.spec.awsElasticBlockStore = None, k8s.AWSElasticBlockStore("vol-1")
    note = settled.volume_note(found, ours=False)
    assert note is not None
    assert deletion.handle(settled.volume(k8s.ObjectMeta("pv"), note, DRIVER)) == "vol-1"
