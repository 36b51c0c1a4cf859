"""delete.md 8: the secret for DeleteVolume, its three branches."""

from typing import Any

import pytest

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.kubernetes import SecretReference
from csi_provisioner.planning import secrets
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.secrets import DeletionSecret
from tests.planning.objects import DRIVER, driver, storage_class, volume

P = "csi.storage.k8s.io/"
NAME, NAMESPACE = (f"volume.kubernetes.io/provisioner-deletion-secret-{part}" for part in ("name", "namespace"))
BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


def naming(name: str = "static", namespace: str = "ns", role: str = "provisioner-secret") -> k8s.StorageClass:
    return storage_class({f"{P}{role}-name": name, f"{P}{role}-namespace": namespace})


def found(annotations: dict[str, str], class_: k8s.StorageClass | None, **spec: Any) -> DeletionSecret:
    return secrets.deletion_reference(volume(annotations, **spec), lambda _name: class_, driver(), migrated=False)


@pytest.mark.parametrize(
    ("annotations", "reference"),
    [
        pytest.param(
            {NAME: "s", NAMESPACE: "far"}, SecretReference(name="s", namespace="far"), id="12 annotations set"
        ),
        pytest.param({NAME: "", NAMESPACE: ""}, None, id="12 annotations empty"),
        pytest.param({NAME: "s", NAMESPACE: ""}, None, id="8 only one not empty"),
        pytest.param({NAME: "", NAMESPACE: "far"}, None, id="8 only the other not empty"),
    ],
)
@pytest.mark.parametrize("class_", [None, naming()], ids=["class gone, d13-4", "class names another"])
def test_annotations_decide_alone(
    annotations: dict[str, str], reference: SecretReference | None, class_: k8s.StorageClass | None
) -> None:
    assert found(annotations, class_) == DeletionSecret(reference)


@pytest.mark.parametrize(
    ("annotations", "named", "looked_up"),
    [
        pytest.param({}, "fast", "fast", id="8 spec"),
        pytest.param({BETA_CLASS: "old"}, "fast", "old", id="12 beta annotation"),
        pytest.param({BETA_CLASS: ""}, "fast", None, id="8 empty annotation: no class"),
        pytest.param({}, None, None, id="8 no class"),
        pytest.param({NAME: "s"}, "fast", "fast", id="8 one key missing"),
        pytest.param({NAMESPACE: "far"}, "fast", "fast", id="8 the other key missing"),
    ],
)
def test_which_class(annotations: dict[str, str], named: str | None, looked_up: str | None) -> None:
    expected = SecretReference(name="static", namespace="ns") if looked_up else None
    classes = {looked_up: naming()}
    pv = volume(annotations, storageClassName=named)
    assert secrets.deletion_reference(pv, classes.get, driver(), migrated=False) == DeletionSecret(expected)


@pytest.mark.parametrize("role", ["provisioner-secret", "secret"], ids=["8 provisioner", "8 default"])
def test_tokens_from_the_claim_reference_d13_15(role: str) -> None:
    assert found({}, naming("${pvc.name}-${pv.name}", "${pvc.namespace}", role)).reference == SecretReference(
        name="a-pv-1", namespace="shop"
    )


@pytest.mark.parametrize(
    ("class_", "says"),
    [
        pytest.param(naming("${pvc.annotations['k']}"), r"pvc.annotations\['k'\]", id="12 annotation token"),
        pytest.param(storage_class({f"{P}provisioner-secret-name": "x"}), "without", id="12 name key only"),
        pytest.param(naming("Upper"), "DNS subdomain", id="8 no valid name"),
    ],
)
def test_template_errors(class_: k8s.StorageClass, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        found({}, class_)


def test_without_annotations_and_class_there_is_no_secret_d13_4() -> None:
    """delete.md 8."""
    assert found({}, None) == DeletionSecret(warning="StorageClass fast is gone: deleting volume pv-1 without secrets")


@pytest.mark.parametrize("class_", [naming(), storage_class({f"{P}provisioner-secret-name": "x"})], ids=["good", "bad"])
def test_a_volume_without_claim_has_no_secret_d13_5(class_: k8s.StorageClass) -> None:
    """delete.md 12."""
    found_ = found({}, class_, claimRef=None)
    assert (found_.reference, "names no claim" in found_.warning) == (None, True)


def test_only_the_provisioner_secret_counts() -> None:
    """delete.md 8."""
    assert found({}, naming(role="node-stage-secret")) == DeletionSecret()


# ---- migrated volumes

PX, PX_IN_TREE = "pxd.portworx.com", "kubernetes.io/portworx-volume"
AUTH = {"openstorage.io/auth-secret-name": "px", "openstorage.io/auth-secret-namespace": "portworx"}


@pytest.mark.parametrize(
    ("migrated", "provisioner", "reference"),
    [
        pytest.param(
            True, PX_IN_TREE, SecretReference(name="px", namespace="portworx"), id="d13-3 in-tree class translated"
        ),
        pytest.param(False, PX_IN_TREE, None, id="8 not for a volume that is CSI already"),
        pytest.param(True, PX, None, id="8 not for a class of the driver itself"),
    ],
)
def test_class_translation(migrated: bool, provisioner: str, reference: SecretReference | None) -> None:
    class_ = storage_class(AUTH, provisioner=provisioner)
    facts = driver(PX, in_tree_name=PX_IN_TREE)
    assert secrets.deletion_reference(volume({}), lambda _name: class_, facts, migrated=migrated) == DeletionSecret(
        reference
    )


@pytest.mark.parametrize(
    "claim_ref", [None, k8s.ObjectReference(name="a", namespace="shop")], ids=["no claim", "claim"]
)
def test_a_class_that_cannot_be_translated_is_refused(claim_ref: k8s.ObjectReference | None) -> None:
    """delete.md 8."""
    zones = [
        k8s.TopologySelectorTerm(
            matchLabelExpressions=[k8s.LabelSelectorRequirement(key="topology.kubernetes.io/zone", values=["a"])]
        )
    ]
    class_ = storage_class({"zone": "a"}, provisioner="kubernetes.io/aws-ebs", allowedTopologies=zones)
    facts = driver("ebs.csi.aws.com", in_tree_name="kubernetes.io/aws-ebs")
    with pytest.raises(Refusal, match="cannot translate StorageClass 'fast'"):
        secrets.deletion_reference(volume({}, claimRef=claim_ref), lambda _name: class_, facts, migrated=True)


def test_no_volume_of_the_driver_needs_its_name_here() -> None:
    """A static volume of any driver name gets its secret by the same rules (delete.md 7, last remark)."""
    pv = volume({NAME: "s", NAMESPACE: "far"}, csi=k8s.CSIVolumeSource(driver="other", volumeHandle="h"))
    assert secrets.deletion_reference(pv, lambda _name: None, driver(DRIVER), migrated=False).reference is not None
