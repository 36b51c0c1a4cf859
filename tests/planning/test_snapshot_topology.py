"""From where a snapshot can be restored: its places and those of the class (topology.md 5)."""

from typing import Any

import msgspec
import pytest

from csi_provisioner.model.kubernetes import LabelSelectorRequirement, TopologySelectorTerm
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import snapshot_topology, topology
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.snapshot_topology import intersection
from csi_provisioner.planning.sources import Content
from tests.planning.clusters import allowed
from tests.planning.objects import SNAPSHOT, claim, draft, driver, settings, storage_class
from tests.planning.test_snapshots import check, content, restoring, snapshot

ON = settings(snapshot_topology=True)
A, B, C = {"zone": ["a"]}, {"zone": ["b"]}, {"zone": ["c"]}
Terms = list[dict[str, list[str]]]

ROWS: dict[str, tuple[Terms, Terms, Terms]] = {
    "the class says nothing": ([], [A], [A]),
    "the snapshot says nothing": ([A], [], [A]),
    "values of a common key": ([{"zone": ["a", "b"]}], [{"zone": ["b", "c"]}], [B]),
    "keys of both": ([A], [{"rack": ["r"]}], [{"rack": ["r"], "zone": ["a"]}]),
    "term by term": ([A, B], [B, C], [B]),
    "one key is enough to drop a term": ([{"zone": ["a"], "rack": ["r"]}], [{"zone": ["a"], "rack": ["s"]}], []),
    "duplicates go": ([{"zone": ["a", "b"]}, {"zone": ["b", "a"]}], [{"zone": ["a", "b"]}], [{"zone": ["a", "b"]}]),
    "nothing left": ([A], [B], []),
    "a term without keys allows all": ([{}], [A], [A]),
    "a key without values drops its term": ([{"zone": []}], [A], []),
}


@pytest.mark.parametrize(("own", "places", "expected"), ROWS.values(), ids=ROWS)
def test_intersection(own: Terms, places: Terms, expected: Terms) -> None:
    found = intersection(allowed(own), allowed(places))
    assert [
        {each.key.removeprefix("acme.test/"): each.values for each in term.matchLabelExpressions or []}
        for term in found
    ] == expected


def facts(own: Terms, places: Terms, selected: str = "") -> topology.PlacementFacts:
    annotations = {"volume.kubernetes.io/selected-node": selected} if selected else {}
    settled = draft(claim(dataSource=SNAPSHOT, annotations=annotations), storage_class(allowedTopologies=allowed(own)))
    found = Content("VolumeSnapshot", "handle", places=tuple(allowed(places)))
    return topology.facts(settled, found, ON, in_flight=False)


def test_what_both_allow_takes_the_place_of_what_the_class_allows() -> None:
    found = facts([{"zone": ["b", "c"], "rack": ["r"]}], [B, A]).allowed
    assert found is not None
    assert found.terms == ((("acme.test/rack", "r"), ("acme.test/zone", "b")),)
    assert [dict(message.segments) for message in found.messages] == [dict(found.terms[0])]


def test_a_snapshot_that_is_nowhere_where_the_class_allows_volumes_is_refused_for_good() -> None:
    with pytest.raises(Refusal) as caught:
        facts([A], [B])
    assert caught.value.state is State.FINISHED
    for fact in ("VolumeSnapshot shop/src", "StorageClass fast", "acme.test/zone=b", "acme.test/zone=a"):
        assert fact in caught.value.message


def test_a_selected_node_is_never_refused_for_the_snapshot() -> None:
    found = facts([A], [B], selected="n1").allowed
    assert found is not None
    assert found.terms == ((("acme.test/zone", "a"),),)


def test_a_class_of_an_in_tree_plugin_is_compared_as_it_is_translated() -> None:
    beta = LabelSelectorRequirement("failure-domain.beta.kubernetes.io/zone", ["a", "b"])
    own = storage_class(
        provisioner="kubernetes.io/aws-ebs", allowedTopologies=[TopologySelectorTerm(matchLabelExpressions=[beta])]
    )
    ebs = driver("ebs.csi.aws.com", in_tree_name="kubernetes.io/aws-ebs")
    here = LabelSelectorRequirement("topology.ebs.csi.aws.com/zone", ["b", "c"])
    places = (TopologySelectorTerm(matchLabelExpressions=[here]),)
    found = snapshot_topology.allowed(draft(claim(dataSource=SNAPSHOT), own, ebs, ON), places)
    assert found is not None
    assert found.terms == ((("topology.ebs.csi.aws.com/zone", "b"),),)


VALUES = [f"v{number}" for number in range(101)]


@pytest.mark.parametrize(
    ("own", "places"),
    [
        ([{"zone": [value]} for value in VALUES], [{"rack": [value]} for value in VALUES]),
        ([{"zone": VALUES}], [{"rack": VALUES}]),
    ],
    ids=["terms", "values"],
)
def test_more_places_than_a_class_may_have_are_refused_before_they_are_made(own: Terms, places: Terms) -> None:
    with pytest.raises(Refusal, match="more than 10000"):
        facts(own, places)


def test_the_places_of_a_snapshot_are_read_only_with_the_gate() -> None:
    made = content()
    made.spec.nodeAffinity = msgspec.to_builtins(allowed([A]))
    assert check(restoring(size="2Gi"), snapshot(), made).places == ()
    [place] = check(restoring(size="2Gi"), snapshot(), made, ON).places
    [expression] = place.matchLabelExpressions or []
    assert (expression.key, expression.values) == ("acme.test/zone", ["a"])
    assert check(restoring(size="2Gi"), snapshot(), content(), ON).places == ()


@pytest.mark.parametrize("form", ["here", {"required": {}}, [{"matchLabelExpressions": [{"key": 3}]}]])
def test_another_form_of_it_is_refused_with_the_gate_and_ignored_without(form: Any) -> None:
    made = content()
    made.spec.nodeAffinity = form
    assert check(restoring(size="2Gi"), snapshot(), made).places == ()
    with pytest.raises(Refusal, match="nodeAffinity of VolumeSnapshotContent content cannot be understood") as no:
        check(restoring(size="2Gi"), snapshot(), made, ON)
    assert no.value.state is State.NO_CHANGE


@pytest.mark.parametrize(
    ("places", "fits"),
    [([], True), ([A], True), ([B, {"zone": ["a", "b"]}], True), ([B], False), ([{"rack": ["r"]}], False)],
    ids=["everywhere", "its zone", "one of two", "another zone", "a key that the node has not"],
)
def test_a_failed_call_says_that_the_node_is_not_where_the_snapshot_is(places: Terms, fits: bool) -> None:
    said = snapshot_topology.remark(restoring(), allowed(places), (("acme.test/zone", "a"),))
    assert (said == "") is fits
    if not fits:
        assert said.startswith("; VolumeSnapshot shop/src is accessible only from ")
        assert "(acme.test/zone=a) is in none of these places" in said
