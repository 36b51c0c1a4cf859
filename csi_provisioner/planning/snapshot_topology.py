"""From where a snapshot can be restored (KEP-5943; topology.md 5, gate VolumeSnapshotTopology).

Its VolumeSnapshotContent names places in the form of allowedTopologies. Without a selected node a volume is only asked
for where both the class and the snapshot allow it. With one the scheduler has decided, and the driver says whether that
works: then people are told what the snapshot would have allowed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from csi_provisioner.model.kubernetes import LabelSelectorRequirement, TopologySelectorTerm
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import terms
from csi_provisioner.planning import topology_refusals as refusals
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.refusal import Refusal, some
from csi_provisioner.planning.terms import Allowed, Term

Places = Sequence[TopologySelectorTerm]


def read(affinity: Any) -> tuple[TopologySelectorTerm, ...]:
    """Of a content's `nodeAffinity`; ValueError if it has another form."""
    return msgspec.convert(affinity or (), tuple[TopologySelectorTerm, ...])


def allowed(draft: Draft, places: Places) -> Allowed | None:
    """What of the class's allowedTopologies the snapshot is accessible from, in their place."""
    own = draft.class_plan.effective.allowedTopologies or ()
    # As many terms at most as a class may have, counted before any is made.
    if len(own) * len(places) > terms.MOST or terms.too_many(found := intersection(own, places)):
        raise refusals.too_many_terms(draft.class_plan.original.metadata.name)
    if not found:
        raise Refusal(
            State.FINISHED,
            f"{draft.source} cannot be restored where StorageClass {draft.class_plan.original.metadata.name} allows "
            f"volumes: the snapshot is accessible from {_text(places)}, and the class's allowedTopologies are "
            f"{_text(own)}; use a class that allows one of the snapshot's places",
        )
    return terms.read(found)


def intersection(one: Places, other: Places) -> list[TopologySelectorTerm]:
    """Term by term: the keys of both, of common keys the values that both have."""
    if not one or not other:
        return list(one or other)
    found = {_merged(left, right): None for left in one for right in other}
    return [
        TopologySelectorTerm([LabelSelectorRequirement(key, list(values)) for key, values in term])
        for term in found
        if all(values for _, values in term)
    ]


def _merged(*both: TopologySelectorTerm) -> tuple[tuple[str, tuple[str, ...]], ...]:
    values: dict[str, set[str]] = {}
    for expression in (each for term in both for each in term.matchLabelExpressions or ()):
        values.setdefault(expression.key, set(expression.values)).intersection_update(expression.values)
    return tuple((key, tuple(sorted(found))) for key, found in sorted(values.items()))


def remark(draft: Draft, places: Places, own: Term) -> str:
    """What is said of a failed call for a claim with a selected node, if that node is in none of the places."""
    segments = dict(own)
    if not places or any(_fits(place, segments) for place in places):
        return ""
    return (
        f"; {draft.source} is accessible only from {_text(places)}, and selected node {draft.selected_node} "
        f"({terms.text(own)}) is in none of these places"
    )


def _fits(place: TopologySelectorTerm, segments: Mapping[str, str]) -> bool:
    return all(segments.get(each.key) in each.values for each in place.matchLabelExpressions or ())


def _text(places: Places) -> str:
    return some([" and ".join(f"{key}={'|'.join(values)}" for key, values in _merged(each)) for each in places])
