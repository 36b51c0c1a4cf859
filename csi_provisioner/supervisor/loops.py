"""One life of the work: caches, and the loops on them, for one driver with one set of capabilities.

Ends by `stop` (running tasks may finish), or by a cancellation (a lost lease, a driver that came back changed). What
must outlive it - what is known of claims, of suspected orphans, events still to be written - is handed in.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import trio

from csi_provisioner.csi.driver import Driver
from csi_provisioner.deletion.attachments import Attachments
from csi_provisioner.deletion.volumes import VolumeReconciler
from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim, StorageClass
from csi_provisioner.planning import deletion, gate
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.protection import clones, snapshots
from csi_provisioner.provision import save
from csi_provisioner.provision.claims import Caches, ClaimReconciler
from csi_provisioner.provision.create import Creator
from csi_provisioner.provision.gather import Gatherer
from csi_provisioner.provision.memory import ClaimMemory, claim_uid
from csi_provisioner.provision.orphans import Orphans
from csi_provisioner.provision.placement import ClusterPlacement
from csi_provisioner.provision.save import Saver
from csi_provisioner.settings import ProvisioningSettings, Settings
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import Loop

from .caches import follow, stores

# After the driver is back: everything that waits is due within this many seconds, not all at once.
RELEASE_SPREAD = 2.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the process has made before any work starts, and keeps for all lives of it."""

    settings: Settings
    provisioning: ProvisioningSettings
    metrics: Metrics
    kube: KubeClient
    driver: Driver
    events: EventRecorder
    memory: ClaimMemory
    orphans: Orphans
    identity: str


class Life:
    def __init__(self, parts: Parts, facts: DriverFacts) -> None:
        self._parts = parts
        self._facts = facts
        self._syncing = trio.CancelScope()
        self._stores = stores(facts, grants=parts.settings.gates.cross_namespace, nodes=facts.topology)
        exclusive, retries = Exclusive(), parts.settings.retries
        saver = Saver(
            parts.kube,
            self._stores.volumes,
            parts.memory,
            written=self._announce,
            wake=lambda name: self._saves.wake(name),
        )
        self._saver = saver
        self._claims_work = self._claim_reconciler(saver)
        self._volumes_work = self._volume_reconciler()
        self._claims = Loop(
            "claims",
            self._claims_work.reconcile,
            workers=retries.workers,
            backoff=Backoff(retries.start, retries.maximum),
            exclusive=exclusive,
            metrics=parts.metrics.queue("claims"),
        )
        self._volumes = Loop(
            "volumes",
            self._volumes_work.reconcile,
            workers=retries.workers,
            backoff=Backoff(retries.start, retries.maximum),
            exclusive=exclusive,
            metrics=parts.metrics.queue("volumes"),
            id_of=self._claim_of,
        )
        self._saves = Loop(
            "unsavedpvs",
            saver.reconcile,
            workers=save.WORKERS,
            backoff=Backoff(save.FIRST_DELAY, save.LONGEST_DELAY),
            exclusive=exclusive,
            metrics=parts.metrics.queue("unsavedpvs"),
            id_of=lambda name: claim_uid(parts.memory.unsaved[name]) if name in parts.memory.unsaved else name,
        )
        # Shares the name of its metrics with the claims, as in the reference (process.md 8.3).
        self._clones = Loop(
            "claims",
            clones.CloneReconciler(parts.kube, self._stores.claims).reconcile,
            workers=retries.cloning_protection_workers if "CLONE_VOLUME" in facts.controller else 0,
            backoff=Backoff(retries.start, retries.maximum),
            exclusive=exclusive,
            metrics=parts.metrics.queue("claims"),
        )
        self._loops = (self._claims, self._volumes, self._saves, self._clones)
        self._subscribe()

    async def run(self) -> None:
        """Until stopped and drained, or cancelled. Volumes that could not be saved get one more try at the end."""
        async with trio.open_nursery() as watching:
            with self._syncing:
                await watching.start(follow, self._parts.kube, self._stores)
            if self._syncing.cancelled_caught:
                watching.cancel_scope.cancel()
                return
            watching.start_soon(self._sweep_snapshots)
            for name in self._parts.memory.unsaved:
                self._saves.wake(name)
            for uid in self._parts.memory.in_progress:
                self._claims.wake(uid)
            async with trio.open_nursery() as loops:
                for loop in self._loops:
                    loops.start_soon(loop.run)
            await self._saver.last_try()
            self._report_lost_claims()
            watching.cancel_scope.cancel()

    def stop(self) -> None:
        self._syncing.cancel()  # nothing runs yet: no reason to wait for an API server that may never answer
        for loop in self._loops:
            loop.stop()

    @property
    def is_behind(self) -> bool:
        """Claims wait for a worker: their volumes come before anything that can wait."""
        return self._claims.is_behind

    def pause(self) -> None:
        """The driver is away: nothing is started that would only fail. Saving needs no driver and goes on."""
        self._claims.pause()
        self._volumes.pause()

    def resume(self) -> None:
        for loop in (self._claims, self._volumes):
            loop.resume(lambda: random.uniform(0, RELEASE_SPREAD))

    # ---- the parts

    def _claim_reconciler(self, saver: Saver) -> ClaimReconciler:
        parts, kept = self._parts, self._stores
        settings, memory = parts.provisioning, parts.memory
        placement = None
        if kept.nodes is not None and kept.csinodes is not None:
            cluster = ClusterTopology(self._facts.name)
            kept.nodes.subscribe(cluster.node_changed)
            kept.csinodes.subscribe(cluster.csinode_changed)
            placement = ClusterPlacement(
                cluster, settings, memory.topology, in_flight=memory.in_progress, choose=random.choice
            )
        grants = kept.grants
        return ClaimReconciler(
            Caches(kept.claims, kept.volumes, kept.storage_classes),
            parts.kube,
            self._facts,
            identity=parts.identity,
            provisioning=settings,
            retries=parts.settings.retries,
            gatherer=Gatherer(
                parts.kube,
                kept.claims,
                self._facts,
                settings,
                grants=lambda: grants.values() if grants is not None else (),
                placement=placement,
            ),
            creator=Creator(
                parts.driver,
                parts.orphans,
                migratable=self._facts.in_tree_name is not None,
                undo_limit=_undo_limit(parts.settings),
            ),
            saver=saver,
            memory=memory,
            orphans=parts.orphans,
            events=parts.events,
            metrics=parts.metrics,
            next_try=lambda uid: _next_try(self._claims, uid),
            placement=placement,
        )

    def _volume_reconciler(self) -> VolumeReconciler:
        parts, kept = self._parts, self._stores
        attachments = Attachments()
        if kept.attachments is not None:
            kept.attachments.subscribe(attachments.saw_attachment)
        return VolumeReconciler(
            kept.volumes,
            kept.storage_classes,
            attachments.of,
            parts.kube,
            parts.driver,
            self._facts,
            events=parts.events,
            metrics=parts.metrics,
            next_try=lambda name: _next_try(self._volumes, name),
        )

    # ---- what wakes what

    def _subscribe(self) -> None:
        kept = self._stores
        kept.claims.subscribe(self._parts.memory.saw_claim)
        kept.claims.subscribe(self._saw_claim)
        kept.volumes.subscribe(self._volumes_work.saw_volume)
        kept.volumes.subscribe(self._saw_volume)
        kept.storage_classes.subscribe(self._saw_class)

    def _saw_claim(self, key: str, _old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        if new is None:
            return
        if gate.concerns(new, self._facts) or new.metadata.uid in self._parts.memory.in_progress:
            self._claims.wake(new.metadata.uid)
        if clones.is_to_check(new):
            self._clones.wake(key)

    def _saw_volume(self, name: str, _old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        if new is None:
            self._volumes.backoff.forget(name)
        elif deletion.finalizer_change(new) is not None or deletion.should_delete(new):
            self._volumes.wake(name)

    def _saw_class(self, name: str, old: StorageClass | None, new: StorageClass | None) -> None:
        """A class that was missing, or was made anew, is what some claims wait for."""
        if new is None or old is not None:
            return
        for claim in self._stores.claims.values():
            if gate.claim_class(claim) == name and gate.concerns(claim, self._facts):
                self._claims.wake(claim.metadata.uid)

    def _claim_of(self, name: str) -> str:
        volume = self._stores.volumes.get(name)
        return name if volume is None else claim_uid(volume)

    # ---- services beside the loops

    async def _sweep_snapshots(self) -> None:
        interval, kube = self._parts.settings.retries.snapshot_sweep_interval, self._parts.kube
        if interval <= 0 or "CREATE_DELETE_SNAPSHOT" not in self._facts.controller:
            return
        if await snapshots.is_possible(kube):
            await snapshots.sweep_forever(kube, self._unfinished_claims, interval)

    def _unfinished_claims(self) -> Iterable[PersistentVolumeClaim]:
        return chain(self._stores.claims.values(), self._parts.memory.in_progress.values())

    # ---- ends

    def _announce(self, volume: PersistentVolume) -> None:
        self._claims_work.announce(volume)

    def _report_lost_claims(self) -> None:
        """The process ends with tries open for claims that are gone: no later process will know of them."""
        for uid, claim in self._parts.memory.in_progress.items():
            if self._stores.claims.by_uid(uid) is None:
                self._claims_work.suspect(
                    claim, "the claim is gone, and the process ends before the driver was certain"
                )


def _next_try(loop: Loop, key: str) -> tuple[int, float]:
    failures = loop.backoff.failures(key)
    return failures + 1, loop.backoff.delay(failures)


def _undo_limit(settings: Settings) -> float:
    """Where another may lead after us, the undo of a volume must be over before it does (design.md 3, rule 9)."""
    election = settings.election
    if not election.enabled:
        return settings.csi.timeout
    return min(settings.csi.timeout, election.lease_duration - election.renew_deadline)
