"""The accessibility requirement of a claim (topology.md 4 to 9): where its volume may and should be.

The mode follows the selected node alone, not the class's binding mode. Whether topology is active is the caller's
question (`DriverFacts.topology`). What each refusal says is in `topology_refusals`.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec
from msgspec.structs import replace

from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import NodeName
from csi_provisioner.planning import snapshot_topology, spreading, terms
from csi_provisioner.planning import topology_refusals as refusals
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.refusal import accepted
from csi_provisioner.planning.sources import Content
from csi_provisioner.planning.terms import Allowed, Keys, Term
from csi_provisioner.settings import ProvisioningSettings


class PlacementFacts(msgspec.Struct, frozen=True):
    """`in_flight`: an earlier CreateVolume may still be at work, so that the answer must not change."""

    claim: str
    selected_node: NodeName
    allowed: Allowed | None
    settings: ProvisioningSettings
    in_flight: bool = False


def facts(draft: Draft, content: Content | None, settings: ProvisioningSettings, *, in_flight: bool) -> PlacementFacts:
    allowed = accepted(draft.class_plan.allowed)
    if content is not None and content.places and not draft.selected_node:
        allowed = snapshot_topology.allowed(draft, content.places)
    return PlacementFacts(draft.claim.metadata.name, draft.selected_node, allowed, settings, in_flight)


class TopologyMemory(msgspec.Struct):
    """What earlier tries of one claim saw (section 8), so that a retry asks for the same even if a node is gone.

    The caller keeps one per claim UID, and drops it once a volume is made or surely not made. It is filled on success
    only: remembering a refused try would hide that the node is gone or was registered again. What it holds is never
    handed out.
    """

    node: str = ""
    keys: Keys = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    terms: tuple[Term, ...] = ()

    def begin(self, node: str, *, in_flight: bool) -> None:
        """Another node was chosen while nothing runs: what is known of the old one must not be used for it."""
        if node != self.node and not in_flight:
            self.node, self.keys, self.labels, self.terms = node, (), {}, ()


def requirement(
    facts: PlacementFacts, cluster: ClusterTopology, memory: TopologyMemory
) -> csi.TopologyRequirement | None:
    """What to ask for, or None for a volume that may be anywhere."""
    memory.begin(facts.selected_node, in_flight=facts.in_flight)
    # A copy: what a refused try has seen must not stay.
    seen = replace(memory)
    if facts.selected_node:
        requisite, first = _delayed(facts, cluster, seen)
    else:
        requisite, first = _immediate(facts, cluster, seen)
    memory.keys, memory.labels, memory.terms = seen.keys, seen.labels, seen.terms
    if not requisite:
        return None
    allowed = facts.allowed
    messages = list(allowed.messages if allowed and requisite is allowed.terms else cluster.messages(requisite))
    # always a rotation: drivers try the preferred terms in order, and that order is what spreads the volumes
    return csi.TopologyRequirement(requisite=messages, preferred=messages[first:] + messages[:first])


Decision = tuple[tuple[Term, ...], int]
"""The requisite terms in canonical order, and which of them comes first in the preferred ones."""


def _delayed(facts: PlacementFacts, cluster: ClusterTopology, memory: TopologyMemory) -> Decision:
    own = _selected_term(facts.selected_node, cluster, memory)
    segments = frozenset(own)
    allowed = facts.allowed
    # The class only has to allow the node. What is sent has all keys of the node, also those that the class does not
    # name.
    if facts.settings.strict_topology:
        if allowed and not any(segments.issuperset(term) for term in allowed.terms):
            raise refusals.outside_allowed(facts.selected_node, own, allowed.terms)
        return (own,), 0
    if allowed:
        requisite = allowed.terms
        # A class may name only some of the driver's keys: its term fits if the node has all pairs of it.
        first = next((i for i, term in enumerate(requisite) if segments.issuperset(term)), None)
    else:
        requisite = _aggregated([memory.keys], cluster, memory)
        first = _place(own, requisite)
    if first is None and requisite:
        raise refusals.nothing_fits(facts.selected_node, own, requisite, allowed is not None)
    return requisite, first or 0


def _immediate(facts: PlacementFacts, cluster: ClusterTopology, memory: TopologyMemory) -> Decision:
    if facts.allowed:
        requisite = facts.allowed.terms
    elif not facts.settings.immediate_topology:
        return (), 0
    else:
        # Nodes can have registered different keys, for instance while a new version of the driver is rolled out.
        sets = cluster.registered()
        if not sets and not memory.terms:
            raise refusals.nothing_registered(cluster)
        requisite = _aggregated(sets, cluster, memory)
    return requisite, spreading.shift(facts.claim, len(requisite)) if requisite else 0


def _selected_term(node: NodeName, cluster: ClusterTopology, memory: TopologyMemory) -> Term:
    """Step A: the node's keys and labels, remembered ones before current ones (rules C1 and C2)."""
    if not memory.keys:
        if cluster.csinode(node) is None:
            raise refusals.no_csinode(node)
        # The node is there, so that this can heal: the driver may just be restarting on it.
        if not cluster.keys(node):
            raise refusals.no_keys(node, cluster)
        memory.keys = cluster.keys(node)
    own = terms.of_labels(memory.labels, memory.keys)
    # What was remembered is asked for as long as it is complete, also when the node has other labels by now.
    if own is None:
        memory.labels = dict(cluster.labels(node) or {})
        own = terms.of_labels(memory.labels, memory.keys)
    if own is None:
        raise refusals.labels_missing(node, memory.keys, cluster)
    return own


def _place(own: Term, requisite: tuple[Term, ...]) -> int | None:
    """Where a term is among others in canonical order, which may be thousands."""
    place = bisect_left(requisite, terms.order(own), key=terms.order)
    return place if place < len(requisite) and requisite[place] == own else None


def _aggregated(sets: Sequence[Keys], cluster: ClusterTopology, memory: TopologyMemory) -> tuple[Term, ...]:
    """Section 7: the terms of all nodes that carry the keys of a set, remembered ones before current ones (rule C4)."""
    if not memory.terms:
        legal = [keys for keys in sets if all(map(terms.is_label_key, keys))]
        memory.terms = cluster.united(legal)
        if not memory.terms:
            keys = terms.normalised(chain.from_iterable(sets))
            if len(legal) < len(sets):
                raise refusals.illegal_keys([key for key in keys if not terms.is_label_key(key)], cluster.driver)
            raise refusals.no_node_carries(keys, cluster.driver)
    return memory.terms
