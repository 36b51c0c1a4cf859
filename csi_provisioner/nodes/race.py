"""Competes for claims that any node may take (node-deployment.md 4 to 6): wait, check that they fit, take them.

The provisioners agree only through the selected-node annotation; a late one gets a conflict. A waiting claim is a due
time in this loop and occupies no worker, so thousands may wait. Each step decides on the present claim (`claiming`),
never on the one that was seen when the wait began.
"""

import random
from collections import Counter
from collections.abc import Callable

import msgspec
import trio

from csi_provisioner.csi.errors import CallError
from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.logs import log
from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import PersistentVolumeClaim, StorageClass, Uid
from csi_provisioner.model.outcome import DONE, Attempt, Outcome, RetryAt, after
from csi_provisioner.nodes import claiming
from csi_provisioner.nodes.capacity_check import CapacityCheck
from csi_provisioner.nodes.claiming import Turn
from csi_provisioner.planning import gate
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.settings import NodeSettings

QUEUE = "nodeownership"
SHORTEST_WAIT = 0.01
"""Seconds; the reference looks at the claim no more often either (node-deployment.md 5)."""


class Race(msgspec.Struct, eq=False):
    """`wake(uid, after)` schedules a try, `won(uid, seconds)` has the claim provisioned, after calls of so long."""

    settings: NodeSettings
    caches: Caches
    kube: KubeClient
    facts: DriverFacts
    check: CapacityCheck
    events: EventRecorder
    wake: Callable[[str, float], None]
    won: Callable[[str, float], None]
    _due: dict[Uid, float] = msgspec.field(default_factory=dict)
    """The claims we are in the race for, and when their wait is over."""
    # Kept when a claim does not fit here, so that this node waits longer the next time.
    _attempts: Counter[Uid] = msgspec.field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.caches.claims.subscribe(self._saw_claim)

    def owns(self, claim: PersistentVolumeClaim, storage_class: StorageClass | None) -> bool:
        """Whether this node provisions the claim. If any node may take it, this node starts to compete for it."""
        turn = claiming.decide(claim, storage_class, self.check.node, self.settings)
        if turn is Turn.OPEN and storage_class is not None:
            self._enter(claim, storage_class)
        return turn is Turn.OURS

    def _saw_claim(self, _key: str, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        """Stop waiting for a claim that has a node or is gone.

        The attempts of one that did not fit here are kept (it is not in `_due`), in case it comes back.
        """
        if new is None and old is not None:
            self._leave(old)
        elif new is not None and new.metadata.uid in self._due and gate.scheduler_node(new):
            self._leave(new)

    async def reconcile(self, uid: str, attempt: Attempt) -> Outcome:
        """The wait of a claim may be over."""
        due = self._due.get(Uid(uid))
        if due is None:
            return DONE
        # A key can be woken before its time, for instance when the driver is back.
        if due > trio.current_time():
            return RetryAt(due, "another node may take the claim first")
        claim = self.caches.claims.by_uid(uid)
        storage_class = self.caches.storage_classes.get(gate.claim_class(claim)) if claim is not None else None
        if claim is None or storage_class is None or not self._is_open(claim, storage_class):
            del self._due[Uid(uid)]
            return DONE
        try:
            has_room = await self.check.fits(claim, storage_class)
        except CallError as error:
            return after(error, f"claim {kubernetes.key(claim)}: {error}")
        if Uid(uid) not in self._due:
            return DONE  # taken or deleted during the check
        if not has_room:
            self._due.pop(Uid(uid), None)  # its attempts stay, so that other nodes are first next time
            log.v(3, "Not enough room on this node for the claim's volume", PVC=claim)
            return DONE
        return await self._take(claim, attempt)

    # ---- in and out

    def _enter(self, claim: PersistentVolumeClaim, storage_class: StorageClass) -> None:
        uid = Uid(claim.metadata.uid)
        if uid not in self._due and self.check.is_allowed(claim, storage_class):
            delay = self._draw(uid)
            log.v(4, "Will try to take the claim for this node", PVC=claim, after=f"{delay:.3g}s")
            self.wake(uid, delay)

    def _draw(self, uid: Uid) -> float:
        delay = claiming.delay(self._attempts[uid], self.settings, random.random())
        self._attempts[uid] += 1
        self._due[uid] = trio.current_time() + delay
        return delay

    def _leave(self, claim: PersistentVolumeClaim) -> None:
        uid = Uid(claim.metadata.uid)
        self._due.pop(uid, None)
        del self._attempts[uid]
        self.check.spent.pop(uid, None)

    def _is_open(self, claim: PersistentVolumeClaim, storage_class: StorageClass) -> bool:
        turn = claiming.decide(claim, storage_class, self.check.node, self.settings)
        return turn is Turn.OPEN and gate.concerns(claim, self.facts)

    # ---- the finish

    async def _take(self, claim: PersistentVolumeClaim, attempt: Attempt) -> Outcome:
        """Writes under the version that was checked, so that anybody's change in between is a conflict."""
        uid = Uid(claim.metadata.uid)
        called = self.check.spent.get(uid, 0.0)  # the watch may show the claim as taken before the answer comes
        try:
            changed = await self.kube.update(claim, lambda raw: claiming.take(raw, self.check.node))
        except KubeError as error:
            return self._not_taken(claim, error, attempt)
        log.v(3, "Took the claim for this node", PVC=claim)
        self._leave(claim)
        if changed is not None:
            self.caches.claims.remember(changed)
        self.won(uid, called)
        return DONE

    def _not_taken(self, claim: PersistentVolumeClaim, error: KubeError, attempt: Attempt) -> Outcome:
        uid = Uid(claim.metadata.uid)
        # Deleted, or the watch has shown another node's name during the request.
        if error.not_found or uid not in self._due:
            self._leave(claim)
            return DONE
        if error.conflict:
            log.v(3, "The claim has changed, it may be another node's by now", PVC=claim)
            self._draw(uid)
            # Wait for the new version in the cache, even if the base delay is 0: until then it ends the same way.
            return RetryAt(max(self._due[uid], trio.current_time() + SHORTEST_WAIT), "the claim has changed")
        tried = f"selecting node {self.check.node} for claim {kubernetes.key(claim)}"
        message = f"node check failed: {tried} failed: {error}"
        self.events.record(
            claim,
            "Warning",
            "ProvisioningFailed",
            f"{message} (attempt {attempt.number}; next try in {max(attempt.delay, error.floor):.3g} s)",
            failure_class=f"node {error.code}",
        )
        return after(error, message)
