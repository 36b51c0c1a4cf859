"""provision.md 8.8: the checks of a claim as source, in their order."""

from typing import Any

import pytest

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import sources
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.sources import Content
from tests.planning.objects import CLONE, DRIVER, but, claim, draft, driver, storage_class, volume

VAGUE = "PersistentVolumeClaim shop/src cannot be the source of claim shop/a: the source is not bound or not valid"


def cloning(**fields: Any) -> Draft:
    return draft(claim(dataSource=CLONE, **fields))


def source() -> k8s.PersistentVolumeClaim:
    bound = claim("src", volumeName="pv-1")
    return but(but(bound, "status.phase", "Bound"), "metadata.uid", "src-uid")


def source_volume() -> k8s.PersistentVolume:
    held_by = k8s.ObjectReference(name="src", namespace="shop", uid="src-uid")
    return volume(phase="Bound", claimRef=held_by, csi=k8s.CSIVolumeSource(driver=DRIVER, volumeHandle="handle"))


def check(settled: Draft, claimed: k8s.PersistentVolumeClaim | None, vol: k8s.PersistentVolume) -> Content:
    assert sources.check_clone_claim(settled, claimed) == "pv-1"
    assert claimed is not None
    return sources.check_clone_volume(settled, claimed, vol)


def refused(settled: Draft, claimed: k8s.PersistentVolumeClaim | None, vol: k8s.PersistentVolume) -> Refusal:
    with pytest.raises(Refusal) as no:
        check(settled, claimed, vol)
    assert no.value.state is State.NO_CHANGE
    assert no.value.message.startswith("PersistentVolumeClaim shop/src cannot be the source of claim shop/a: ")
    return no.value


def test_the_source_is_the_handle_not_the_name_p19_request_2() -> None:
    """provision.md 8.8.14."""
    assert check(cloning(), source(), source_volume()) == Content("PersistentVolumeClaim", "handle")


def test_a_missing_source_is_refused() -> None:
    """provision.md 8.8.1."""
    assert "there is no such claim" in refused(cloning(), None, source_volume()).message


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        pytest.param("status.phase", "Pending", "is Pending, not Bound", id="8.8-2"),
        pytest.param("status.phase", None, "not Bound", id="8.8-2 no phase"),
        pytest.param("metadata.deletionTimestamp", "2024-01-01T00:00:00Z", "being deleted", id="8.8-3"),
        pytest.param("spec.storageClassName", None, "source claim has no storageClassName", id="8.8-4"),
        pytest.param("spec.resources.requests", {"storage": "6Gi"}, "less than the 6442450944", id="8.8-6"),
        pytest.param("spec.volumeName", None, "names no volume", id="8.8-7"),
    ],
)
def test_unusable_claims(path: str, value: Any, says: str) -> None:
    assert says in refused(cloning(), but(source(), path, value), source_volume()).message


def test_a_clone_without_class_is_refused() -> None:
    """provision.md 8.8.5."""
    assert (
        "shop/a has no storageClassName" in refused(cloning(storageClassName=None), source(), source_volume()).message
    )


@pytest.mark.parametrize(
    ("size", "held"),
    [
        pytest.param("5Gi", "5Gi", id="8.8-6 equal"),
        pytest.param("6Gi", "5Gi", id="8.8-6 larger"),
        pytest.param(None, None, id="8.8-6 neither names one"),
    ],
)
def test_sizes(size: str | None, held: str | None) -> None:
    requests = {"storage": held} if held else None
    check(cloning(size=size), but(source(), "spec.resources.requests", requests), source_volume())


def test_a_clone_may_have_another_class_p19_sources_4() -> None:
    """provision.md 8.8.5."""
    check(cloning(), but(source(), "spec.storageClassName", "slow"), source_volume())


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        pytest.param("spec.csi", None, "no CSI source", id="8.8-9"),
        pytest.param("spec.csi.volumeHandle", "", "no CSI source", id="without a handle"),
        pytest.param("spec.csi.driver", "other", "of driver other", id="8.8-10"),
        pytest.param("spec.claimRef", None, "not bound to claim shop/src", id="8.8-11 no claimRef"),
        pytest.param("spec.claimRef.uid", "x", "not bound to claim shop/src", id="8.8-11 uid, p19-sources-2"),
        pytest.param("spec.claimRef.namespace", "x", "not bound to claim shop/src", id="8.8-11 namespace"),
        pytest.param("spec.claimRef.name", "x", "not bound to claim shop/src", id="8.8-11 name"),
        pytest.param("status.phase", "Released", "is Released", id="8.8-12"),
        pytest.param("status", None, "without a phase", id="8.8-12 no status"),
    ],
)
def test_foreign_volumes_get_one_vague_answer(path: str, value: Any, reason: str) -> None:
    no = refused(cloning(), source(), but(source_volume(), path, value))
    assert no.message == str(no) == VAGUE
    assert reason in no.detail


def test_a_volume_that_cannot_be_read_is_refused_as_vaguely() -> None:
    """provision.md 8.8.8."""
    no = sources.clone_volume_unreadable(cloning(), "pv-1", "forbidden")
    assert (no.state, no.message) == (State.NO_CHANGE, VAGUE)
    assert no.detail == "cannot read PersistentVolume pv-1: forbidden"


def test_a_migrated_class_clones_volumes_of_the_driver() -> None:
    """provision.md 18, quirk Q10."""
    name, in_tree = "pd.csi.storage.gke.io", "kubernetes.io/gce-pd"
    facts = driver(name, in_tree_name=in_tree)
    settled = draft(claim(dataSource=CLONE), storage_class(provisioner=in_tree), facts)
    assert check(settled, source(), but(source_volume(), "spec.csi.driver", name)).handle == "handle"
    refused(settled, source(), but(source_volume(), "spec.csi.driver", in_tree))


@pytest.mark.parametrize(
    ("target", "held", "same"),
    [
        pytest.param(None, None, True, id="8.8-13 both unset"),
        pytest.param(None, "Filesystem", True, id="8.8-13 unset is Filesystem"),
        pytest.param("Filesystem", None, True, id="8.8-13 unset volume is Filesystem"),
        pytest.param("Block", "Block", True, id="8.8-13 block, p19-sources-5 by value"),
        pytest.param("Block", None, False, id="8.8-13 block from unset, p19-sources-4"),
        pytest.param("Block", "Filesystem", False, id="8.8-13 block from Filesystem"),
        pytest.param(None, "Block", False, id="8.8-13 unset from block"),
        pytest.param("Filesystem", "Block", False, id="8.8-13 Filesystem from block"),
    ],
)
def test_modes(target: str | None, held: str | None, same: bool) -> None:
    annotated = but(source_volume(), "spec.volumeMode", held)
    annotated.metadata.annotations = {"snapshot.storage.kubernetes.io/allow-volume-mode-change": "true"}
    if same:
        check(cloning(volumeMode=target), source(), annotated)
    else:
        assert "differ in volume mode" in refused(cloning(volumeMode=target), source(), annotated).message
