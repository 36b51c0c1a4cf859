"""One try at one claim: the straight line of design.md 2, and what its end means (provision.md 3 to 5).

Keyed by claim UID, so that a claim made anew under its old name is another item. Works from the caches and from
`ClaimMemory`; may run at any time, twice, and after a crash at any line.
"""

from collections.abc import Callable

import msgspec
import trio

from csi_provisioner.csi.errors import CallError
from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.errors import unless_gone
from csi_provisioner.kube.events import REPEATED, EventRecorder
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model import csi, kubernetes
from csi_provisioner.model.codes import Code
from csi_provisioner.model.kubernetes import NodeName, PersistentVolume, PersistentVolumeClaim, StorageClass
from csi_provisioner.model.outcome import DONE, Attempt, Done, GiveUp, Outcome, Retry, RetryAt, State, TryError, after
from csi_provisioner.planning import gate, naming, steps, verdict, volume
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal, not_ours
from csi_provisioner.planning.request import Plan
from csi_provisioner.planning.sources import Readers
from csi_provisioner.planning.wellknown import SELECTED_NODE
from csi_provisioner.settings import ProvisioningSettings, RetrySettings

from . import release
from .create import Creator
from .gather import Gatherer
from .intents import Intents
from .memory import ClaimMemory, Infeasible
from .orphans import Orphans
from .right import RightToSave
from .save import Saver
from .waiting import Waiting, source_of

ANYWHERE = NodeName("")
# process.md 3.2: the second event source, of the few events that are not about an attempt
POPULATOR_SOURCE = "external-provisioner"

Owner = Callable[[PersistentVolumeClaim, StorageClass | None], bool]
"""Is the claim this instance's to provision? Only asked with `--node-deployment`."""

Refresh = Callable[[StorageClass, PersistentVolume | State, NodeName], None]
"""A try ended, with a volume or in this state: free capacity of the volume's segments, or of the class, may have
changed (provision.md 17). The node, if there is one, is that for which the driver had no room."""


class Rules(msgspec.Struct, frozen=True):
    """What does not change in a term. `identity`: which process made a volume (process.md 3.2)."""

    facts: DriverFacts
    identity: str
    provisioning: ProvisioningSettings
    retries: RetrySettings


class Tools(msgspec.Struct, frozen=True):
    """What a try works with, in the order in which it needs them."""

    kube: KubeClient
    gatherer: Gatherer
    intents: Intents
    creator: Creator
    saver: Saver
    memory: ClaimMemory
    orphans: Orphans
    events: EventRecorder
    metrics: Metrics
    waiting: Waiting
    right: RightToSave


class ClaimReconciler:
    def __init__(
        self,
        caches: Caches,
        rules: Rules,
        tools: Tools,
        *,
        readers: Callable[[], Readers],
        owner: Owner | None = None,
        refresh: Refresh,
    ) -> None:
        self._caches = caches
        self._rules = rules
        self._facts = rules.facts
        self._tools = tools
        self._kube = tools.kube
        self._memory = tools.memory
        self._readers = readers
        self._owner = owner
        self._refresh = refresh

    async def reconcile(self, uid: str, attempt: Attempt) -> Outcome:
        known = self._memory.of(uid)
        if known.unsaved is not None and not known.unsaved.refused:
            # The volume is made. Writing it is an item of its own, which nobody may have woken yet.
            self._tools.saver.ensure(known.unsaved.volume.metadata.name)
            return DONE
        try:
            claim = await self._claim(uid)
        except KubeError as error:
            return after(error)
        if claim is None:
            self._memory.forget(uid)
            self._tools.intents.hand_over(uid)
            return DONE
        held = known.infeasible
        if held is not None and self._holds(held, claim):
            return RetryAt(held.until, "the driver called the claim infeasible")
        try:
            storage_class = self._gate(claim)
        except Refusal as refusal:
            return self._not_now(claim, refusal)
        try:
            if await self._was_made(claim):
                return DONE
        except KubeError as error:
            return after(error)
        return await self._provision(claim, storage_class, attempt)

    # ---- whether there is anything to do

    async def _claim(self, uid: str) -> PersistentVolumeClaim | None:
        """A deleted claim is still asked for while the driver may be making its volume: else nobody would delete that.
        One of which the cache keeps no more than that it is there was bound meanwhile: its own word says to what."""
        claim, asked = self._caches.claims.by_uid(uid), self._memory.of(uid).asked
        if claim is None and asked is not None and self._knows(asked):
            with unless_gone():
                live = await self._kube.get(PersistentVolumeClaim, asked.metadata.name, asked.metadata.namespace)
                return live if live.metadata.uid == uid else asked
        return claim or asked

    def _knows(self, claim: PersistentVolumeClaim) -> bool:
        """Is it still there, for all that the cache shows?"""
        return self._caches.claims.knows(kubernetes.key(claim), claim.metadata.uid)

    def _holds(self, held: Infeasible, claim: PersistentVolumeClaim) -> bool:
        """provision.md 6: the driver refused the claim as it stands; another class is another claim to it."""
        storage_class = self._caches.storage_classes.get(gate.claim_class(claim))
        # Without its class the claim is not held: the gate says that the class is missing.
        if storage_class is None:
            return False
        if storage_class.metadata.uid == held.class_uid and held.until > trio.current_time():
            return True
        self._memory.hold_off(claim.metadata.uid, None)
        return False

    def _gate(self, claim: PersistentVolumeClaim) -> StorageClass:
        """Ours, and now? The class to provision from. Raises Refusal."""
        found = self._caches.storage_classes.get(gate.claim_class(claim))
        if not gate.concerns(claim, self._facts):
            raise not_ours("it is bound, or not for this driver")
        # Before the class is looked at (row 3): what is wrong with another node's claim is for that node to say.
        if self._owner is not None and not self._owner(claim, found):
            raise not_ours("it is another node's to provision")
        return gate.decide(claim, found, self._facts)

    def _not_now(self, claim: PersistentVolumeClaim, refusal: Refusal) -> Outcome:
        """No event: nothing was tried."""
        self._tools.waiting.see(claim.metadata.uid)
        if refusal.ignored:
            log.v(5, "Claim is not to be provisioned", PVC=claim, reason=refusal.message)
            self._end(claim, f"the claim is no longer to be provisioned: {refusal.message}")
        else:
            self._memory.refuse_before_call(claim.metadata.uid)
            self._count(claim, None)
        return after(refusal)

    def _end(self, claim: PersistentVolumeClaim, reason: str) -> None:
        """Tries end here without a volume; one that the driver may still be making will have no owner."""
        uid, name = claim.metadata.uid, self.volume_name(claim)
        uncertain = self._memory.finish(uid)
        if claim.spec.volumeName == name:
            self._tools.intents.over(name)
        elif not self._tools.intents.hand_over(uid) and uncertain:
            self.suspect(claim, reason)

    def suspect(self, claim: PersistentVolumeClaim, reason: str) -> None:
        self._tools.orphans.suspect(volume_id="", name=self.volume_name(claim), claim=claim, reason=reason)

    async def _was_made(self, claim: PersistentVolumeClaim) -> bool:
        """Is there a volume for the claim already, whatever its cached form says?"""
        if PersistentVolume.__name__ in self._caches.unsynced:
            raise KubeError(0, "InDoubt", "the cluster was restored, and its PersistentVolumes are not listed yet")
        uid = claim.metadata.uid
        written = self._memory.of(uid).written
        if written:
            # A volume that is not in its cache may be written, bound and deleted: only the API server knows by now.
            if written in self._caches.volumes or not await self._is_still_unbound(claim):
                return True
            self._memory.forget_written(uid)
        # Quirk Q4, kept: the default name counts too, whatever name the flags ask for.
        own = self.volume_name(claim)
        if any(name in self._caches.volumes for name in (naming.default_name(uid), own)):
            self._memory.finish(uid)
            self._tools.waiting.made(uid)
            if own in self._caches.volumes:
                self._tools.intents.over(own)
            self._count(claim, None)
            return True
        return False

    async def _is_still_unbound(self, claim: PersistentVolumeClaim) -> bool:
        """The volume we wrote is gone: was it bound and deleted, and the cache is late, or has the claim none?"""
        meta = claim.metadata
        with unless_gone():
            live = await self._kube.get(PersistentVolumeClaim, meta.name, meta.namespace)
            return live.metadata.uid == meta.uid and not live.spec.volumeName
        return False

    def volume_name(self, claim: PersistentVolumeClaim) -> str:
        return self._tools.intents.name(claim.metadata.uid)

    # ---- the try

    async def _provision(self, claim: PersistentVolumeClaim, storage_class: StorageClass, attempt: Attempt) -> Outcome:
        """The straight line of design.md 2. Whatever is raised on it ends the try."""
        started, asked = trio.current_time(), None
        self._tools.waiting.resume(claim.metadata.uid)
        try:
            gate.check_class(storage_class, self._facts)
            self._tools.intents.workers.check(attempt.lane)
            asking = f'Asking driver {self._facts.name} for a volume for claim "{kubernetes.key(claim)}"'
            self._tools.events.record(claim, "Normal", "Provisioning", asking, hold=attempt.number == 1)
            plan = await self._tools.gatherer.plan(claim, storage_class)
            # A volume that cannot be written down is lost, so the right to write it is looked at before the call.
            await self._tools.right.check()
            async with self._tools.intents.declared(plan, attempt) as plan:
                self._memory.ask(claim, trio.current_time(), plan.draft.annotations)
                # Until the driver says for certain that it is not, it may be at work on the volume.
                asked = plan
                with self._tools.waiting.call(claim.metadata.uid):
                    answer = await self._tools.creator.create(plan)
                    try:
                        made = verdict.judge(plan, answer)
                        pv = self._compose(plan, made)
                    except Refusal as refusal:
                        # Quirk Q2, not kept: one that cannot be written in its in-tree form is deleted again too.
                        await self._tools.creator.undo(plan, answer, refusal)
        except TryError as error:
            return await self._ended(claim, storage_class, error, attempt, asked)
        except trio.Cancelled:
            self._tools.intents.cut(claim.metadata.uid)
            raise
        await self._save(claim, pv, made.volume_id)
        self._count(claim, trio.current_time() - started)
        self._refresh(storage_class, pv, ANYWHERE)
        return DONE

    def _compose(self, plan: Plan, made: csi.Volume) -> PersistentVolume:
        log.v(3, "Volume created", volumeID=made.volume_id, bytes=made.capacity_bytes, PVC=plan.draft.claim)
        composed = volume.compose(plan, made, self._facts, self._rules.identity, self._rules.provisioning)
        return volume.to_in_tree(plan, composed)

    async def _save(self, claim: PersistentVolumeClaim, pv: PersistentVolume, volume_id: str) -> None:
        self._memory.finish(claim.metadata.uid)
        self._tools.orphans.has_owner(pv.metadata.name)
        before = self._memory.of(claim.metadata.uid).unsaved
        # From here on the volume is not lost, even if all that follows is cancelled.
        self._memory.keep_unsaved(pv, claim, volume_id)
        if before is not None and before.volume_id != volume_id and not before.ended:
            reason = f"asked again, the driver answered with {volume_id}, which may be the same volume"
            name = before.volume.metadata.name
            self._tools.orphans.suspect(volume_id=before.volume_id, name=name, claim=claim, reason=reason)
        # A snapshot that is being deleted goes with our finalizer: it has to wait until the volume is written.
        once_written = await release.snapshot(self._kube, claim)
        await self._tools.saver.save(pv)
        if self._memory.unsaved(pv.metadata.name) is not None:
            self._tools.waiting.see(claim.metadata.uid)
        elif once_written:
            await release.snapshot(self._kube, claim, self._readers().without(claim))

    # ---- what the end of a try without a volume means

    async def _ended(
        self,
        claim: PersistentVolumeClaim,
        storage_class: StorageClass,
        error: TryError,
        attempt: Attempt,
        asked: Plan | None,
    ) -> Outcome:
        """`asked`: what the driver was called with, so that the state is its own word."""
        full, remark = ANYWHERE, asked.remark if asked is not None else ""
        if isinstance(error, CallError):
            if error.code == Code.RESOURCE_EXHAUSTED:
                full = gate.selected_node(claim)
            code = None if error.not_grpc else error.code
            self._tools.intents.answered(claim.metadata.uid, code)
            error = verdict.call_failed(error, code, self._facts, gate.selected_node(claim), remark)
        error.step = error.step or (steps.CALL if asked else steps.QUEUE)
        said = f"claim {kubernetes.key(claim)}: {error}"  # the queue's key, a UID, tells people nothing
        if error.lost and attempt.excused:
            return after(error, said)  # the call is still in progress
        due = trio.current_time() + self._rules.retries.maximum if error.infeasible else None
        # Where the node cannot be taken back, the claim is tried again like any other.
        rescheduled = error.state is State.RESCHEDULE and await self._unselect_node(claim)
        outcome = after(error, said, due=due, give_up=rescheduled)
        if due is not None:
            self._memory.hold_off(claim.metadata.uid, Infeasible(due, storage_class.metadata.uid))
        self._tools.waiting.failed(claim.metadata.uid, error, outcome, attempt, asked=asked is not None)
        self._count(claim, None)
        self._refresh(storage_class, outcome.state, full)
        self._tell(claim, error, outcome, attempt)
        self._follow_up(claim, error, outcome, asked is not None)
        return outcome

    def _tell(self, claim: PersistentVolumeClaim, error: TryError, outcome: Outcome, attempt: Attempt) -> None:
        match outcome:
            case Done():
                log.v(2, "Claim is left alone", PVC=claim, reason=str(error))
                if error.event:
                    self._tools.events.record(claim, "Normal", "Provisioning", error.event, component=POPULATOR_SOURCE)
                return
            case GiveUp():
                then = "the scheduler is asked for another node"
            case RetryAt():
                slowest = self._rules.retries.maximum
                then = f"retries are slow after this: in {slowest:g} s, or once the StorageClass is made anew"
            case Retry(floor=floor):
                then = f"next try in {max(attempt.delay, floor):g} s"
        message = f"{error} (attempt {attempt.number}; {then})"
        # The line of a key that failed says the same; one that is given up has none.
        level = 0 if isinstance(outcome, GiveUp) else REPEATED
        self._tools.events.record(claim, "Warning", "ProvisioningFailed", message, error.kind, level=level)

    def _follow_up(self, claim: PersistentVolumeClaim, error: TryError, outcome: Outcome, asked: bool) -> None:
        """provision.md 3.2: whether the claim is still asked for once it is deleted."""
        uid = claim.metadata.uid
        if asked:
            # The answer was final: nothing runs in the driver any more.
            if outcome.state is not State.IN_BACKGROUND:
                self._memory.finish(uid)
                if not self._knows(claim):
                    self._tools.intents.hand_over(uid)
        elif outcome.state is State.NO_CHANGE:
            # An API server that is away refuses nobody: the claim is asked for again, and its source has to stay.
            if not error.unavailable:
                self._memory.refuse_before_call(uid)
        elif error.ignored or not self._knows(claim):
            # The driver is not asked again, so an earlier call of which it was not certain stays open for ever.
            self._end(claim, str(error))

    async def _unselect_node(self, claim: PersistentVolumeClaim) -> bool:
        """provision.md 5.1: the scheduler chooses again. The server's answer goes to the cache (Q13)."""
        if gate.scheduler_node(claim) is None:
            return False

        def edit(raw: dict[str, dict[str, dict[str, str]]]) -> bool:
            return raw["metadata"].get("annotations", {}).pop(SELECTED_NODE, None) is not None

        try:
            changed = await self._kube.update(claim, edit)
        except KubeError as error:
            log.warning("Could not ask the scheduler for another node", PVC=claim, err=error)
            return False
        if changed is not None:
            self._caches.claims.remember(changed)
        return True

    def _count(self, claim: PersistentVolumeClaim, seconds: float | None) -> None:
        """With labels of which a claim's author cannot make new ones: each is a series for ever (process.md 8.2)."""
        class_ = name if (name := claim.spec.storageClassName or "") in self._caches.storage_classes else ""
        self._tools.metrics.provision(class_, source_of(claim), seconds)
