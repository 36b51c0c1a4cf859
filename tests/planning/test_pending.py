"""The closed set of steps: why a claim waits, and at which step a try ends."""

from typing import Any

import pytest

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.outcome import Retry, RetryAt, State, after
from csi_provisioner.planning import classes, pending, request, steps
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal

from .objects import CLONE, claim, driver, settings, storage_class

LATE = storage_class(volumeBindingMode="WaitForFirstConsumer")


@pytest.mark.parametrize(
    ("reason", "found", "class_", "known"),
    [
        (None, claim(volumeName="pvc-1"), storage_class(), {}),
        (None, claim(annotations={}), storage_class(), {}),
        ("class", claim(), None, {}),
        ("class", claim(), storage_class(provisioner="other"), {}),
        ("node", claim(), LATE, {}),
        ("node", claim(), LATE, {"ready": False}),
        ("driver", claim(), storage_class(), {"ready": False, "failed": "source"}),
        ("source", claim(), storage_class(), {"failed": "source"}),
        ("call", claim(), storage_class(), {"calling": True, "failed": "source"}),
        ("queue", claim(), storage_class(), {}),
        ("save", claim(), None, {"unsaved": True}),
        ("bind", claim(), storage_class(), {"written": True, "calling": True}),
    ],
)
def test_a_claim_waits_for_one_reason(
    reason: str | None, found: k8s.PersistentVolumeClaim, class_: k8s.StorageClass | None, known: dict[str, Any]
) -> None:
    assert pending.reason(found, class_, driver(), **known) == reason
    assert reason is None or reason in steps.REASONS


@pytest.mark.parametrize(
    ("step", "spec", "parameters", "facts"),
    [
        ("claim", {"selector": {}}, {}, driver()),
        ("claim", {"modes": ("ReadWriteSometimes",)}, {}, driver()),
        ("claim", {"size": "9Ei"}, {}, driver()),
        ("parameters", {}, {"fstype": "xfs", "csi.storage.k8s.io/fstype": "ext4"}, driver()),
        ("driver", {"dataSource": CLONE}, {}, driver(controller=frozenset({"CREATE_DELETE_VOLUME"}))),
        ("source", {"dataSource": k8s.TypedReference(kind="Well", name="deep")}, {}, driver()),
        ("attributes", {"volumeAttributesClassName": "A"}, {}, driver()),
    ],
)
def test_a_refusal_says_at_which_step(
    step: str, spec: dict[str, Any], parameters: dict[str, str], facts: DriverFacts
) -> None:
    plan = classes.read(storage_class(parameters), facts)
    with pytest.raises(Refusal) as refused, steps.at(steps.CLAIM):
        request.draft(claim(**spec), plan, facts, settings())
    assert refused.value.step == step


def test_the_outcome_of_a_try_keeps_its_step() -> None:
    refusal = Refusal(State.NO_CHANGE, "no", step=steps.SECRET)
    outcomes = [after(refusal), after(refusal, due=5.0)]
    assert [type(outcome) for outcome in outcomes] == [Retry, RetryAt]
    assert [outcome.step for outcome in outcomes if isinstance(outcome, Retry | RetryAt)] == ["secret", "secret"]
