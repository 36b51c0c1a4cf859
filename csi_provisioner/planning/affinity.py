"""Node affinity of volumes: made from the driver's answer (topology.md 10), matched against one node's labels
(node-deployment.md 9), read back as segments (capacity.md 10)."""

from collections.abc import Iterable, Mapping

from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import (
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    VolumeNodeAffinity,
)
from csi_provisioner.model.outcome import State
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.terms import Term


def of_answer(topologies: Iterable[csi.Topology]) -> VolumeNodeAffinity | None:
    """One term for each topology with segments, in the driver's order; an answer of only empty ones gives no term."""
    answered = list(topologies)
    # The driver says nothing about places: the volume can be used everywhere.
    if not answered:
        return None
    terms = [
        NodeSelectorTerm(
            matchExpressions=[
                NodeSelectorRequirement(key=key, operator="In", values=[value])
                for key, value in sorted(topology.segments.items())
            ]
        )
        for topology in answered
        if topology.segments
    ]
    # Without any term this is a selector that fits nowhere, and the API server refuses the volume. To leave it out
    # would say that the volume is everywhere.
    return VolumeNodeAffinity(required=NodeSelector(nodeSelectorTerms=terms))


def segments(affinity: VolumeNodeAffinity) -> list[Term]:
    """Terms with exactly one value for each key. The others name no single segment and are left out."""
    required = affinity.required
    found = (_segment(term) for term in required.nodeSelectorTerms) if required else ()
    return [segment for segment in found if segment is not None]


def matches(selector: NodeSelector, labels: Mapping[str, str]) -> bool:
    """Does any term match? A malformed one is skipped, but then "none matches" is no answer and is refused."""
    malformed = None
    for term in selector.nodeSelectorTerms:
        expressions = term.matchExpressions or []
        held = [_holds(expression, labels) for expression in expressions]
        if None in held:
            malformed = expressions[held.index(None)]
        # There is no node object to hold matchFields against: a term of fields alone matches. An empty term does not.
        elif all(held) and (expressions or term.matchFields):
            return True
    if malformed is not None:
        text = f"{malformed.key} {malformed.operator} {malformed.values or []} is no valid expression"
        raise Refusal(State.FINISHED, f"cannot tell whether the node affinity matches this node: {text}")
    return False


def _segment(term: NodeSelectorTerm) -> Term | None:
    pairs = [
        (expression.key, expression.values[0])
        for expression in term.matchExpressions or []
        if expression.operator == "In" and expression.values and len(expression.values) == 1
    ]
    whole = not term.matchFields and len(pairs) == len(term.matchExpressions or [])
    return tuple(sorted(pairs)) if whole else None


def _holds(expression: NodeSelectorRequirement, labels: Mapping[str, str]) -> bool | None:
    """None: the expression is malformed."""
    key, operator, values = expression.key, expression.operator, expression.values or []
    # As Kubernetes holds node selectors against labels: a label that is missing is in no list, so NotIn is met by it.
    match operator:
        case "In" if values:
            return labels.get(key) in values
        case "NotIn" if values:
            return labels.get(key) not in values
        case "Exists" if not values:
            return key in labels
        case "DoesNotExist" if not values:
            return key not in labels
        case "Gt" | "Lt" if len(values) == 1 and (bound := _number(values[0])) is not None:
            # A label that is no number is not met; a bound that is none makes the expression malformed.
            label = _number(labels.get(key, ""))
            return label is not None and (label > bound if operator == "Gt" else label < bound)
    return None


def _number(text: str) -> int | None:
    digits = text[1:] if text[:1] in ("+", "-") else text
    return int(text) if digits.isascii() and digits.isdigit() else None
