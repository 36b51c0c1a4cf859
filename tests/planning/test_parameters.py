"""provision.md 8.5 and 8.9: what of a class's parameters the driver gets, and the class read once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.model.kubernetes import LabelSelectorRequirement, TopologySelectorTerm
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import classes, parameters, templates
from csi_provisioner.planning.refusal import Refusal
from tests.planning.objects import DRIVER, claim, driver, storage_class

P = "csi.storage.k8s.io/"


@pytest.mark.parametrize(
    ("given_", "fstype"),
    [
        pytest.param({"fstype": "xfs"}, "xfs", id="16 vector deprecated key"),
        pytest.param({f"{P}fstype": "xfs"}, "xfs", id="16 vector prefixed key"),
        pytest.param({"fsType": "ext2"}, "ext2", id="8.5 any case"),
        pytest.param({"FSTYPE": "ext4"}, "ext4", id="8.5 capitals"),
        pytest.param({f"{P}fstype": ""}, "", id="8.5 empty"),
        pytest.param({}, "", id="p19-request-7 no built-in default"),
        pytest.param({f"{P.upper()}fstype": "xfs"}, "", id="8.5 the prefixed key is exact"),
    ],
)
def test_fstype(given_: dict[str, str], fstype: str) -> None:
    assert parameters.fstype("fast", given_) == fstype


@pytest.mark.parametrize(
    "given_",
    [
        pytest.param({"fstype": "xfs", f"{P}fstype": "xfs"}, id="16 vector both keys"),
        pytest.param({"fstype": "xfs", "fsType": "xfs"}, id="8.5 two spellings"),
        pytest.param({"fstype": "", "fsType": ""}, id="8.5 even when empty"),
    ],
)
def test_fstype_given_twice(given_: dict[str, str]) -> None:
    found = parameters.fstype("fast", given_)
    assert isinstance(found, Refusal)
    assert found.state is State.FINISHED
    assert all(key in found.message for key in given_)


@pytest.mark.parametrize(
    "role", [templates.DEFAULT, *templates.ROLES], ids=lambda role: f"p19-request-3 {role.purpose}"
)
def test_reserved_keys_are_stripped(role: templates.Role) -> None:
    """provision.md 8.9."""
    given_ = {f"{P}{role.key}-name": "n", f"{P}{role.key}-namespace": "ns", f"{P}fstype": "xfs", "keep": "me"}
    assert parameters.for_driver("fast", given_) == {"keep": "me"}


def test_deprecated_keys_are_passed_on() -> None:
    """provision.md 8.9."""
    given_ = dict.fromkeys(templates.DEPRECATED_KEYS, "x") | {"fsType": "xfs"}
    assert len(given_) == 9
    assert parameters.for_driver("fast", given_) == given_
    assert len(parameters.warnings("fast", given_)) == 9


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(f"{P}nonsense", id="8.9 unknown"),
        pytest.param(f"{P}resizer-secret-name", id="p19-request-4 alpha key refused"),
        pytest.param(f"{P}pvc/name", id="8.9 metadata key"),
        pytest.param(f"{P}pv/name", id="8.9 metadata key of the volume"),
        pytest.param(f"{P}FSTYPE", id="8.9 wrong case under the prefix"),
        pytest.param(P, id="8.9 the bare prefix"),
    ],
)
def test_unknown_reserved_keys_are_refused(key: str) -> None:
    """provision.md 8.9."""
    found = parameters.for_driver("fast", {key: "x", "ok": "1"})
    assert isinstance(found, Refusal)
    assert found.state is State.FINISHED
    assert key in found.message


def test_look_alikes_are_passed_on() -> None:
    """provision.md 8.9."""
    given_ = {"CSI.storage.k8s.io/fstype": "xfs", "v": f"{P}fstype", "empty": "", "other.storage.k8s.io/fstype": "z"}
    assert parameters.for_driver("fast", given_) == given_


@given(st.dictionaries(st.sampled_from([f"{P}fstype", f"{P}x", "fstype", "FsType", "a", "b"]) | st.text(), st.text()))
def test_any_parameters(given_: dict[str, str]) -> None:
    before = dict(given_)
    plan = classes.read(storage_class(given_), driver())
    assert given_ == before
    if isinstance(plan.parameters, Refusal):
        assert any(key.startswith(P) for key in given_)
    else:
        assert plan.parameters == {key: value for key, value in given_.items() if not key.startswith(P)}


def test_names_of_claim_and_volume_become_parameters() -> None:
    """provision.md 8.19."""
    assert parameters.metadata(claim("data"), "vol-1") == {
        f"{P}pvc/name": "data",
        f"{P}pvc/namespace": "shop",
        f"{P}pv/name": "vol-1",
    }


# ---- classes of in-tree plugins (14)

EBS, EBS_IN_TREE = "ebs.csi.aws.com", "kubernetes.io/aws-ebs"


def test_an_in_tree_class_is_translated() -> None:
    """provision.md 8, step 3."""
    original = storage_class({"fsType": "xfs", "type": "gp3"}, provisioner=EBS_IN_TREE)
    plan = classes.read(original, driver(EBS, in_tree_name=EBS_IN_TREE))
    assert (plan.migrated, plan.fstype, plan.parameters) == (True, "xfs", {"type": "gp3"})
    assert plan.original is original
    assert plan.effective.provisioner == EBS_IN_TREE
    assert plan.warnings == ()


def test_parameters_that_are_dropped_are_told() -> None:
    """provision.md 14.2."""
    given_ = {"diskFormat": "thin", "fsType": "xfs", "unknownThing": "x"}
    plan = classes.read(
        storage_class(given_, provisioner="kubernetes.io/vsphere-volume"),
        driver("csi.vsphere.vmware.com", in_tree_name="kubernetes.io/vsphere-volume"),
    )
    assert plan.parameters == {"diskformat-migrationparam": "thin", "csimigration": "true"}
    [warning] = plan.warnings
    for fact in ("StorageClass 'fast'", "'unknownThing'", "csi.vsphere.vmware.com"):
        assert fact in warning


def test_a_class_of_the_driver_itself_is_not_translated() -> None:
    """provision.md 16."""
    own = storage_class({"fsType": "xfs"}, provisioner=EBS)
    plan = classes.read(own, driver(EBS, in_tree_name=EBS_IN_TREE))
    assert (plan.migrated, plan.effective is own, plan.parameters) == (False, True, {"fsType": "xfs"})
    assert plan.warnings == (
        "StorageClass 'fast' uses the deprecated parameter 'fsType'; use its form under csi.storage.k8s.io/",
    )


def test_a_class_that_cannot_be_translated_is_refused() -> None:
    """provision.md 8, step 3."""
    term = TopologySelectorTerm(
        matchLabelExpressions=[LabelSelectorRequirement(key="topology.kubernetes.io/zone", values=["b"])]
    )
    both = storage_class({"zone": "a"}, provisioner=EBS_IN_TREE, allowedTopologies=[term])
    plan = classes.read(both, driver(EBS, in_tree_name=EBS_IN_TREE))
    assert plan.translation is not None
    assert plan.translation.state is State.FINISHED
    assert EBS_IN_TREE in plan.translation.message


def test_p19_migration_5_portworx_auth_secret_is_for_all_roles_but_modify() -> None:
    pairs = {"openstorage.io/auth-secret-name": "px", "openstorage.io/auth-secret-namespace": "portworx"}
    px = storage_class(pairs, provisioner="kubernetes.io/portworx-volume")
    plan = classes.read(px, driver("pxd.portworx.com", in_tree_name="kubernetes.io/portworx-volume"))
    assert set(plan.secrets) == set(templates.ROLES) - {templates.CONTROLLER_MODIFY}


def test_driver_facts() -> None:
    facts = driver(in_tree_name="kubernetes.io/acme")
    assert facts.answers_to(DRIVER)
    assert facts.answers_to("kubernetes.io/acme")
    assert not driver().answers_to("kubernetes.io/acme")
    assert not driver().answers_to(None)
    assert not driver().answers_to("")
