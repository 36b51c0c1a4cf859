"""Claims of ours that have no bound volume: how many, why, since when, and what their volumes took (process.md 8.5).

One record a claim, in the leader's memory, from when the watch shows it as ours until it is bound or gone. They are
grouped as things happen, so that a scrape walks no claims. A claim is ready once it waits for nobody but us and the
driver: when it was made, and with late binding when the scheduler has chosen a node.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from heapq import nsmallest
from itertools import chain
from operator import itemgetter

import trio

from csi_provisioner.kube.caches import Caches
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import PersistentVolumeClaim, StorageClass
from csi_provisioner.model.outcome import Attempt, Outcome, Retry, RetryAt, TryError
from csi_provisioner.model.state import PendingState
from csi_provisioner.planning import gate, pending, steps
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.wellknown import CLAIM_KIND, SNAPSHOT_KIND

from .memory import ClaimMemory, Wait

# What keeps a claim from its volume whether or not the driver answers
_NOT_THE_DRIVER = (steps.CLASS, steps.NODE, steps.SAVE, steps.BIND)

# Claims of the first list that are looked at before other tasks get their turn
SEEN_AT_ONCE = 50

Group = tuple[str, str]


def _why(reason: str, *, driver_away: bool) -> str:
    return steps.DRIVER if driver_away and reason not in _NOT_THE_DRIVER else reason


class Waiting:
    """`node`: only claims for that one are ours, in a per-node deployment. `away(begin, end)`: for how many of these
    seconds the driver did not answer."""

    def __init__(
        self,
        caches: Caches,
        facts: DriverFacts,
        memory: ClaimMemory,
        metrics: Metrics,
        *,
        server_time: Callable[[], float],
        away: Callable[[float, float], float],
        node: str = "",
    ) -> None:
        self._caches = caches
        self._facts = facts
        self._memory = memory
        self._waits = memory.waits
        self._metrics = metrics
        self._server_time = server_time
        self._away = away
        self._node = node
        self._begun = False
        self._listing = (
            True  # what the first list has is not looked at yet: a node that is chosen meanwhile is no beginning either
        )
        self._shared: dict[Group, Group] = {}  # one tuple for all of a group
        self._groups: dict[Group, dict[str, float]] = {}  # UID -> when the claim was ready
        caches.claims.subscribe(self._saw_claim)
        caches.storage_classes.subscribe(self._saw_class)

    async def begin(self) -> None:
        """The caches are complete. When a node was chosen for the claims that they hold already, nobody knows. The work
        may begin meanwhile."""
        self._begun = True
        for uid in list(self._waits):  # of an earlier term
            claim = self._caches.claims.by_uid(uid)
            if claim is None or not self._is_ours(claim):
                self.see(uid)
        for count, listed in enumerate(self._caches.claims.values(), start=1):
            uid = listed.metadata.uid
            claim = self._caches.claims.by_uid(uid)
            if claim is not None and self._is_ours(claim):
                self._look(claim, self._waits.get(uid))
            if count % SEEN_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        self._listing = False
        self._metrics.keep_classes(self._caches.storage_classes.shown_keys())

    def states(self, *, driver_away: bool) -> tuple[PendingState, ...]:
        now, found = trio.current_time(), dict[Group, PendingState]()
        for (class_, reason), members in self._groups.items():
            why = _why(reason, driver_away=driver_away)
            before = found.get((class_, why), PendingState(class_, why))
            # The one walk there is, at C's speed: 2 ms for 100,000 claims.
            oldest = max(before.oldest, now - min(members.values()))
            found[class_, why] = PendingState(class_, why, before.count + len(members), oldest)
        return tuple(found.values())

    def oldest(self, count: int, *, driver_away: bool) -> Iterator[tuple[str, str, str, float]]:
        """UID, class, reason and age of so many claims that wait longest; those that are not ready come last."""
        members = chain.from_iterable(group.items() for group in self._groups.values())
        now = trio.current_time()
        for uid, ready in nsmallest(count, members, key=itemgetter(1)):
            class_, reason = self._waits[uid].group
            yield uid, class_, _why(reason, driver_away=driver_away), max(0.0, now - ready)

    # ---- what the caches show

    def _saw_claim(self, _key: str, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        if self._begun and (claim := new or old) is not None:
            self.see(claim.metadata.uid)

    def _saw_class(self, name: str, _old: StorageClass | None, new: StorageClass | None) -> None:
        if new is None:
            self._metrics.forget_class(name)
            for uid in [uid for group, members in self._groups.items() if group[0] == name for uid in members]:
                self.see(uid)

    def see(self, uid: str) -> Wait | None:
        """The claim's record, under the reason of this moment; None if it does not wait, or not for us."""
        claim, wait = self._caches.claims.by_uid(uid), self._waits.get(uid)
        if claim is not None and self._is_ours(claim):
            return self._look(claim, wait)
        # Nearly all claims of a cluster are bound, and have no record.
        if wait is None:
            return None
        if claim is not None and claim.spec.volumeName:
            if claim.status.phase != "Bound":
                self._move(uid, wait, steps.BIND)
                return wait
            # The binding may be shown before the answer to our write has come.
            if wait.written is None and self._memory.of(uid).unsaved is not None:
                return wait
            if wait.written is not None:
                self._metrics.bound_after(trio.current_time() - wait.written)
        self._take_out(uid, self._waits.pop(uid))
        return None

    def _is_ours(self, claim: PersistentVolumeClaim) -> bool:
        return gate.concerns(claim, self._facts) and self._node in ("", gate.scheduler_node(claim))

    def _look(self, claim: PersistentVolumeClaim, wait: Wait | None) -> Wait:
        uid = claim.metadata.uid
        if wait is None:
            wait = self._waits[uid] = Wait()
        found = self._class(claim)
        # Once and for all, but for a claim whose class was not there.
        if not wait.timed and (wait.ready == math.inf or not wait.group[0]):
            late, node = found is not None and found.volumeBindingMode == gate.LATE_BINDING, gate.scheduler_node(claim)
            wait.ready = trio.current_time() - (0.0 if late else self._age(claim)) if node or not late else math.inf
            wait.timed = found is not None and wait.ready < math.inf and not (late and self._listing)
        reason = pending.reason(
            claim,
            found,
            self._facts,
            calling=wait.calling,
            unsaved=self._memory.of(uid).unsaved is not None,
            written=wait.made,
            failed=wait.failed,
        )
        self._put(uid, wait, (found.metadata.name if found is not None else "", reason or steps.QUEUE))
        return wait

    def _class(self, claim: PersistentVolumeClaim) -> StorageClass | None:
        return self._caches.storage_classes.get(gate.claim_class(claim))

    def _age(self, claim: PersistentVolumeClaim) -> float:
        """By the API server's clock, which tells whole seconds."""
        created = claim.metadata.creationTimestamp
        return max(0.0, self._server_time() - datetime.fromisoformat(created).timestamp()) if created else 0.0

    def _put(self, uid: str, wait: Wait, group: Group) -> None:
        if group != wait.group:
            self._take_out(uid, wait)
            wait.group = self._shared.setdefault(group, group)
        self._groups.setdefault(group, {})[uid] = wait.ready

    def _move(self, uid: str, wait: Wait, reason: str) -> None:
        """For what happens with each claim: its class was looked at just before."""
        self._put(uid, wait, (wait.group[0], reason))

    def _take_out(self, uid: str, wait: Wait) -> None:
        members = self._groups.get(wait.group, {})
        members.pop(uid, None)
        if not members:
            self._groups.pop(wait.group, None)

    # ---- what becomes of a claim

    def resume(self, uid: str) -> None:
        """The next try begins, which ends the back-off after the last one."""
        wait = self._waits.get(uid) or self.see(uid)
        if wait is not None and wait.held is not None:
            begun, due = wait.held
            wait.held = None
            self._excuse(wait, begun, min(due, trio.current_time()))

    @contextmanager
    def call(self, uid: str) -> Iterator[None]:
        """Inside, the driver has the claim in hand."""
        begun, wait = trio.current_time(), self._waits.get(uid)
        if wait is None:
            yield
            return
        wait.calling = True
        self._move(uid, wait, steps.CALL)
        try:
            yield
        finally:
            wait.calling = False
            self._excuse(wait, begun, trio.current_time())

    def called(self, uid: str, seconds: float) -> None:
        """So long the driver was asked before the claim was ours."""
        wait = self.see(uid)
        if wait is not None:
            wait.excused += seconds

    def _excuse(self, wait: Wait, begun: float, ended: float) -> None:
        """Not our time. What the driver was away of it is left out here: all of that is taken off at the end."""
        wait.excused += ended - begun - self._away(begun, ended)

    def failed(self, uid: str, error: TryError, outcome: Outcome, attempt: Attempt, *, asked: bool) -> None:
        """`asked`: the driver's answer ended the try."""
        wait = self._waits.get(uid)
        if wait is None:
            return
        wait.failed, now = error.step, trio.current_time()
        if asked and isinstance(outcome, Retry):
            wait.held = now, now + max(attempt.delay, outcome.floor)
        elif asked and isinstance(outcome, RetryAt):
            wait.held = now, outcome.due
        self.see(uid)

    def made(self, uid: str) -> None:
        """The claim's PersistentVolume is there already."""
        wait = self._waits.get(uid)
        if wait is not None:
            wait.made = True
            self.see(uid)

    def written(self, claim: PersistentVolumeClaim) -> None:
        """The API server has taken the claim's PersistentVolume."""
        wait, found = self._waits.get(claim.metadata.uid), self._class(claim)
        if wait is None:
            return
        now = wait.written = trio.current_time()
        wait.made = True
        if wait.timed and found is not None:
            took = now - wait.ready
            overhead = max(0.0, took - wait.excused - self._away(wait.ready, now))
            binding = gate.LATE_BINDING if found.volumeBindingMode == gate.LATE_BINDING else gate.IMMEDIATE_BINDING
            self._metrics.volume_written((found.metadata.name, source_of(claim), binding), took, overhead)
            wait.timed = False  # should the volume go before it is bound, another one is no second claim
        if claim.spec.volumeName:
            self.see(claim.metadata.uid)
        else:
            self._move(claim.metadata.uid, wait, steps.BIND)


def source_of(claim: PersistentVolumeClaim) -> str:
    """As a label: a claim's author cannot make new ones (process.md 8.2)."""
    source = claim.spec.dataSource
    return source.kind if source is not None and source.kind in (CLAIM_KIND, SNAPSHOT_KIND) else ""
