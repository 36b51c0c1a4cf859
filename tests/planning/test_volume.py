"""provision.md 10: the PersistentVolume, field by field."""

from typing import Any

import msgspec
import pytest

from csi_provisioner.model import csi
from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import verdict, volume
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.settings import ProvisioningSettings
from tests.planning.objects import DRIVER, SETTINGS, UID, claim, draft, driver, plan, response, settings, storage_class

P = "csi.storage.k8s.io/"
DELETION = "volume.kubernetes.io/provisioner-deletion-secret-"
MODIFY = "volume.kubernetes.io/controller-modify-secret-"
BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


def composed(
    settled: Draft | None = None,
    answer: csi.CreateVolumeResponse | None = None,
    facts: DriverFacts | None = None,
    options: ProvisioningSettings = SETTINGS,
) -> k8s.PersistentVolume:
    planned = plan(settled or draft(), options)
    made = verdict.judge(planned, answer or response())
    return volume.compose(planned, made, facts or driver(), "identity", options)


def test_a_plain_volume_has_these_fields_and_no_others() -> None:
    """The object of golden basic-immediate, without what the API server adds. provision.md 10."""
    pv = composed(draft(class_=storage_class({"tier": "gold"})), response(volume_context={"made-by": "acme"}))
    assert msgspec.json.decode(msgspec.json.encode(pv)) == {
        "metadata": {
            "name": f"pvc-{UID}",
            "annotations": {
                "pv.kubernetes.io/provisioned-by": DRIVER,
                f"{DELETION}name": "",
                f"{DELETION}namespace": "",
            },
            "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "5Gi"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "name": "a",
                "namespace": "shop",
                "resourceVersion": "17",
                "uid": UID,
            },
            "csi": {
                "driver": DRIVER,
                "volumeAttributes": {"made-by": "acme", "storage.kubernetes.io/csiProvisionerIdentity": "identity"},
                "volumeHandle": "h",
            },
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "fast",
            "volumeMode": "Filesystem",
        },
    }


@pytest.mark.parametrize("policy", ["Delete", "Retain", None], ids=lambda policy: f"10 policy {policy}")
def test_policy_and_finalizer_p19_response_5(policy: str | None) -> None:
    pv = composed(draft(class_=storage_class(reclaimPolicy=policy)))
    assert pv.spec.persistentVolumeReclaimPolicy == policy
    assert pv.metadata.finalizers == ["external-provisioner.volume.kubernetes.io/finalizer"]


def test_the_drivers_context_wins_over_the_identity() -> None:
    """provision.md 10."""
    pv = composed(answer=response(volume_context={"storage.kubernetes.io/csiProvisionerIdentity": "mine"}))
    assert pv.spec.csi is not None
    assert pv.spec.csi.volumeAttributes == {"storage.kubernetes.io/csiProvisionerIdentity": "mine"}


@pytest.mark.parametrize(
    ("mode", "fstype"),
    [("Filesystem", "xfs"), (None, "xfs"), ("Block", "")],
    ids=["10 Filesystem", "10 unset", "16 Block: none, even with a default"],
)
def test_fstype(mode: str | None, fstype: str) -> None:
    pv = composed(draft(claim(volumeMode=mode), options=settings(default_fstype="xfs")))
    assert pv.spec.csi is not None
    assert (pv.spec.volumeMode, pv.spec.csi.fsType) == (mode, fstype)


@pytest.mark.parametrize("mode", ["Filesystem", "Block"])
def test_mount_options_are_kept_for_block_too(mode: str) -> None:
    """provision.md 10."""
    pv = composed(draft(claim(volumeMode=mode), storage_class(mountOptions=["noatime"])))
    assert pv.spec.mountOptions == ["noatime"]


@pytest.mark.parametrize(
    ("modes", "flag", "read_only"),
    [
        pytest.param(("ReadOnlyMany",), False, False, id="16 ROX, flag off"),
        pytest.param(("ReadOnlyMany",), True, True, id="16 ROX, flag on, p19-response-3"),
        pytest.param(("ReadOnlyMany", "ReadWriteOnce"), True, False, id="16 ROX and RWO"),
        pytest.param(("ReadWriteOnce",), True, False, id="10 RWO"),
        pytest.param((), True, False, id="10 no mode"),
    ],
)
def test_read_only(modes: tuple[str, ...], flag: bool, read_only: bool) -> None:
    pv = composed(draft(claim(modes=modes)), options=settings(controller_publish_readonly=flag))
    assert pv.spec.csi is not None
    assert pv.spec.csi.readOnly is read_only
    assert pv.spec.accessModes == list(modes)


def test_secrets_are_written_for_each_role_p19_response_4() -> None:
    """provision.md 10."""
    keys = (
        "provisioner",
        "controller-publish",
        "node-stage",
        "node-publish",
        "controller-expand",
        "node-expand",
        "controller-modify",
    )
    parameters = {f"{P}{key}-secret-name": key for key in keys} | {f"{P}{key}-secret-namespace": "ns" for key in keys}
    pv = composed(draft(class_=storage_class(parameters)))
    assert pv.metadata.annotations == {
        "pv.kubernetes.io/provisioned-by": DRIVER,
        f"{DELETION}name": "provisioner",
        f"{DELETION}namespace": "ns",
        f"{MODIFY}name": "controller-modify",
        f"{MODIFY}namespace": "ns",
    }
    assert pv.spec.csi is not None
    fields = ("controllerPublish", "nodeStage", "nodePublish", "controllerExpand", "nodeExpand")
    for field, name in zip(fields, keys[1:6], strict=True):
        assert getattr(pv.spec.csi, f"{field}SecretRef") == k8s.SecretReference(name=name, namespace="ns")


def test_the_class_name_is_the_claims() -> None:
    """provision.md 10."""
    pv = composed(draft(claim(annotations={BETA_CLASS: "old"})))
    assert pv.spec.storageClassName == "old"


@pytest.mark.parametrize(
    ("named", "gate", "written"),
    [("gold", True, "gold"), ("gold", False, None), ("", True, None), (None, True, None)],
    ids=["10 VAC", "16 VAC, gate off", "10 VAC empty", "10 no VAC"],
)
def test_attributes_class(named: str | None, gate: bool, written: str | None) -> None:
    options = settings(volume_attributes_class=gate)
    pv = composed(draft(claim(volumeAttributesClassName=named), options=options), options=options)
    assert pv.spec.volumeAttributesClassName == written


TOPOLOGY = [csi.Topology(segments={"zone": "a", "rack": "1"}), csi.Topology(segments={"zone": "b"})]


@pytest.mark.parametrize(
    ("active", "answered", "terms"),
    [
        pytest.param(True, TOPOLOGY, [{"rack": ["1"], "zone": ["a"]}, {"zone": ["b"]}], id="10 affinity"),
        pytest.param(True, [], None, id="10 no topology in the answer"),
        pytest.param(False, TOPOLOGY, None, id="16 topology gate off"),
    ],
)
def test_affinity(active: bool, answered: list[csi.Topology], terms: Any) -> None:
    facts = driver(topology=active)
    pv = composed(draft(facts=facts), response(accessible_topology=answered), facts)
    if terms is None:
        assert pv.spec.nodeAffinity is None
        return
    assert pv.spec.nodeAffinity is not None
    assert pv.spec.nodeAffinity.required is not None
    found = pv.spec.nodeAffinity.required.nodeSelectorTerms
    assert [{e.key: e.values for e in term.matchExpressions or []} for term in found] == terms


@pytest.mark.parametrize(
    ("capacity", "text"),
    [(5905580032, "5632Mi"), (5970004541, "5970004541"), (0, "5Gi")],
    ids=lambda value: f"10.1 {value}",
)
def test_capacity(capacity: int, text: str) -> None:
    assert composed(answer=response(capacity=capacity or 5 << 30)).spec.capacity == {"storage": text}


def test_the_volume_name_follows_the_flags() -> None:
    """provision.md 10."""
    options = settings(volume_name_prefix="vol", volume_name_uuid_length=4)
    assert composed(draft(options=options), options=options).metadata.name == "vol-6a1e"


# ---- migrated classes (9.5)

EBS, EBS_IN_TREE = "ebs.csi.aws.com", "kubernetes.io/aws-ebs"
GCE, GCE_IN_TREE = "pd.csi.storage.gke.io", "kubernetes.io/gce-pd"


def migrated(name: str, in_tree: str, volume_id: str, **fields: Any) -> k8s.PersistentVolume:
    facts = driver(name, in_tree_name=in_tree, topology=True)
    settled = draft(claim(annotations={}), storage_class({"fstype": "xfs"}, provisioner=in_tree), facts)
    planned = plan(settled)
    made = verdict.judge(planned, response(volume_id, **fields))
    return volume.to_in_tree(planned, volume.compose(planned, made, facts, "identity", SETTINGS))


def test_a_migrated_volume_is_written_in_tree_p19_migration_2_and_3() -> None:
    """provision.md 9.5."""
    topology = csi.Topology(segments={"topology.ebs.csi.aws.com/zone": "us-east-1b"})
    pv = migrated(EBS, EBS_IN_TREE, "vol-1", accessible_topology=[topology])
    assert pv.spec.csi is None
    assert pv.spec.awsElasticBlockStore == k8s.AWSElasticBlockStore(volumeID="vol-1", fsType="xfs")
    assert (pv.metadata.annotations or {})["pv.kubernetes.io/provisioned-by"] == EBS_IN_TREE
    assert pv.metadata.labels == {
        "topology.kubernetes.io/region": "us-east-1",
        "topology.kubernetes.io/zone": "us-east-1b",
    }
    assert pv.spec.claimRef is not None


def test_untranslatable_volume_is_refused_for_its_deletion() -> None:
    """provision.md 18, quirk Q2."""
    with pytest.raises(Refusal, match=f"volume pvc-{UID} of driver {GCE} as a volume of {GCE_IN_TREE}") as refused:
        migrated(GCE, GCE_IN_TREE, "short")
    assert refused.value.state is State.FINISHED


def test_a_class_of_the_driver_itself_is_not_translated() -> None:
    """provision.md 16."""
    facts = driver(EBS, in_tree_name=EBS_IN_TREE)
    planned = plan(draft(class_=storage_class(provisioner=EBS), facts=facts))
    made = verdict.judge(planned, response())
    pv = volume.compose(planned, made, facts, "identity", SETTINGS)
    assert volume.to_in_tree(planned, pv) is pv
