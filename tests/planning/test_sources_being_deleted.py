"""provision.md 8.7 check 2, 8.8 check 3, 12.2, 12.3: whom a source still serves while it is deleted, and waits for."""

from typing import Any

import pytest

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.planning import sources
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.sources import Readers
from csi_provisioner.planning.wellknown import CLONE_FINALIZER, SNAPSHOT_FINALIZER
from tests.planning.objects import CLONE, SNAPSHOT, UID, but, claim, draft

EARLY, THEN, LATE = (f"2024-01-01T00:00:0{second}Z" for second in range(3))


def _source(kind: str, version: str = "10", finalizer: str | None = None) -> Any:
    ours = CLONE_FINALIZER if kind == "clone" else SNAPSHOT_FINALIZER
    metadata = k8s.ObjectMeta(
        name="src",
        namespace="shop",
        uid="src-uid",
        resourceVersion=version,
        deletionTimestamp=THEN,
        finalizers=[finalizer or ours],
    )
    if kind == "clone":
        return but(but(claim("src", volumeName="pv-1"), "metadata", metadata), "status.phase", "Bound")
    return k8s.VolumeSnapshot(
        metadata=metadata, status=k8s.SnapshotStatus(boundVolumeSnapshotContentName="content", readyToUse=True)
    )


def _reader(kind: str, made: str, version: str) -> k8s.PersistentVolumeClaim:
    it = claim(dataSource=CLONE if kind == "clone" else SNAPSHOT)
    it.metadata.creationTimestamp, it.metadata.resourceVersion = made, version
    return it


SERVED = [
    pytest.param(EARLY, "99", False, True, id="made before"),
    pytest.param(LATE, "1", False, False, id="made after"),
    pytest.param(THEN, "9", False, True, id="made before, in the same second"),
    pytest.param(THEN, "11", False, False, id="made after, in the same second"),
    pytest.param(THEN, "opaque", False, True, id="in the same second, a version that is no number"),
    pytest.param(LATE, "99", True, True, id="under way"),
]


@pytest.mark.parametrize("kind", ["clone", "snapshot"])
@pytest.mark.parametrize(("made", "version", "under_way", "served"), SERVED)
def test_a_source_being_deleted_serves_and_waits_for_the_same_claims(
    kind: str, made: str, version: str, under_way: bool, served: bool
) -> None:
    reader, source = _reader(kind, made, version), _source(kind)
    readers = Readers([reader], {UID: reader} if under_way else {})
    if kind == "clone":
        assert sources.clone_pending(source, readers) is served
    else:
        users = sources.snapshot_users(readers)
        assert sources.is_orphaned(source, users, readers.under_way) is not served
    check = sources.check_clone_claim if kind == "clone" else sources.check_snapshot
    if served:
        check(draft(reader), source, under_way=under_way)
        return
    with pytest.raises(Refusal, match="being deleted"):
        check(draft(reader), source, under_way=under_way)


@pytest.mark.parametrize("kind", ["clone", "snapshot"])
def test_without_our_finalizer_it_serves_nobody(kind: str) -> None:
    """It may be gone in the next moment."""
    check = sources.check_clone_claim if kind == "clone" else sources.check_snapshot
    with pytest.raises(Refusal, match="being deleted"):
        check(draft(_reader(kind, EARLY, "1")), _source(kind, finalizer="example.com/other"), under_way=True)


def test_a_clone_under_way_holds_its_source_also_when_its_claim_is_gone() -> None:
    reader = _reader("clone", LATE, "99")
    assert sources.clone_pending(_source("clone"), Readers([], {UID: reader}))


def test_who_is_left_out_reads_no_longer() -> None:
    reader, other = claim("a"), claim("b")
    other.metadata.uid = "other"
    left = Readers([reader, other], {UID: reader, "other": other}).without(reader)
    assert list(left.cached) == [other]
    assert left.under_way == {"other": other}
