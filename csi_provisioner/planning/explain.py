"""Who has to act next for a claim, and why: facts in, steps out (design.md 8).

Nothing is decided here: the gate and the stages of provision.md 8 are asked in their order, as by the daemon, and each
answer becomes a step. What comes after them is in `outlook`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from csi_provisioner.model import csi, kubernetes
from csi_provisioner.model.kubernetes import (
    CSINode,
    Event,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    ReferenceGrant,
    Secret,
    StorageClass,
    VolumeAttributesClass,
    VolumeSnapshot,
    VolumeSnapshotContent,
)
from csi_provisioner.model.secret import SecretData
from csi_provisioner.planning import (
    attributes_class,
    classes,
    consumers,
    existing,
    fixes,
    gate,
    outlook,
    request,
    secrets,
    sources,
    steps,
    templates,
    topology,
)
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.draft import DataSource, Draft
from csi_provisioner.planning.explanation import Explanation, Facts, NeedError, Status, Step, Unread
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.request import Plan
from csi_provisioner.planning.sources import Content
from csi_provisioner.planning.steps import at
from csi_provisioner.planning.topology import TopologyMemory
from csi_provisioner.planning.wellknown import SNAPSHOT_KIND

NEEDED = frozenset({"CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS", "CREATE_DELETE_VOLUME",
                    "CREATE_DELETE_SNAPSHOT", "CLONE_VOLUME", "MODIFY_VOLUME", "SINGLE_NODE_MULTI_WRITER"})  # fmt: skip
"""Capabilities of which a claim can make use."""


def explain(facts: Facts) -> Explanation:
    """The steps, or what has to be read first. Called again with that it goes further."""
    way = _Way(facts)
    try:
        way.go()
    except NeedError as need:
        return Explanation(way.steps, need.read)
    return Explanation(way.steps, None, way.plan, way.events)


class _UnknownError(Exception):
    """What the stage reads may not be read here, and the provisioner may well read it."""


class _Way:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._claim = facts.claim
        self.steps: list[Step] = []
        self.plan: Plan | None = None
        self.events: list[Event] = []
        self._unknown = ""  # the first step whose stage was left out

    def _say(self, step: str, status: Status, text: str, fix: str = "", who: str = "") -> None:
        self.steps.append(Step(step, status, text, fix, who))

    def go(self) -> None:
        facts = self._facts
        if not facts.dry:
            self._events()
        for step in existing.of_claim(facts):
            self.steps.append(step)
        if self._claim.spec.volumeName:
            return
        # A volume that is made is written down, whatever has become of its class.
        if saving := list(outlook.saving(facts)):
            self.steps += saving
            return
        storage_class = self._gate()
        if storage_class is None:
            return
        made = None if facts.dry else existing.volume(facts)
        if made is not None:
            self.steps.append(made)
            if made.status is Status.WAITS:
                return
        try:
            gate.check_class(storage_class, facts.driver)
            self._driver()
            self.plan = self._stages(storage_class)
        except Refusal as refusal:
            self._refused(refusal)
            if not (refusal.ignored or facts.dry):
                self.steps += outlook.tries(facts)
            return
        except _UnknownError as unknown:
            self._left_out(steps.SOURCE, unknown)
        self.steps += outlook.of(facts, self.events, self._unknown)

    def _refused(self, refusal: Refusal) -> None:
        text, fix = fixes.split(refusal)
        if refusal.ignored:
            self._say(refusal.step, Status.WAITS, text, fix, fixes.WHO.get(refusal.step, "another program"))
        else:
            self._say(refusal.step, Status.REFUSED, text, fix)

    def _events(self) -> None:
        meta = self._claim.metadata
        found = self._facts.read(Event, "", meta.namespace or "", f"involvedObject.uid={meta.uid}")
        if isinstance(found, Unread):
            self._say(steps.EVENTS, Status.NOT_KNOWN, found.why)
        else:
            self.events = sorted(found, key=lambda event: event.lastTimestamp or event.metadata.creationTimestamp or "")

    # ---- the gate

    def _gate(self) -> StorageClass | None:
        """The class to provision from. What stops a claim here is told in the order in which it can be mended."""
        facts, claim, name = self._facts, self._claim, gate.claim_class(self._claim)
        addressed = gate.concerns(claim, facts.driver)
        if not name and not addressed:
            self.steps.append(existing.without_class(facts))
            return None
        found = facts.read(StorageClass, name) if name else Unread("no class is named", missing=True)
        if isinstance(found, Unread) and not found.missing:
            self._say(steps.CLASS, Status.NOT_KNOWN, found.why)
            return None
        # The volume controller does not annotate such a claim, so that it never comes to the daemon.
        if isinstance(found, Unread):
            self._refused(gate.class_missing(claim))
            return None
        assert isinstance(found, StorageClass)
        late = found.volumeBindingMode == gate.LATE_BINDING
        self._say(steps.CLASS, Status.OK, f"{name}: provisioner {found.provisioner}, {found.volumeBindingMode}")
        if found.provisioner == existing.NO_PROVISIONER:
            self.steps[-1] = existing.static(facts, name)
            return None
        if not (addressed or facts.driver.answers_to(found.provisioner)):
            self.steps[-1] = existing.of_another(facts, found)
            return None
        if late and not gate.scheduler_node(claim):
            self.steps += consumers.steps_of(facts, found)
            return None
        if not addressed:
            self.steps.append(existing.not_addressed(facts, found))
            return None
        try:
            with at(steps.CLAIM):
                gate.decide(claim, found, facts.driver)
        except Refusal as refusal:
            self._refused(refusal)
            return None
        node = gate.selected_node(claim)
        if facts.own_node is not None and node != facts.own_node:
            self.steps.append(existing.of_another_node(facts, node))
            return None
        if node:
            self._say(steps.NODE, Status.OK, f"{node} is selected")
        return found

    def _driver(self) -> None:
        driver = self._facts.driver
        if not self._facts.asked:
            self._say(steps.DRIVER, Status.NOT_KNOWN, f"what {driver.name} can do is assumed to be all that is needed")
            return
        can = ", ".join(sorted((driver.plugin | driver.controller) & NEEDED)) or "nothing that a claim needs"
        self._say(steps.DRIVER, Status.OK, f"{driver.name}: {can}")

    # ---- the stages of provision.md 8

    def _stages(self, storage_class: StorageClass) -> Plan | None:
        """As `provision/gather` has them, without writing."""
        facts, claim = self._facts, self._claim
        with at(steps.CLAIM):
            draft = request.draft(
                claim, classes.read(storage_class, facts.driver), facts.driver, facts.settings, self._grants()
            )
            live = facts.live.claim if facts.live is not None else None
            if live is not None and live.annotations is not None:
                draft = msgspec.structs.replace(draft, annotations=live.annotations)
        with at(steps.SOURCE):
            content = self._known(steps.SOURCE, self._content, draft) if draft.source else None
        with at(steps.TOPOLOGY):
            requirement = (
                self._known(steps.TOPOLOGY, partial(self._requirement, content), draft)
                if facts.driver.topology
                else None
            )
        if storage_class.volumeBindingMode == gate.LATE_BINDING:
            self.steps += consumers.room(facts, storage_class.metadata.name)
        with at(steps.SECRET):
            data = self._known(steps.SECRET, self._secret, draft)
            references = secrets.references(draft)
            named = ((role, ref) for role, ref in references.items() if ref and role is not templates.PROVISIONER)
            if others := [f"{role.purpose}: {ref.namespace}/{ref.name}" for role, ref in named]:
                self._say(steps.SECRET, Status.OK, f"the volume will name {', '.join(others)}")
        with at(steps.PARAMETERS):
            request.check_parameters(draft)
        with at(steps.ATTRIBUTES):
            mutable = self._known(steps.ATTRIBUTES, self._mutable, draft) if draft.attributes_class else None
        with at(steps.PARAMETERS):
            plan = request.finish(draft, content, requirement, references, data, mutable, facts.settings)
        keys = ", ".join(sorted(plan.request.parameters)) or "none"
        text = f"{keys}; fs type {draft.fstype or 'as the driver likes'}; the volume is {draft.name}"
        self._say(steps.PARAMETERS, Status.OK, text)
        return None if self._unknown else plan

    def _known(self, step: str, stage: Callable[[Draft], Any], draft: Draft) -> Any:
        """None, and a step that says so, where what it needs may not be read here."""
        try:
            return stage(draft)
        except _UnknownError as unknown:
            self._left_out(step, unknown)
            return None

    def _left_out(self, step: str, unknown: _UnknownError) -> None:
        self._unknown = self._unknown or step
        self._say(step, Status.NOT_KNOWN, str(unknown))

    def _live(self, kind: type[Any], name: str, namespace: str, refused: Callable[[str], Refusal]) -> Any:
        """What the daemon reads for each try: what it cannot read, it refuses."""
        found = self._facts.read(kind, name, namespace)
        if not isinstance(found, Unread):
            return found
        if found.forbidden and not self._facts.same_account:
            raise _UnknownError(found.why)
        raise refused(found.why)

    def _grants(self) -> list[ReferenceGrant]:
        reference = self._claim.spec.dataSourceRef
        other = reference.namespace if reference is not None else None
        # Only asked for where they count: most clusters do not serve the kind.
        if not other or other == self._claim.metadata.namespace or not self._facts.settings.cross_namespace:
            return []
        found = self._facts.read(ReferenceGrant, "", other)
        if isinstance(found, Unread):
            raise _UnknownError(found.why)
        return list(found)

    def _content(self, draft: Draft) -> Content:
        assert draft.source is not None
        read = self._snapshot if draft.source.kind == SNAPSHOT_KIND else self._clone
        content = read(draft, draft.source)
        text = "; ".join([f"{draft.source}, in the storage {content.handle}", *content.warnings])
        self._say(steps.SOURCE, Status.OK, text)
        return content

    def _under_way(self) -> bool:
        known = self._facts.live.claim if self._facts.live is not None else None
        return known is not None and (known.uncertain or bool(known.unsaved))

    def _snapshot(self, draft: Draft, source: DataSource) -> Content:
        snapshot = self._live(VolumeSnapshot, source.name, source.namespace, partial(sources.source_unreadable, draft))
        name = sources.check_snapshot(draft, snapshot, under_way=self._under_way())
        content = self._live(VolumeSnapshotContent, name, "", partial(sources.content_unreadable, draft, name))
        return sources.check_content(draft, snapshot, content, self._facts.settings)

    def _clone(self, draft: Draft, source: DataSource) -> Content:
        claim = self._facts.read(PersistentVolumeClaim, source.name, source.namespace)
        if isinstance(claim, Unread):
            if not claim.missing:
                raise _UnknownError(claim.why)
            claim = None
        name = sources.check_clone_claim(draft, claim, under_way=self._under_way())
        assert claim is not None
        volume = self._live(PersistentVolume, name, "", partial(sources.clone_volume_unreadable, draft, name))
        return sources.check_clone_volume(draft, claim, volume)

    def _requirement(self, content: Content | None, draft: Draft) -> csi.TopologyRequirement | None:
        cluster = self._facts.local or self._cluster()
        asked = topology.facts(draft, content, self._facts.settings, in_flight=False)
        try:
            found = topology.requirement(asked, cluster, TopologyMemory())
        except Refusal as refusal:
            # A retry asks for what was asked for before, also when the node is gone.
            if self._under_way():
                raise _UnknownError(f"asked for as before, which only the leader knows: {refusal}") from None
            raise
        again = "; a repeated call asks for what the first one did" if self._under_way() else ""
        self._say(steps.TOPOLOGY, Status.OK, existing.places(draft, cluster, found) + again)
        return found

    def _cluster(self) -> ClusterTopology:
        nodes, csinodes = self._facts.read(Node), self._facts.read(CSINode)
        for found in (nodes, csinodes):
            if isinstance(found, Unread):
                raise _UnknownError(found.why)
        return ClusterTopology(self._facts.driver.name, nodes, csinodes)

    def _secret(self, draft: Draft) -> SecretData | None:
        reference = secrets.provisioner_reference(draft)
        if reference is None:
            return None
        unreadable = partial(secrets.unreadable, draft, reference)
        found = self._live(Secret, reference.name, reference.namespace, unreadable)
        data = secrets.decoded(found)
        keys = ", ".join(sorted(found.data or ())) or "none"
        self._say(steps.SECRET, Status.OK, f"{kubernetes.key(found)} with the keys {keys}")
        return data

    def _mutable(self, draft: Draft) -> dict[str, str]:
        name = draft.attributes_class or ""
        found = self._live(VolumeAttributesClass, name, "", partial(attributes_class.unreadable, draft))
        mutable = attributes_class.mutable_parameters(draft, found)
        self._say(steps.ATTRIBUTES, Status.OK, f"{name}: {', '.join(sorted(mutable)) or 'no parameters'}")
        return mutable
