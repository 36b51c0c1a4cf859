"""delete.md 3 to 7: whose volume it is, its finalizer, whether it goes, and what stands in the way."""

from typing import Any

import pytest

from csi_provisioner.model import csi
from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.secret import SecretData
from csi_provisioner.planning import capabilities, deletion
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from tests.planning.objects import ALL, DRIVER, but, driver, volume

OURS = "external-provisioner.volume.kubernetes.io/finalizer"
BY, TO = "pv.kubernetes.io/provisioned-by", "pv.kubernetes.io/migrated-to"
IN_TREE = "kubernetes.io/aws-ebs"
EBS_SOURCE = {"csi": None, "awsElasticBlockStore": k8s.AWSElasticBlockStore(volumeID="vol-1", fsType="xfs")}
FOREIGN_SOURCE = {"csi": k8s.CSIVolumeSource(driver="other", volumeHandle="h")}


@pytest.mark.parametrize(
    ("annotations", "spec", "ours"),
    [
        pytest.param({BY: DRIVER}, {}, True, id="3 provisioned-by"),
        pytest.param({BY: DRIVER}, FOREIGN_SOURCE, True, id="3 the CSI driver field is not consulted then"),
        pytest.param({BY: "other"}, {}, False, id="12 provisioned-by another, csi.driver ours"),
        pytest.param({BY: "other", TO: DRIVER}, EBS_SOURCE, True, id="3 migrated-to, d13-11"),
        pytest.param({BY: IN_TREE}, EBS_SOURCE, True, id="12 provisioned-by in-tree name, d13-11"),
        pytest.param({BY: "other", TO: ""}, {}, False, id="3 empty migrated-to is never known"),
        pytest.param({BY: ""}, {}, False, id="3 empty provisioned-by"),
        pytest.param({}, {}, True, id="3 static CSI volume of ours"),
        pytest.param({}, FOREIGN_SOURCE, False, id="3 static CSI volume of another"),
        pytest.param({TO: DRIVER}, FOREIGN_SOURCE, False, id="3 a CSI source decides without provisioned-by"),
        pytest.param({}, EBS_SOURCE, False, id="d13-2 in-tree, not migrated"),
        pytest.param({TO: "other"}, EBS_SOURCE, False, id="d13-2 in-tree, migrated to another"),
        pytest.param({TO: DRIVER}, EBS_SOURCE, True, id="d13-1 in-tree, migrated to us"),
    ],
)
def test_responsibility(annotations: dict[str, str], spec: dict[str, Any], ours: bool) -> None:
    assert deletion.is_responsible(volume(annotations, **spec), driver(in_tree_name=IN_TREE)) is ours


def shaped(policy: str | None, phase: str, deleted: bool, finalizers: list[str] | None) -> k8s.PersistentVolume:
    pv = volume(phase=phase, persistentVolumeReclaimPolicy=policy)
    pv.metadata.deletionTimestamp = "2024-01-01T00:00:00Z" if deleted else None
    pv.metadata.finalizers = finalizers
    return pv


@pytest.mark.parametrize(
    ("policy", "phase", "deleted", "finalizers", "change"),
    [
        pytest.param("Delete", "Bound", False, None, "add", id="4 static volume"),
        pytest.param("Delete", "Bound", False, ["x"], "add", id="4 others present"),
        pytest.param("Delete", "Bound", False, [OURS], None, id="4 there already"),
        pytest.param("Delete", "Bound", True, ["x"], None, id="4 being deleted"),
        pytest.param("Delete", "Released", False, None, None, id="4 not bound"),
        pytest.param("Delete", "Available", False, None, None, id="4 available"),
        pytest.param("Delete", "Released", True, [OURS], None, id="4 left as it is"),
        pytest.param("Retain", "Bound", False, [OURS], "remove", id="12 Retain volume, d13-10"),
        pytest.param("Retain", "Released", True, [OURS, "x"], "remove", id="4 also with deletionTimestamp"),
        pytest.param("Recycle", "Available", False, [OURS], "remove", id="4 Recycle"),
        pytest.param("Retain", "Bound", False, ["x"], None, id="4 nothing to remove"),
        pytest.param(None, "Bound", False, [OURS], None, id="4 no policy"),
    ],
)
def test_finalizer_change(
    policy: str | None, phase: str, deleted: bool, finalizers: list[str] | None, change: str | None
) -> None:
    assert deletion.finalizer_change(shaped(policy, phase, deleted, finalizers)) == change


def test_patches_name_our_entry_alone_d13_9() -> None:
    """delete.md 4."""
    assert deletion.finalizer_patch("add") == {"metadata": {"finalizers": [OURS]}}
    assert deletion.finalizer_patch("remove") == {"metadata": {"$deleteFromPrimitiveList/finalizers": [OURS]}}


@pytest.mark.parametrize(
    ("deleted", "finalizers", "phase", "policy", "delete"),
    [
        pytest.param(False, None, "Released", "Delete", True, id="5 row 1 without finalizer"),
        pytest.param(False, [OURS], "Released", "Delete", True, id="5 row 1 with finalizer"),
        pytest.param(True, [OURS], "Released", "Delete", True, id="5 row 2, d13-7"),
        pytest.param(True, ["x"], "Released", "Delete", False, id="5 row 3"),
        pytest.param(True, [OURS], "Bound", "Delete", False, id="5 row 4"),
        pytest.param(False, [OURS], "Failed", "Delete", False, id="5 row 5"),
        pytest.param(True, [OURS], "Failed", "Delete", False, id="5 row 5 deleted"),
        pytest.param(False, [OURS], "Released", "Retain", False, id="5 row 6"),
        pytest.param(False, [OURS], "Available", "Delete", False, id="5 available"),
        pytest.param(False, [OURS], "Pending", "Delete", False, id="5 pending"),
    ],
)
def test_should_delete(deleted: bool, finalizers: list[str] | None, phase: str, policy: str, delete: bool) -> None:
    assert deletion.should_delete(shaped(policy, phase, deleted, finalizers)) is delete


def test_a_volume_without_status_is_not_deleted() -> None:
    """delete.md 5."""
    assert not deletion.should_delete(but(volume(), "status", None))


@pytest.mark.parametrize("when", ["garbage", "99999-01-01T00:00:00Z", "2026-13-01T00:00:00Z"])
def test_a_moment_that_nobody_can_read_is_none(when: str) -> None:
    released = volume()
    released.status = k8s.Phase(phase="Released", lastPhaseTransitionTime=when)
    assert deletion.released_at(released) is None


# ---- the steps of section 7


def test_a_csi_volume_is_taken_as_it_is() -> None:
    """delete.md 7.2."""
    pv = volume()
    found = deletion.target(pv)
    assert (found.volume is pv, found.source.volumeHandle, found.migrated) == (True, "h", False)


def test_a_migratable_volume_is_translated_d13_1_and_16() -> None:
    """delete.md 12."""
    pv = volume(**EBS_SOURCE)
    found = deletion.target(pv)
    assert (found.source.volumeHandle, found.source.driver, found.migrated) == ("vol-1", "ebs.csi.aws.com", True)
    assert pv.spec.csi is None


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        pytest.param({"csi": None}, "no CSI source", id="12 neither source"),
        pytest.param({"csi": k8s.CSIVolumeSource(DRIVER)}, "no CSI source", id="without a handle"),
        pytest.param(
            {"csi": None, "azureDisk": k8s.AzureDisk(diskURI="x", kind="Shared")}, "pv-1", id="7-2 untranslatable"
        ),
    ],
)
def test_no_target(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=f"cannot delete volume pv-1: .*{says}" if says != "pv-1" else "volume pv-1: "):
        deletion.target(volume(**spec))


def affinity(value: str) -> k8s.VolumeNodeAffinity:
    expression = k8s.NodeSelectorRequirement(key="node", operator="In", values=[value])
    return k8s.VolumeNodeAffinity(
        required=k8s.NodeSelector(nodeSelectorTerms=[k8s.NodeSelectorTerm(matchExpressions=[expression])])
    )


@pytest.mark.parametrize(
    ("nodes", "segments", "ours"),
    [
        pytest.param(affinity("n7"), {"node": "n7"}, True, id="12 own node"),
        pytest.param(affinity("n8"), {"node": "n7"}, False, id="12 other node, d13-13"),
        pytest.param(affinity("n8"), None, True, id="7.1 driver reports no topology"),
        pytest.param(None, {"node": "n7"}, True, id="7.1 no affinity"),
        pytest.param(k8s.VolumeNodeAffinity(), {"node": "n7"}, True, id="7.1 nothing required"),
    ],
)
def test_node_ownership(nodes: k8s.VolumeNodeAffinity | None, segments: dict[str, str] | None, ours: bool) -> None:
    pv = volume(nodeAffinity=nodes)
    if ours:
        deletion.check_accessible(pv, segments)
    else:
        with pytest.raises(Refusal) as ignored:
            deletion.check_accessible(pv, segments)
        assert ignored.value.ignored
        assert not ignored.value.event


@pytest.mark.parametrize(
    "facts",
    [DriverFacts(DRIVER, controller=ALL), driver(controller=frozenset())],
    ids=["7-5 CONTROLLER_SERVICE", "7-5 CREATE_DELETE_VOLUME"],
)
def test_capabilities(facts: DriverFacts) -> None:
    with pytest.raises(Refusal, match=f"driver {DRIVER} cannot create or delete volumes"):
        capabilities.check_driver(facts)


def attachment(pv: str | None) -> k8s.VolumeAttachment:
    return k8s.VolumeAttachment(
        metadata=k8s.ObjectMeta(name="va", deletionTimestamp="2024-01-01T00:00:00Z"),
        spec=k8s.VolumeAttachmentSpec(nodeName="n1", source=k8s.VolumeAttachmentSource(persistentVolumeName=pv)),
    )


def test_an_attached_volume_is_refused_d13_6() -> None:
    """delete.md 12."""
    with pytest.raises(Refusal, match="volume pv-1 is still attached to node n1 "):
        deletion.check_detached(volume(), [attachment("other"), attachment("pv-1")])


@pytest.mark.parametrize("attached", [None, "other"], ids=["7.2 inline volume", "12 another volume"])
def test_other_attachments_do_not_block(attached: str | None) -> None:
    deletion.check_detached(volume(), [attachment(attached)])


@pytest.mark.parametrize(
    ("controller", "watches"),
    [(frozenset(), False), (frozenset({"PUBLISH_UNPUBLISH_VOLUME"}), True)],
    ids=["d13-6 and p19-topology-6 no attach", "7.2 attach"],
)
def test_watches_attachments(controller: frozenset[str], watches: bool) -> None:
    assert deletion.watches_attachments(driver(controller=controller)) is watches


def test_the_request_has_handle_and_secrets() -> None:
    """delete.md 7.8."""
    found = deletion.target(volume())
    assert deletion.request(found, None) == csi.DeleteVolumeRequest(volume_id="h")
    assert deletion.request(found, SecretData({"user": "joe"})).secrets == {"user": "joe"}
