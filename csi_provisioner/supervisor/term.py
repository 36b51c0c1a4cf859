"""One leader term: caches, and the controllers on them, for one driver with one set of capabilities.

Ends by `stop` (running tasks may finish) or by cancellation (a lost lease, a driver that came back changed). What must
outlive it, such as the memory of claims and the events still to be written, is handed in as `Parts`.
"""

import math
import random
from functools import partial
from heapq import nsmallest

import trio

from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.reflector import PAUSE
from csi_provisioner.logs import log
from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import ObjectReference, PersistentVolumeClaim
from csi_provisioner.model.live import LiveClaim
from csi_provisioner.model.state import Details, PendingState
from csi_provisioner.planning import recovery
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.provision import save
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.runner import Loop

from . import answering, picture
from .caches import NODE_PAUSE, caches_for, follow
from .controllers import Controllers
from .parts import Parts

# When the driver is back, waiting items become due at random within this time, not all at once.
RELEASE_SPREAD = 2.0

NEXT = "who works on the claim next is given the same volume, unless the claim is deleted before"

AWAY = (
    "CSI driver {driver} does not answer, so no volume can be made; the claim is next once it is back: "
    "look at the driver's container in the provisioner's pod"
)
# Claims on which an outage of the driver is told, the oldest first.
TOLD_AWAY = 100

UNSURE = "the driver was asked for it when another process may have led already"

# How often the end of a term checks whether everything is saved.
SAVED_POLL = 0.05


class LeaderTerm:
    def __init__(self, parts: Parts, facts: DriverFacts) -> None:
        self._parts = parts
        self.began = trio.current_time()
        self.facts = facts
        self._caches = caches_for(
            facts,
            parts.local.segments if parts.local is not None else None,
            holds_claim=lambda uid: parts.memory.holds(uid) or self._controllers.intents.keeps(uid),
            holds_volume=lambda name: parts.memory.unsaved(name) is not None,
        )
        self._controllers = Controllers(parts, facts, self._caches)
        self._syncing = trio.CancelScope()
        self._synced = False
        self._over = trio.Event()  # set when this term makes no more volumes
        self._handed_over = False  # another term follows and takes over what is unsaved

    # ---- its course

    async def run(self) -> None:
        """Until stopped and drained, or cancelled. Volumes that are made are still saved for a while after that."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._save)
            try:
                await self._work()
            finally:
                self._over.set()

    async def _work(self) -> None:
        async with trio.open_nursery() as watching:
            watching.start_soon(self._controllers.right.look)  # the first claim need not wait for the answer
            with self._syncing:
                await watching.start(self._follow)
            if self._syncing.cancelled_caught:
                watching.cancel_scope.cancel()
                return
            self._synced = True
            self._parts.synced()
            watching.start_soon(self._controllers.pending.begin)
            watching.start_soon(self._sweep_snapshots)
            watching.start_soon(self._controllers.dropped.run)
            if self._controllers.publisher is not None:
                watching.start_soon(self._controllers.publisher.run)
            self._save_all()
            for uid in self._parts.memory.in_progress():
                self._controllers.claims.wake(uid)
            # Watches outlive the controllers: a task that still runs reads the caches.
            async with trio.open_nursery() as working:
                for loop in self._controllers.loops:
                    working.start_soon(loop.run)
            watching.cancel_scope.cancel()

    async def _follow(self, *, task_status: trio.TaskStatus[None]) -> None:
        parts, facts = self._parts, self.facts
        nodes = parts.local is None and (facts.topology or parts.capacity is not None)
        grants = parts.settings.gates.cross_namespace
        pause = NODE_PAUSE if parts.local is not None else PAUSE
        await follow(parts.kube, self._caches, facts, grants=grants, nodes=nodes, pause=pause, task_status=task_status)

    async def _sweep_snapshots(self) -> None:
        interval, kube = self._parts.settings.retries.snapshot_sweep_interval, self._parts.kube
        if interval <= 0 or "CREATE_DELETE_SNAPSHOT" not in self.facts.controller:
            return
        from csi_provisioner.protection import snapshots

        # Nodes that start together would all list them at once, each time.
        await trio.sleep(random.uniform(0, interval) if self._parts.local is not None else 0.0)
        await snapshots.wait_served(kube, interval)
        if await snapshots.is_possible(kube):
            await snapshots.sweep_forever(kube, self.facts.name, self._controllers.readers, interval)

    # ---- saving what was made

    async def _save(self) -> None:
        saves, memory = self._controllers.saves, self._parts.memory
        # Shielded: a volume that is made but never written down is lost, however the term ends.
        async with self._parts.end.shield(math.inf, hurry=self._hurry), trio.open_nursery() as nursery:
            nursery.start_soon(saves.run)
            await self._over.wait()
            self._hurry()  # includes volumes whose first save was cancelled
            while memory.is_saving and not self._handed_over:  # noqa: ASYNC110 - there is no event to wait for
                await trio.sleep(SAVED_POLL)
            saves.stop()

    def _save_all(self, longest: float = save.LONGEST_DELAY) -> None:
        """Try all that is unsaved, now."""
        saves = self._controllers.saves
        saves.backoff = Backoff(save.FIRST_DELAY, longest)
        saves.resume(lambda: 0.0)
        for entry in self._parts.memory.all_unsaved():
            saves.wake(entry.volume.metadata.name)

    def _hurry(self) -> None:
        self._save_all(save.LONGEST_AT_END)

    # ---- what happens to it

    @property
    def is_behind(self) -> bool:
        """Claims wait for a worker, or volumes are being written. Events are held back then, so that volumes come
        first."""
        controllers = self._controllers
        return controllers.claims.is_behind or controllers.fairness.creates.is_short or controllers.saver.under_way > 0

    @property
    def caches(self) -> Caches:
        return self._caches

    def pending(self, *, driver_away: bool) -> tuple[PendingState, ...]:
        return self._controllers.pending.states(driver_away=driver_away)

    @property
    def loops(self) -> set[Loop]:
        controllers = self._controllers
        return {*controllers.loops, *controllers.of_driver, controllers.saves}

    def look(self, uid: str) -> LiveClaim:
        return answering.claim(self._parts, self._controllers, self._caches, uid)

    def details(self, *, driver_ready: bool) -> Details:
        return picture.details(self._parts, self._controllers, self._caches, driver_ready=driver_ready)

    def look_again(self) -> None:
        """What the caches show is no longer so."""
        self._caches.unsynced.update(self._caches.followers)
        for look_again in self._caches.followers.values():
            look_again()

    def pause(self) -> None:
        """The driver is away: start nothing that would only fail. Saving needs no driver and goes on."""
        for loop in self._controllers.of_driver:
            loop.pause()

    def resume(self, *, after_loss: bool) -> None:
        """After a loss everything that waits is tried soon. After a goodbye back-offs simply go on."""
        for loop in self._controllers.of_driver:
            loop.resume(partial(random.uniform, 0, RELEASE_SPREAD) if after_loss else None)

    def tell_driver_is_away(self) -> None:
        """On claims that would have a volume by now. A crowd is told by the metric alone: each event is a write."""
        waiting = self._controllers.waiting()
        for claim in nsmallest(TOLD_AWAY, waiting, key=lambda claim: claim.metadata.creationTimestamp or ""):
            self._parts.events.record(claim, "Warning", "DriverUnavailable", AWAY.format(driver=self.facts.name))

    def stop(self) -> None:
        self._syncing.cancel()  # the API server may never answer, and nothing runs yet
        # As a set: the publisher's loop is only in the second list, and others are in both.
        for loop in {*self._controllers.loops, *self._controllers.of_driver}:
            loop.stop()
        self._hurry()

    def hand_over(self) -> None:
        """Another term follows and saves what is unsaved."""
        self._handed_over = True
        self._controllers.saves.stop()

    def end(self) -> None:
        """The process no longer leads: log what only its memory knows. No later process can find it out."""
        memory, orphans, provisioner = self._parts.memory, self._parts.orphans, self._controllers.provisioner
        for entry in memory.all_unsaved():
            volume = entry.volume
            claim = volume.spec.claimRef or ObjectReference()
            volume_id = entry.volume_id
            if self._is_lost(claim, claim.uid):
                reason = "the claim is gone, and the leadership ends before the PersistentVolume could be saved"
                orphans.suspect(volume_id=volume_id, name=volume.metadata.name, claim=claim, reason=reason)
                continue
            # Whoever leads next asks the driver again, and the same name gives the same volume.
            text = f"A volume is made and its PersistentVolume is not written; {NEXT}"
            log.warning(text, volumeID=volume_id or "unknown", PV=volume, claim=claim)
        for uid, asked in memory.in_progress().items():
            if self._is_lost(asked, uid):
                provisioner.suspect(asked, "the claim is gone, and the leadership ends before the driver was certain")
            else:
                name = provisioner.volume_name(asked)
                log.warning(f"The driver may be making a volume; {NEXT}", volume=name, claim=asked)

        if self._parts.journal is not None:
            for name in self._parts.journal.begun_unconfirmed():
                found = self._parts.journal.entry(name)
                claim = recovery.claim_of(found) if found is not None else ObjectReference()
                orphans.suspect(volume_id="", name=name, claim=claim, reason=UNSURE)

    def _is_lost(self, claim: PersistentVolumeClaim | ObjectReference, uid: str) -> bool:
        """The claim is gone, and the next leader will not know of its volume. False as long as the caches are not
        complete: they do not say then which claims are gone."""
        gone = self._synced and not self._caches.claims.knows(kubernetes.key(claim), uid)
        return gone and not self._controllers.intents.holds(uid)
