"""Annotations of a claim that become parameters: which, and when they are refused (provision.md 9.1)."""

import pytest

from csi_provisioner.model.outcome import State
from csi_provisioner.planning import request
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.refusal import Refusal
from tests.planning.objects import claim, draft, plan, settings, storage_class

ON = settings(claim_annotation_prefixes=("acme.test/", "backup.test/plan-"))
GIVEN = {"acme.test/tier": "gold", "backup.test/plan-a": "daily", "backup.test/other": "x", "acme.testing/x": "y"}


def drafted(given: dict[str, str], parameters: dict[str, str] | None = None) -> Draft:
    return draft(claim(annotations=given), storage_class(parameters), options=ON)


def test_annotations_under_a_prefix_become_parameters_of_that_name() -> None:
    made = plan(drafted(GIVEN, {"pool": "fast"}), ON)
    assert made.request.parameters == {"pool": "fast", "acme.test/tier": "gold", "backup.test/plan-a": "daily"}


def test_without_the_flag_none_do() -> None:
    assert plan(draft(claim(annotations=GIVEN))).request.parameters == {}


@pytest.mark.parametrize("key", ["acme.test/tier", "ACME.test/Tier"], ids=["the same", "in other letters"])
def test_what_the_class_says_cannot_be_said_by_a_claim(key: str) -> None:
    with pytest.raises(Refusal) as caught:
        request.check_parameters(drafted(GIVEN, {key: "iron"}))
    assert caught.value.state is State.FINISHED
    for fact in ("claim shop/a", "annotation 'acme.test/tier'", "StorageClass fast", f"parameter {key!r}"):
        assert fact in caught.value.message
    assert "gold" not in caught.value.message


@pytest.mark.parametrize(("length", "fits"), [(4096, True), (4097, False)])
def test_more_parameters_than_csi_allows_are_refused_where_annotations_are_among_them(length: int, fits: bool) -> None:
    own, key = {"pool": "x" * 2000}, "acme.test/note"
    given = {key: "y" * (length - len("pool" + own["pool"] + key))}
    if fits:
        plan(drafted(given, own), ON)
        plan(drafted({}, {"pool": "x" * 5000}), ON)
        return
    with pytest.raises(Refusal, match=f"have {length} bytes .* acme.test/note") as caught:
        plan(drafted(given, own), ON)
    assert caught.value.state is State.NO_CHANGE
    assert "yyy" not in caught.value.message
