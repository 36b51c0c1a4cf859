"""What a claim's way tells the volume journal: before the driver is asked, and when the volume's end is certain.

Design.md 6. Without a journal nothing is kept, and all of this says nothing.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import msgspec

from csi_provisioner.csi import wire
from csi_provisioner.kube.store import Store
from csi_provisioner.model import csi, kubernetes
from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from csi_provisioner.model.outcome import Attempt, State
from csi_provisioner.planning import claim_annotations, entries, gate, naming, verdict
from csi_provisioner.planning.refusal import Refusal, not_ours
from csi_provisioner.planning.request import Plan
from csi_provisioner.settings import ProvisioningSettings
from csi_provisioner.traces import traces
from csi_provisioner.work.workers import Workers

from .memory import ClaimMemory
from .writer import JournalWriter


class Intents(msgspec.Struct, eq=False):
    journal: JournalWriter | None
    settings: ProvisioningSettings
    claims: Store[PersistentVolumeClaim]
    memory: ClaimMemory
    workers: Workers
    _moved: set[str] = msgspec.field(default_factory=set)  # found ones that were refused since: another place may do

    @asynccontextmanager
    async def declared(self, plan: Plan, attempt: Attempt) -> AsyncIterator[Plan]:
        """Inside, the driver may be asked, for the plan that is given: it stands in the journal, so that a crash leaves
        no volume of which nobody knows, and the task has a worker, which it had not while it waited.

        Raises Refusal where the claim was deleted, bound or given another node meanwhile.
        """
        journal, name, claim = self.journal, plan.draft.name, plan.draft.claim.metadata
        worker = self.workers.call(attempt.lane, claim.namespace or "", attempt.since)
        if journal is None:
            async with worker:
                self._check_wanted(plan)
                yield plan
            return
        plan = self._as_before(plan)
        bare = replace(plan.request, secrets={}) if plan.request.secrets else plan.request
        entry = entries.of_plan(plan, wire.encode(bare), when=0, uncertain=False)
        async with AsyncExitStack() as stack:
            try:
                with traces.span("journal", name):
                    await journal.enter(name, entry)
                with traces.span("wait for a worker"):
                    await stack.enter_async_context(worker)
                await journal.enter(name, entry)  # long ago by now, perhaps: then the term is looked at again
                self._check_wanted(plan)
            except BaseException:
                journal.drop(name)
                raise
            journal.begin(name)
            yield plan

    def _check_wanted(self, plan: Plan) -> None:
        uid = plan.draft.claim.metadata.uid
        if self.memory.of(uid).asked is not None:
            return  # what was asked for once is asked for to its end
        claim = self.claims.by_uid(uid)
        if claim is None and not self.claims.knows(kubernetes.key(plan.draft.claim), uid):
            raise not_ours("it was deleted before the driver was asked")
        if claim is None or claim.spec.volumeName or gate.selected_node(claim) != plan.draft.selected_node:
            raise not_ours("it was bound, or given another node, before the driver was asked")

    def _as_before(self, plan: Plan) -> Plan:
        """A call of an earlier leader may still be at work: the same place is asked for again."""
        assert self.journal is not None
        name = plan.draft.name
        found = self.journal.inherited.get(name)
        if found is None or name in self._moved:
            return plan
        place = wire.decode(found.request, csi.CreateVolumeRequest).accessibility_requirements
        request = replace(plan.request, accessibility_requirements=place)
        return msgspec.structs.replace(plan, request=request)

    def taken(self, uid: str) -> Mapping[str, str] | None:
        """The claim's annotations with which an earlier call asked that may still be at work."""
        record, name = self.memory.of(uid), self.name(uid)
        found = self.journal.inherited.get(name) if self.journal is not None and name not in self._moved else None
        if record.asked is not None or found is None or not self.settings.claim_annotation_prefixes:
            return record.annotations
        before = wire.decode(found.request, csi.CreateVolumeRequest).parameters
        return claim_annotations.under(self.settings.claim_annotation_prefixes, before)

    def answered(self, uid: str, code: int | None) -> None:
        """The call failed. A final answer is the volume's end, unless an earlier call may have made it."""
        name, journal = self.name(uid), self.journal
        if journal is None:
            return
        if verdict.state_of(code, topology_active=False, selected_node="") is State.IN_BACKGROUND:
            journal.doubt(name)
            return
        self._moved.add(name)
        if code in verdict.NEVER_CERTAIN:
            journal.doubt(name)
        elif journal.is_certain(name):
            self.over(name)

    def cut(self, uid: str) -> None:
        """The try was cancelled, perhaps within the call."""
        if self.journal is not None:
            self.journal.doubt(self.name(uid))

    def over(self, name: str) -> None:
        """The PersistentVolume is there, or the volume certainly is not."""
        self._moved.discard(name)
        if self.journal is not None:
            self.journal.leave(name)

    def hand_over(self, uid: str) -> bool:
        """The claim is worked on no more: recovery looks after a volume that may be there. False: there is no entry."""
        if self.journal is None or self.memory.of(uid).unsaved is not None:
            return False
        return self.journal.hand_over(self.name(uid))

    def keeps(self, uid: str) -> bool:
        """Is there an entry of the claim's volume whose end is not certain yet?"""
        name, journal = self.name(uid), self.journal
        return journal is not None and (name in journal.begun or name in journal.inherited)

    def holds(self, uid: str) -> bool:
        """Does the next leader know of the volume?"""
        return self.journal is not None and self.journal.holds(self.name(uid))

    def name(self, uid: str) -> str:
        """Of the claim's volume; "" where these flags make none."""
        try:
            return naming.volume_name(uid, self.settings)
        except Refusal:
            return ""  # said in an event when it is asked for again
