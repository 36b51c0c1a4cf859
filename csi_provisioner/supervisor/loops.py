"""One life of the work: caches, and the loops on them, for one driver with one set of capabilities.

Ends by `stop` (running tasks may finish), or by a cancellation (a lost lease, a driver that came back changed). What
must outlive it - what is known of claims, of suspected orphans, events still to be written - is handed in.
"""

import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

import trio

from csi_provisioner.deletion.volumes import VolumeReconciler
from csi_provisioner.kube.index import Index
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim, StorageClass, VolumeAttachment
from csi_provisioner.nodes.local import LocalNode
from csi_provisioner.nodes.local import cluster as local_cluster
from csi_provisioner.planning import deletion, gate
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.sources import Readers
from csi_provisioner.planning.topology import TopologyMemory
from csi_provisioner.protection import clones, snapshots
from csi_provisioner.provision import save
from csi_provisioner.provision.claims import Caches, ClaimReconciler
from csi_provisioner.provision.create import Creator
from csi_provisioner.provision.gather import Gatherer
from csi_provisioner.provision.memory import claim_uid
from csi_provisioner.provision.placement import ClusterPlacement
from csi_provisioner.provision.save import Saver
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import Loop, Reconcile

from . import leftovers
from .caches import follow, stores
from .capacity import Access, Capacity
from .nodes import Ownership
from .parts import Parts

# After the driver is back: everything that waits is due within this many seconds, not all at once.
RELEASE_SPREAD = 2.0

# How often it is looked whether everything is saved, at the end
SAVED_POLL = 0.05

# The names of the loops and of their metrics (process.md 8.3)
CLAIMS, VOLUMES, SAVES = QUEUES = ("claims", "volumes", "unsavedpvs")


class Life:
    def __init__(self, parts: Parts, facts: DriverFacts) -> None:
        self._parts = parts
        self._facts = facts
        self._syncing = trio.CancelScope()
        self._synced = False
        self._made = trio.Event()  # set when this life makes no more volumes
        self._left = False
        self._of_class = Index[PersistentVolumeClaim](  # those that wait to be provisioned
            lambda claim: gate.claim_class(claim) if gate.concerns(claim, facts) else None
        )
        watches_nodes = parts.local is None and (facts.topology or parts.capacity is not None)
        self._stores = stores(facts, grants=parts.settings.gates.cross_namespace, nodes=watches_nodes)
        self._cluster = self._topology() if facts.topology else None
        self._capacity = self._publishing(parts.capacity) if parts.capacity is not None else None
        self._exclusive = Exclusive()
        self._saver = saver = Saver(
            parts.kube,
            self._stores.volumes,
            parts.memory,
            written=self._announce,
            wake=lambda name, floor: self._saves.wake(name, floor=floor),
        )
        self._ownership = self._race(parts.local) if parts.local is not None else None
        self._claims_work = self._claim_reconciler(saver)
        self._volumes_work = self._volume_reconciler()
        clones_work = clones.CloneReconciler(parts.kube, self._stores.claims, self._readers)
        retries = parts.settings.retries
        self._claims = self._loop(
            CLAIMS, self._claims_work.reconcile, retries.workers, about=lambda uid: {"PVC": self._known_claim(uid)}
        )
        self._volumes = self._loop(
            VOLUMES,
            self._volumes_work.reconcile,
            retries.workers,
            id_of=self._claim_of,
            about=lambda name: _about_volume(name, self._stores.volumes.get(name)),
        )
        self._saves = self._loop(
            SAVES,
            saver.reconcile,
            save.WORKERS,
            id_of=self._claim_of_unsaved,
            about=lambda name: _about_volume(name, parts.memory.unsaved.get(name)),
            backoff=Backoff(save.FIRST_DELAY, save.LONGEST_DELAY),
        )
        # Shares the name of its metrics with the claims, as in the reference (process.md 8.3).
        self._clones = self._loop(
            CLAIMS,
            clones_work.reconcile,
            retries.cloning_protection_workers,
            about=lambda key: {"PVC": self._stores.claims.get(key) or key},
        )
        self._saves.pause()
        self._loops = [self._claims, self._volumes, self._clones]
        if self._ownership is not None:
            self._loops.append(self._ownership.loop)
        self._subscribe()

    async def run(self) -> None:
        """Until stopped and drained, or cancelled; made volumes are saved for a while longer."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._save)
            try:
                await self._work()
            finally:
                self._made.set()

    async def _work(self) -> None:
        async with trio.open_nursery() as watching:
            with self._syncing:
                await watching.start(follow, self._parts.kube, self._stores)
            if self._syncing.cancelled_caught:
                watching.cancel_scope.cancel()
                return
            self._synced = True
            watching.start_soon(self._sweep_snapshots)
            if self._capacity is not None:
                watching.start_soon(self._capacity.run)
            self._save_all()
            for uid in self._parts.memory.in_progress:
                self._claims.wake(uid)
            async with trio.open_nursery() as loops:
                for loop in self._loops:
                    loops.start_soon(loop.run)
            watching.cancel_scope.cancel()

    async def _save(self) -> None:
        # Shielded: drained, out of time or without its lease, a volume that is made is lost if nobody writes it down.
        async with self._parts.end.shield(math.inf, hurry=self._hurry), trio.open_nursery() as nursery:
            nursery.start_soon(self._saves.run)
            await self._made.wait()
            self._hurry()  # those too whose first try was cut off
            while self._parts.memory.is_saving and not self._left:  # noqa: ASYNC110 - a question, not an event
                await trio.sleep(SAVED_POLL)
            self._saves.stop()

    def _save_all(self, longest: float = save.LONGEST_DELAY) -> None:
        """Try all that is unsaved, now."""
        self._saves.backoff = Backoff(save.FIRST_DELAY, longest)
        self._saves.resume(lambda: 0.0)
        for name in self._parts.memory.unsaved:
            self._saves.wake(name)

    def _hurry(self) -> None:
        self._save_all(save.LONGEST_AT_END)

    def stop(self) -> None:
        self._syncing.cancel()  # nothing runs yet: no reason to wait for an API server that may never answer
        for loop in self._loops:
            loop.stop()
        if self._capacity is not None:
            self._capacity.publisher.loop.stop()
        self._hurry()

    def leave(self) -> None:
        """Another life follows: what is unsaved is its business."""
        self._left = True
        self._saves.stop()

    def end(self) -> None:
        """The process leads no longer, for whatever reason: what is only in its memory is said now."""
        claims = self._stores.claims if self._synced else None  # what is not in it yet is not known to be gone
        leftovers.report(self._parts.memory, claims, self._parts.orphans, self._claims_work.suspect)

    @property
    def is_behind(self) -> bool:
        """Claims wait for a worker: their volumes come before anything that can wait."""
        return self._claims.is_behind

    def pause(self) -> None:
        """The driver is away: nothing is started that would only fail. Saving needs no driver and goes on."""
        for loop in self._of_driver:
            loop.pause()

    def resume(self, *, after_loss: bool) -> None:
        """After a loss all that waits is released; after a polite change of connections its back-off goes on."""
        for loop in self._of_driver:
            loop.resume((lambda: random.uniform(0, RELEASE_SPREAD)) if after_loss else None)

    @property
    def _of_driver(self) -> Iterator[Loop]:
        yield from (self._claims, self._volumes)
        if self._ownership is not None:
            yield self._ownership.loop
        if self._capacity is not None:
            yield self._capacity.publisher.loop

    # ---- the parts

    def _loop(
        self,
        name: str,
        reconcile: Reconcile,
        workers: int,
        *,
        about: Callable[[str], Mapping[str, object]],
        id_of: Callable[[str], str] = lambda key: key,
        backoff: Backoff | None = None,
    ) -> Loop:
        retries = self._parts.settings.retries
        return Loop(
            name,
            reconcile,
            workers=workers,
            backoff=backoff or Backoff(retries.start, retries.maximum),
            exclusive=self._exclusive,
            metrics=self._parts.metrics.queue(name),
            about=about,
            id_of=id_of,
        )

    def _topology(self) -> ClusterTopology:
        """Of this node alone where there is a provisioner on each, else of all nodes."""
        local, nodes, csinodes = self._parts.local, self._stores.nodes, self._stores.csinodes
        if local is not None:
            return local_cluster(local, self._facts.name)
        assert nodes is not None
        assert csinodes is not None
        cluster = ClusterTopology(self._facts.name)
        nodes.subscribe(cluster.node_changed)
        csinodes.subscribe(cluster.csinode_changed)
        return cluster

    def _placement(self, memories: dict[str, TopologyMemory], in_flight: Collection[str]) -> ClusterPlacement | None:
        if self._cluster is None:
            return None
        settings = self._parts.provisioning
        return ClusterPlacement(self._cluster, settings, memories, in_flight=in_flight, choose=random.choice)

    def _gatherer(self, placement: ClusterPlacement | None, under_way: Callable[[str], bool]) -> Gatherer:
        parts, kept = self._parts, self._stores
        grants = kept.grants
        return Gatherer(
            parts.kube,
            kept.claims,
            self._facts,
            parts.provisioning,
            grants=lambda: grants.values() if grants is not None else (),
            placement=placement,
            under_way=under_way,
        )

    def _publishing(self, access: Access) -> Capacity:
        parts = self._parts
        return Capacity(access, parts.settings, parts.driver, self._stores, parts.local, parts.metrics)

    def _race(self, local: LocalNode) -> Ownership:
        placement = self._placement({}, ())
        return Ownership(
            self._parts,
            local,
            self._facts,
            self._stores,
            self._cluster,
            placement,
            self._gatherer(placement, lambda _uid: False),
            exclusive=self._exclusive,
            won=lambda uid: self._claims.wake(uid),
        )

    def _claim_reconciler(self, saver: Saver) -> ClaimReconciler:
        parts, kept = self._parts, self._stores
        settings, memory = parts.provisioning, parts.memory
        placement = self._placement(memory.topology, memory.in_progress)
        return ClaimReconciler(
            Caches(kept.claims, kept.volumes, kept.storage_classes),
            parts.kube,
            self._facts,
            identity=parts.identity,
            provisioning=settings,
            retries=parts.settings.retries,
            gatherer=self._gatherer(placement, memory.is_under_way),
            creator=Creator(
                parts.driver,
                parts.orphans,
                migratable=self._facts.in_tree_name is not None,
                shield=partial(parts.end.shield, parts.settings.csi.timeout),
            ),
            saver=saver,
            memory=memory,
            orphans=parts.orphans,
            events=parts.events,
            metrics=parts.metrics,
            placement=placement,
            owner=self._ownership.owns if self._ownership is not None else None,
            readers=self._readers,
            refresh=self._capacity.publisher.provisioned if self._capacity is not None else None,
        )

    def _volume_reconciler(self) -> VolumeReconciler:
        parts, kept = self._parts, self._stores
        attachments = Index[VolumeAttachment](lambda attachment: attachment.spec.source.persistentVolumeName)
        if kept.attachments is not None:
            kept.attachments.subscribe(attachments.saw)
        return VolumeReconciler(
            kept.volumes,
            kept.storage_classes,
            attachments.of,
            parts.kube,
            parts.driver,
            self._facts,
            events=parts.events,
            metrics=parts.metrics,
            segments=parts.local.segments if parts.local is not None else None,
            refresh=self._capacity.publisher.deleted if self._capacity is not None else None,
        )

    # ---- what wakes what

    def _subscribe(self) -> None:
        kept = self._stores
        kept.claims.subscribe(self._parts.memory.saw_claim)
        kept.claims.subscribe(self._of_class.saw)
        kept.claims.subscribe(self._saw_claim)
        if "CLONE_VOLUME" in self._facts.controller:
            kept.claims.subscribe(self._saw_source)
        kept.volumes.subscribe(self._volumes_work.saw_volume)
        kept.volumes.subscribe(self._saw_volume)
        kept.storage_classes.subscribe(self._saw_class)

    def _saw_claim(self, _key: str, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        if new is None:
            if old is not None and old.metadata.uid in self._parts.memory.topology:
                self._claims.wake(old.metadata.uid)  # which forgets it, unless a call is still under way
            return
        if gate.concerns(new, self._facts) or new.metadata.uid in self._parts.memory.in_progress:
            self._claims.wake(new.metadata.uid)

    def _saw_source(self, key: str, _old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        if new is not None and clones.is_to_check(new):
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
        for claim in self._of_class.of(name):
            self._claims.wake(claim.metadata.uid)

    def _known_claim(self, uid: str) -> PersistentVolumeClaim | str:
        return self._stores.claims.by_uid(uid) or self._parts.memory.in_progress.get(uid) or uid

    def _claim_of(self, name: str) -> str:
        volume = self._stores.volumes.get(name)
        return name if volume is None else claim_uid(volume)

    def _claim_of_unsaved(self, name: str) -> str:
        volume = self._parts.memory.unsaved.get(name)
        return name if volume is None else claim_uid(volume)

    # ---- services beside the loops

    async def _sweep_snapshots(self) -> None:
        interval, kube = self._parts.settings.retries.snapshot_sweep_interval, self._parts.kube
        if interval <= 0 or "CREATE_DELETE_SNAPSHOT" not in self._facts.controller:
            return
        if await snapshots.is_possible(kube):
            await snapshots.sweep_forever(kube, self._readers, interval)

    def _readers(self) -> Readers:
        return Readers(self._stores.claims.values(), self._parts.memory.reading())

    # ---- ends

    def _announce(self, volume: PersistentVolume) -> None:
        self._claims_work.announce(volume)


def _about_volume(name: str, volume: PersistentVolume | None) -> dict[str, object]:
    """For the log: the volume, and the claim it was made for."""
    claim = volume.spec.claimRef if volume is not None else None
    return {"PV": volume or name} | ({"PVC": claim} if claim is not None else {})
