"""provision.md 4, 5 and 7.1: whether a claim is ours now."""

import pytest

from csi_provisioner.model.kubernetes import PersistentVolumeClaim, StorageClass
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import gate
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from tests.planning.objects import DRIVER, claim, driver, storage_class

GA, BETA = "volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"
MIGRATED = "pv.kubernetes.io/migrated-to"
NODE, ALPHA_NODE = "volume.kubernetes.io/selected-node", "volume.alpha.kubernetes.io/selected-node"
BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
IN_TREE = "kubernetes.io/acme"
PROVISION, LEAVE, REFUSE = "provision", "leave", "refuse"


def decided(it: PersistentVolumeClaim, class_: StorageClass | None, facts: DriverFacts) -> str:
    try:
        assert gate.decide(it, class_, facts) is class_
    except Refusal as refusal:
        return LEAVE if refusal.ignored else REFUSE
    return PROVISION


@pytest.mark.parametrize(
    ("annotations", "chosen", "ours"),
    [
        pytest.param({GA: DRIVER}, DRIVER, True, id="4-2 GA key, p19-engine-12"),
        pytest.param({BETA: DRIVER}, DRIVER, True, id="4-2 beta key, p19-engine-12"),
        pytest.param({GA: "", BETA: DRIVER}, "", False, id="4-2 an empty GA key hides the beta one"),
        pytest.param({GA: "other", BETA: DRIVER}, "other", False, id="4-2 GA first"),
        pytest.param({}, None, False, id="4-4 not annotated"),
        pytest.param({GA: IN_TREE}, IN_TREE, False, id="p19-migration-1 in-tree, not migrated"),
        pytest.param({GA: IN_TREE, MIGRATED: "other"}, IN_TREE, False, id="16 migrated to another driver"),
        pytest.param({GA: IN_TREE, MIGRATED: DRIVER}, IN_TREE, True, id="p19-migration-1 migrated to us"),
        pytest.param({MIGRATED: DRIVER}, None, True, id="4 migrated-to alone passes row 2"),
    ],
)
def test_annotations_say_whose_a_claim_is(annotations: dict[str, str], chosen: str | None, ours: bool) -> None:
    """provision.md 4."""
    facts, it = driver(in_tree_name=IN_TREE), claim(annotations=annotations)
    assert gate.provisioner_of(it) == chosen
    assert gate.concerns(it, facts) is ours


def test_a_bound_claim_is_done() -> None:
    """provision.md 4."""
    assert not gate.concerns(claim(volumeName="pv-1"), driver())


@pytest.mark.parametrize(
    ("annotations", "class_", "verdict"),
    [
        pytest.param({GA: DRIVER}, storage_class(), PROVISION, id="4-8"),
        pytest.param({MIGRATED: DRIVER}, storage_class(), LEAVE, id="4-4 no provisioner annotation"),
        pytest.param({GA: "other", MIGRATED: DRIVER}, storage_class(), LEAVE, id="4-5 unknown provisioner"),
        pytest.param({GA: IN_TREE, MIGRATED: DRIVER}, storage_class(), PROVISION, id="4-5 in-tree name"),
        pytest.param({GA: DRIVER}, None, REFUSE, id="4-6 class missing"),
        pytest.param({GA: "other", MIGRATED: DRIVER}, None, LEAVE, id="4-5 before 4-6"),
        pytest.param({GA: DRIVER}, storage_class(volumeBindingMode="Immediate"), PROVISION, id="4-7 immediate"),
    ],
)
def test_class_and_binding_decide_what_becomes_of_a_claim(
    annotations: dict[str, str], class_: StorageClass | None, verdict: str
) -> None:
    """provision.md 4."""
    assert decided(claim(annotations=annotations), class_, driver(in_tree_name=IN_TREE)) == verdict


@pytest.mark.parametrize(
    ("nodes", "verdict"),
    [
        pytest.param({}, LEAVE, id="4-7 no node"),
        pytest.param({NODE: ""}, LEAVE, id="4-7 empty node"),
        pytest.param({ALPHA_NODE: "n1"}, LEAVE, id="4-7 the alpha key does not count"),
        pytest.param({NODE: "n1"}, PROVISION, id="4-7 node selected"),
    ],
)
def test_late_binding_waits_for_a_selected_node(nodes: dict[str, str], verdict: str) -> None:
    """provision.md 4."""
    late = storage_class(volumeBindingMode="WaitForFirstConsumer")
    assert decided(claim(annotations={GA: DRIVER} | nodes), late, driver()) == verdict


@pytest.mark.parametrize(
    ("nodes", "selected", "scheduler"),
    [
        pytest.param({}, "", None, id="5-6 none"),
        pytest.param({NODE: "n1", ALPHA_NODE: "n2"}, "n1", "n1", id="5-6 first key wins"),
        pytest.param({NODE: "", ALPHA_NODE: "n2"}, "", "", id="5-6 presence decides"),
        pytest.param({ALPHA_NODE: "n2"}, "n2", None, id="5-6 alpha"),
    ],
)
def test_selected_node(nodes: dict[str, str], selected: str, scheduler: str | None) -> None:
    assert gate.selected_node(claim(annotations=nodes)) == selected
    assert gate.scheduler_node(claim(annotations=nodes)) == scheduler


@pytest.mark.parametrize(
    ("annotations", "named", "name"),
    [
        pytest.param({}, "fast", "fast", id="claim class: spec"),
        pytest.param({BETA_CLASS: "old"}, "fast", "old", id="claim class: annotation first"),
        pytest.param({BETA_CLASS: ""}, "fast", "", id="claim class: even when empty"),
        pytest.param({}, None, "", id="claim class: none"),
    ],
)
def test_claim_class(annotations: dict[str, str], named: str | None, name: str) -> None:
    assert gate.claim_class(claim(annotations=annotations, storageClassName=named)) == name


def test_a_class_that_is_missing_is_named_and_changes_nothing() -> None:
    """provision.md 4."""
    with pytest.raises(Refusal, match=r"'fast' of claim shop/a does not exist") as refused:
        gate.decide(claim(), None, driver())
    assert refused.value.state is State.NO_CHANGE


def test_a_claim_whose_class_is_anothers_meanwhile_is_ignored() -> None:
    """provision.md 5.5."""
    with pytest.raises(Refusal, match=r"'fast' is now of provisioner 'other'") as refused:
        gate.check_class(storage_class(provisioner="other"), driver(in_tree_name=IN_TREE))
    assert refused.value.ignored
    for ours in (DRIVER, IN_TREE):
        gate.check_class(storage_class(provisioner=ours), driver(in_tree_name=IN_TREE))


def test_a_claim_being_deleted_is_still_ours() -> None:
    """provision.md 18, quirk Q14."""
    it = claim()
    it.metadata.deletionTimestamp = "2024-01-01T00:00:00Z"
    it.status.phase = "Lost"
    assert gate.concerns(it, driver())
    assert decided(it, storage_class(), driver()) == PROVISION
