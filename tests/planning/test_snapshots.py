"""provision.md 8.7: the checks of a snapshot as source, in their order."""

from typing import Any

import msgspec
import pytest

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import quantity, sources
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.sources import Content
from tests.planning.objects import DRIVER, SETTINGS, SNAPSHOT, but, claim, draft, driver, settings, storage_class

OURS = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"
FOREIGN = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"
YES, NO = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")
ALLOW = "snapshot.storage.kubernetes.io/allow-volume-mode-change"


def restoring(**fields: Any) -> Draft:
    return draft(claim(dataSource=SNAPSHOT, **fields))


def snapshot() -> k8s.VolumeSnapshot:
    return k8s.VolumeSnapshot(
        metadata=k8s.ObjectMeta(name="src", namespace="shop", uid="snap-uid"),
        status=k8s.SnapshotStatus(boundVolumeSnapshotContentName="content", readyToUse=True, restoreSize="2Gi"),
    )


def content() -> k8s.VolumeSnapshotContent:
    return k8s.VolumeSnapshotContent(
        metadata=k8s.ObjectMeta(name="content"),
        spec=k8s.SnapshotContentSpec(
            driver=DRIVER, volumeSnapshotRef=k8s.ObjectReference(name="src", namespace="shop", uid="snap-uid")
        ),
        status=k8s.SnapshotContentStatus(snapshotHandle="handle"),
    )


def check(
    settled: Draft, snap: k8s.VolumeSnapshot, cont: k8s.VolumeSnapshotContent, options: Any = SETTINGS
) -> Content:
    assert sources.check_snapshot(settled, snap) == "content"
    return sources.check_content(settled, snap, cont, options)


def refused(settled: Draft, snap: k8s.VolumeSnapshot, cont: k8s.VolumeSnapshotContent, says: str) -> None:
    with pytest.raises(Refusal, match=says) as no:
        check(settled, snap, cont)
    assert no.value.state is State.NO_CHANGE
    assert no.value.message.startswith("VolumeSnapshot shop/src cannot be the source of claim shop/a: ")


def test_a_good_snapshot_gives_its_handle() -> None:
    """provision.md 8.7.11."""
    assert check(restoring(size="2Gi"), snapshot(), content()) == Content("VolumeSnapshot", "handle")


@pytest.mark.parametrize(
    ("finalizers", "goes_on"),
    [
        pytest.param([OURS], True, id="8.7-2 and p19-sources-6 our finalizer"),
        pytest.param([FOREIGN, OURS], True, id="8.7-2 ours among others"),
        pytest.param([FOREIGN], False, id="16 vector other finalizer"),
        pytest.param(None, False, id="16 vector none"),
    ],
)
def test_a_snapshot_being_deleted_is_refused_unless_it_is_held(finalizers: list[str] | None, goes_on: bool) -> None:
    """provision.md 8.7.2."""
    deleted = but(
        but(snapshot(), "metadata.deletionTimestamp", "2024-01-01T00:00:00Z"), "metadata.finalizers", finalizers
    )
    if goes_on:
        check(restoring(), deleted, content())
    else:
        refused(restoring(), deleted, content(), "being deleted")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        pytest.param("status", None, "not bound", id="8.7-3 no status"),
        pytest.param("status.boundVolumeSnapshotContentName", None, "not bound", id="8.7-3 not bound"),
        pytest.param("metadata.uid", "x", "content is bound to a different snapshot", id="8.7-5 uid, p19-sources-2"),
        pytest.param("status.readyToUse", False, "not ready", id="8.7-7 not ready"),
        pytest.param("status.readyToUse", None, "not ready", id="8.7-7 readiness unknown"),
        pytest.param("status.restoreSize", "6Gi", "5368709120 bytes, less than the 6442450944", id="8.7-9 too small"),
    ],
)
def test_unusable_snapshots(path: str, value: Any, says: str) -> None:
    refused(restoring(), but(snapshot(), path, value), content(), says)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        pytest.param("spec.volumeSnapshotRef.uid", "x", "different snapshot", id="8.7-5 uid"),
        pytest.param("spec.volumeSnapshotRef.namespace", "far", "different snapshot", id="8.7-5 namespace"),
        pytest.param("spec.volumeSnapshotRef.name", "x", "different snapshot", id="8.7-5 name"),
        pytest.param(
            "spec.driver", "other", f"of driver other, while StorageClass fast is served by {DRIVER}", id="8.7-6"
        ),
        pytest.param("status", None, "no snapshot handle", id="8.7-8 no status"),
        pytest.param("status.snapshotHandle", None, "no snapshot handle", id="8.7-8 no handle"),
    ],
)
def test_unusable_contents(path: str, value: Any, says: str) -> None:
    refused(restoring(), snapshot(), but(content(), path, value), says)


def test_a_migrated_class_restores_snapshots_of_the_driver() -> None:
    """provision.md 18, quirk Q10."""
    name, in_tree = "pd.csi.storage.gke.io", "kubernetes.io/gce-pd"
    settled = draft(claim(dataSource=SNAPSHOT), storage_class(provisioner=in_tree), driver(name, in_tree_name=in_tree))
    assert check(settled, snapshot(), but(content(), "spec.driver", name)).handle == "handle"
    refused(settled, snapshot(), but(content(), "spec.driver", in_tree), f"of driver {in_tree}")


def test_a_snapshot_that_cannot_be_read_is_refused() -> None:
    """provision.md 8.7.1."""
    no = sources.source_unreadable(restoring(), "not found")
    assert (no.state, no.message) == (
        State.NO_CHANGE,
        "VolumeSnapshot shop/src cannot be the source of claim shop/a: cannot read it: not found",
    )


def test_a_content_that_cannot_be_read_is_named_its_reason_only_logged() -> None:
    """provision.md 8.7.4."""
    no = sources.content_unreadable(restoring(), "content", "private reason")
    assert (no.state, no.detail) == (State.NO_CHANGE, "private reason")
    assert "VolumeSnapshot shop/src" in no.message
    assert "VolumeSnapshotContent content" in no.message
    assert "private reason" not in str(no)


# ---- size (9)


@pytest.mark.parametrize(
    ("size", "restore", "warned"),
    [
        pytest.param("2Gi", "2Gi", False, id="8.7-9 equal"),
        pytest.param("3Gi", "2Gi", True, id="8.7-9 larger: allowed with a warning"),
        pytest.param("1", None, False, id="8.7-9 restoreSize unset"),
        pytest.param(None, None, False, id="8.7-9 neither"),
    ],
)
def test_sizes(size: str | None, restore: str | None, warned: bool) -> None:
    found = check(restoring(size=size), but(snapshot(), "status.restoreSize", restore), content())
    assert bool(found.warnings) is warned


@pytest.mark.parametrize(
    ("number", "bytes_"),
    [
        pytest.param("2147483648", 2147483648, id="8.7-9 integer"),
        pytest.param("2147483648.0", 2147483648, id="8.7-9 with a point"),
        pytest.param("2147483647.5", 2147483648, id="8.7-9 a fraction is rounded up"),
        pytest.param("2.5e9", 2500000000, id="8.7-9 exponent"),
        pytest.param("3E+9", 3000000000, id="8.7-9 exponent in capitals"),
        pytest.param("1e-3", 1, id="8.7-9 negative exponent"),
        pytest.param("0", 0, id="8.7-9 nothing"),
        pytest.param("1e300", quantity.LARGEST, id="8.7-9 as large as numbers get"),
        pytest.param("99999999999999999999", quantity.LARGEST, id="8.7-9 more than 64 bits"),
    ],
)
def test_a_restore_size_may_be_any_json_number(number: str, bytes_: int) -> None:
    text = b'{"boundVolumeSnapshotContentName": "content", "readyToUse": true, "restoreSize": %s}' % number.encode()
    snap = but(snapshot(), "status", msgspec.json.decode(text, type=k8s.SnapshotStatus))
    check(restoring(size=str(bytes_)), snap, content())
    if bytes_:
        refused(restoring(size=str(bytes_ - 1)), snap, content(), f"{bytes_ - 1} bytes, less than the {bytes_} bytes")


def test_a_size_that_is_none_is_no_final_error() -> None:
    """provision.md 8.7.9."""
    refused(restoring(), but(snapshot(), "status.restoreSize", "much"), content(), "cannot read 'much' as a quantity")


def test_a_claim_without_size_is_refused() -> None:
    """provision.md 8.7.9."""
    refused(restoring(size=None), snapshot(), content(), "asks for no size")


# ---- volume mode (10)


@pytest.mark.parametrize(
    ("before", "after", "annotation", "allowed"),
    [
        pytest.param("Block", "Filesystem", None, False, id="8.7-10 no annotation, p19-sources-5 on by default"),
        *(pytest.param("Block", "Filesystem", yes, True, id=f"8.7-10 {yes}") for yes in YES),
        *(pytest.param("Block", "Filesystem", no, False, id=f"8.7-10 {no}") for no in NO),
        pytest.param("Block", "Filesystem", "tRUE", False, id="8.7-10 unparsable"),
        pytest.param("Filesystem", "Block", "", False, id="8.7-10 empty"),
        pytest.param("Block", "Block", None, True, id="8.7-10 same, p19-sources-5 by value"),
        pytest.param(None, "Block", None, True, id="8.7-10 unknown before"),
        pytest.param("Block", None, None, True, id="8.7-10 unset on the claim"),
    ],
)
def test_mode_conversion(before: str | None, after: str | None, annotation: str | None, allowed: bool) -> None:
    annotations = None if annotation is None else {ALLOW: annotation}
    cont = but(but(content(), "spec.sourceVolumeMode", before), "metadata.annotations", annotations)
    settled = restoring(volumeMode=after)
    if allowed:
        check(settled, snapshot(), cont)
    else:
        refused(settled, snapshot(), cont, ALLOW)
    check(settled, snapshot(), cont, settings(prevent_volume_mode_conversion=False))


def test_the_checks_speak_in_their_order() -> None:
    """Everything wrong at once: repaired one by one, the next one in line speaks. provision.md 8.7."""
    wrong = but(but(snapshot(), "status.readyToUse", False), "status.restoreSize", "9Gi")
    wrong = but(but(wrong, "metadata.deletionTimestamp", "now"), "status.boundVolumeSnapshotContentName", None)
    other = but(but(content(), "spec.volumeSnapshotRef.uid", "x"), "spec.driver", "other")
    other = but(but(other, "status.snapshotHandle", None), "spec.sourceVolumeMode", "Block")
    steps: list[tuple[str, str, Any, str]] = [
        ("being deleted", "snapshot", None, "metadata.deletionTimestamp"),
        ("not bound", "snapshot", "content", "status.boundVolumeSnapshotContentName"),
        ("different snapshot", "content", "snap-uid", "spec.volumeSnapshotRef.uid"),
        ("of driver other", "content", DRIVER, "spec.driver"),
        ("not ready", "snapshot", True, "status.readyToUse"),
        ("no snapshot handle", "content", "handle", "status.snapshotHandle"),
        ("less than", "snapshot", "2Gi", "status.restoreSize"),
        (ALLOW, "content", None, "spec.sourceVolumeMode"),
    ]
    for says, which, good, path in steps:
        refused(restoring(), wrong, other, says)
        if which == "snapshot":
            wrong = but(wrong, path, good)
        else:
            other = but(other, path, good)
    check(restoring(), wrong, other)
