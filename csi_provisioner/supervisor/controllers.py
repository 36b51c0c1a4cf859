"""The controllers of one leader term: what each one works on, and what wakes it.

A controller is a loop of `work` with a reconciler. Only one of them works on a claim at a time (design.md 3, rule 1).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from csi_provisioner.deletion.dropped import DroppedVolumes
from csi_provisioner.deletion.volumes import VolumeReconciler
from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.index import Index
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim, StorageClass
from csi_provisioner.model.state import Lane
from csi_provisioner.planning import deletion, gate
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.sources import Readers
from csi_provisioner.protection import clones
from csi_provisioner.provision import claims, save
from csi_provisioner.provision.announcer import Announcer
from csi_provisioner.provision.claims import ClaimReconciler, Owner
from csi_provisioner.provision.create import Creator
from csi_provisioner.provision.gather import Gatherer
from csi_provisioner.provision.intents import Intents
from csi_provisioner.provision.memory import ClaimMemory, claim_uid
from csi_provisioner.provision.placement import ClusterPlacement
from csi_provisioner.provision.recovery import Recovery
from csi_provisioner.provision.right import RightToSave
from csi_provisioner.provision.save import Saver
from csi_provisioner.provision.unplaced import UnplacedClaims
from csi_provisioner.provision.waiting import Waiting
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.lanes import Lanes
from csi_provisioner.work.runner import Loop, Reconcile

from .fairness import NOWHERE, Fairness
from .parts import Parts
from .recovering import recovering

if TYPE_CHECKING:
    from csi_provisioner.capacity.publisher import CapacityClient, Publisher
    from csi_provisioner.nodes.local import LocalNode

# Names of the loops, also in the metrics (process.md 8.3).
CLAIMS, VOLUMES, SAVES = QUEUES = ("claims", "volumes", "unsavedpvs")


class Controllers:
    def __init__(self, parts: Parts, facts: DriverFacts, caches: Caches) -> None:
        self._parts = parts
        self._facts = facts
        self._caches = caches
        self._exclusive = Exclusive()
        self.fairness = Fairness(parts.settings, facts, caches, self._claim, parts.events)
        workers = self.fairness.creates
        self.intents = Intents(parts.journal, parts.provisioning, caches.claims, parts.memory, workers)
        self._cluster = self._topology() if facts.topology else None
        # Controllers refer to each other in both directions: a lambda looks up the one that is made later.
        self._owns: Owner | None = None
        self.pending = Waiting(
            caches,
            facts,
            parts.memory,
            parts.metrics,
            server_time=lambda: parts.kube.server_time(),
            away=parts.away,
            node=parts.local.name if parts.local is not None else "",
        )
        competing = [self._compete(parts.local)] if parts.local is not None else []
        self.publisher = self._publish(parts.capacity) if parts.capacity is not None else None
        publishing = [self.publisher.loop] if self.publisher is not None else []
        self.right = right = RightToSave(parts.kube, parts.granted)
        announcer = Announcer(caches, facts, parts.kube, parts.memory, parts.orphans, parts.events, self.pending, right)
        self.saver = Saver(
            parts.kube,
            caches.volumes,
            parts.memory,
            announcer,
            wake=lambda name, floor: self.saves.wake(name, floor=floor),
            ended=lambda uid: self.claims.wake(uid),
            over=self.intents.over,
        )
        self.provisioner = self._provisioner(announcer)
        self.claims = self._provision()
        self.dropped, self.volumes = self._delete()
        self.saves = self._save()
        self._recovery: Recovery | None = None
        recoveries = list[Loop]()
        if parts.journal is not None:
            self._recovery, loop = recovering(parts, parts.journal, facts, caches, self._owns, workers, self._loop)
            recoveries = [loop]
        self.loops = [self.claims, self.volumes, self._release_clones(), *competing, *recoveries]
        """What the term runs. Saving goes on after them, and the publisher runs its own loop."""
        self.of_driver = [self.claims, self.volumes, *competing, *publishing, *recoveries]
        """Those that call the driver; they pause while it is away."""

    def readers(self) -> Readers:
        """All claims that may still be filled from a source."""
        found = self._recovery.readers() if self._recovery is not None else {}
        return Readers(self._caches.claims.values(), found | self._parts.memory.reading())

    def waiting(self) -> Iterator[PersistentVolumeClaim]:
        """Claims that this process would provision now."""
        local = self._parts.local
        for claim in self._caches.claims.values():
            if gate.concerns(claim, self._facts) and claim.metadata.deletionTimestamp is None:
                with suppress(Refusal):
                    gate.decide(claim, self._caches.storage_classes.get(gate.claim_class(claim)), self._facts)
                    if local is None or gate.selected_node(claim) == local.name:
                        yield claim

    def _claim(self, uid: str) -> PersistentVolumeClaim | None:
        return self._caches.claims.by_uid(uid) or self._parts.memory.of(uid).asked

    # ---- each controller, and what wakes it

    def _provision(self) -> Loop:
        """Makes volumes for claims. Woken by changes of claims, also deletion, and by new classes."""
        facts, memory, caches = self._facts, self._parts.memory, self._caches
        waiting = Index[PersistentVolumeClaim](
            lambda claim: gate.claim_class(claim) if gate.concerns(claim, facts) else None
        )

        def saw_claim(_key: str, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
            if new is None:
                if old is not None and (
                    memory.of(old.metadata.uid).topology is not None or self.intents.holds(old.metadata.uid)
                ):
                    loop.wake(old.metadata.uid)  # to forget it, or to go on if a call is under way
            elif gate.concerns(new, facts) or memory.of(new.metadata.uid).asked is not None:
                loop.wake(new.metadata.uid)

        def saw_class(name: str, old: StorageClass | None, new: StorageClass | None) -> None:
            if new is not None and old is None:  # claims may have waited for this class
                for claim in waiting.of(name):
                    loop.wake(claim.metadata.uid)

        def of_class(name: str) -> Iterator[str]:
            claims = (*waiting.of(name), *memory.in_progress().values())  # also those that are deleted meanwhile
            return (claim.metadata.uid for claim in claims if gate.claim_class(claim) == name)

        loop = self._loop(
            CLAIMS,
            self.fairness.told(self.provisioner.reconcile, self._claim, "Provisioning"),
            about=lambda uid: {"PVC": self._claim(uid) or uid},
            workers=self.fairness.creates.tasks(),
            place=self.fairness.of_claim,
        )
        self.fairness.serve(self.fairness.creates, loop, of_class=of_class)
        # Handlers run in this order: the memory drops what the cache now shows before anybody is woken.
        caches.claims.subscribe(memory.saw_claim)
        caches.claims.subscribe(waiting.saw)
        caches.claims.subscribe(saw_claim)
        caches.storage_classes.subscribe(saw_class)
        return loop

    def _delete(self) -> tuple[DroppedVolumes, Loop]:
        """Deletes the volumes whose claims are gone, keeps our finalizer on the others, and tells of those that go
        another way."""
        parts, caches, publisher = self._parts, self._caches, self.publisher
        segments = parts.local.segments if parts.local is not None else None

        def deleted(volume: PersistentVolume, volume_id: str) -> None:
            parts.memory.note_deleted(volume_id)
            dropped.was_deleted(volume)
            if publisher is not None:
                publisher.deleted(volume)

        reconciler = VolumeReconciler(
            caches,
            parts.kube,
            parts.driver,
            self._facts,
            events=parts.events,
            metrics=parts.metrics,
            segments=segments,
            tell_deleted=deleted,
            wake=lambda name: loop.wake(name),
            workers=self.fairness.deletes,
            in_doubt=lambda: parts.end.in_doubt,
        )
        dropped = DroppedVolumes(
            volumes=caches.volumes,
            driver=self._facts,
            events=parts.events,
            metrics=parts.metrics,
            deleted=reconciler.has_deleted,
            keep=parts.kept.add,
            now=time.time,
            segments=segments,
        )

        def saw_volume(name: str, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
            if new is None:
                loop.forget(name)  # a new volume of that name starts without back-off
            elif not reconciler.expects(old, new) and (deletion.finalizer_change(new) or deletion.should_delete(new)):
                loop.wake(name)

        workers = self.fairness.deletes
        reconcile = self.fairness.told(reconciler.reconcile, caches.volumes.get, "VolumeDelete")
        loop = self._loop_of_volumes(
            VOLUMES, reconcile, caches.volumes.get, workers=workers.tasks(), place=self.fairness.of_volume
        )
        self.fairness.serve(workers, loop, of_class=self.fairness.volumes_of)
        caches.volumes.subscribe(parts.memory.saw_volume)
        caches.volumes.subscribe(dropped.saw_volume)  # before the reconciler forgets what it has deleted
        caches.volumes.subscribe(reconciler.saw_volume)
        caches.volumes.subscribe(saw_volume)
        return dropped, loop

    def _save(self) -> Loop:
        """Writes PersistentVolumes whose first save failed. Paused until the caches are complete."""
        memory, backoff = self._parts.memory, Backoff(save.FIRST_DELAY, save.LONGEST_DELAY)

        def find(name: str) -> PersistentVolume | None:
            entry = memory.unsaved(name)
            return None if entry is None else entry.volume

        loop = self._loop_of_volumes(SAVES, self.saver.reconcile, find, workers=save.WORKERS, backoff=backoff)
        loop.pause()
        return loop

    def _release_clones(self) -> Loop:
        """Removes our finalizer from deleted claims that are no longer copied from."""
        claims = self._caches.claims

        def saw_claim(key: str, _old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
            if new is not None and clones.is_to_check(new):
                loop.wake(key)

        # The reference counts these under the claims' queue as well (process.md 8.3).
        loop = self._loop(
            CLAIMS,
            clones.CloneReconciler(self._parts.kube, self._caches, self._facts.name, self.readers).reconcile,
            workers=self._parts.settings.retries.cloning_protection_workers,
            about=lambda key: {"PVC": claims.get(key) or key},
        )
        if "CLONE_VOLUME" in self._facts.controller:
            claims.subscribe(saw_claim)
        return loop

    def _compete(self, local: "LocalNode") -> Loop:
        """Takes claims for this node, in a per-node deployment (node-deployment.md)."""
        from csi_provisioner.nodes.capacity_check import CapacityCheck
        from csi_provisioner.nodes.race import QUEUE, Race

        parts, caches, placement = self._parts, self._caches, self._placement(ClaimMemory())
        # With a memory of its own: a mere check must not decide where provisioning asks for the volume.
        gatherer = self._gatherer(placement, lambda _uid: False, lambda _uid: None)
        check = CapacityCheck(local.name, parts.driver, gatherer)

        def won(uid: str, called: float) -> None:
            self.pending.called(uid, called)
            self.claims.wake(uid)

        # Its claims share the claims' ids, so that a claim is never taken and provisioned at the same time.
        racer = Race(
            parts.settings.nodes,
            caches,
            parts.kube,
            self._facts,
            check,
            parts.events,
            wake=lambda uid, after: loop.wake(uid, after),
            won=won,
        )
        loop = self._loop(QUEUE, racer.reconcile, about=lambda uid: {"PVC": caches.claims.by_uid(uid) or uid})
        self._owns = racer.owns
        return loop

    def _publish(self, client: "CapacityClient") -> "Publisher":
        """Keeps CSIStorageCapacity objects up to date: for this node's segment, or for those of all nodes."""
        from csi_provisioner.capacity.publisher import Publisher
        from csi_provisioner.capacity.segments import fixed

        parts, settings = self._parts, self._parts.settings
        own = fixed(parts.local.segments) if parts.local is not None else None
        return Publisher(
            client, settings.capacity, settings.retries, parts.driver, self._caches, parts.metrics, fixed=own
        )

    # ---- what they are made of

    def _provisioner(self, announcer: Announcer) -> ClaimReconciler:
        parts, caches, memory, publisher = self._parts, self._caches, self._parts.memory, self.publisher
        # Here they are subscribed after the cluster itself, so that a claim that they wake finds what woke it.
        unplaced = UnplacedClaims(self._facts.name, wake=lambda uid, after: self.claims.wake(uid, after))
        caches.claims.subscribe(unplaced.saw_claim)
        caches.nodes.subscribe(unplaced.saw_node)
        caches.csinodes.subscribe(unplaced.saw_csinode)
        placement = self._placement(memory, unplaced)
        creator = Creator(
            parts.driver,
            parts.orphans,
            migratable=self._facts.in_tree_name is not None,
            shield=partial(parts.end.shield, parts.settings.csi.timeout),
            deleted=memory.note_deleted,
            owner_of=announcer.named,
        )
        return ClaimReconciler(
            caches,
            claims.Rules(self._facts, parts.identity, parts.provisioning, parts.settings.retries),
            claims.Tools(
                parts.kube,
                self._gatherer(placement, memory.is_under_way, self.intents.taken),
                self.intents,
                creator,
                self.saver,
                memory,
                parts.orphans,
                parts.events,
                parts.metrics,
                self.pending,
                announcer.right,
            ),
            readers=self.readers,
            owner=self._owns,
            refresh=publisher.provisioned if publisher is not None else lambda storage_class, result, full: None,
        )

    def _topology(self) -> ClusterTopology:
        """This node alone in a per-node deployment, else all nodes."""
        if self._parts.local is not None:
            return self._parts.local.cluster(self._facts.name)
        # Kept up to date by the watch, because adding up all nodes for each claim would take too long.
        cluster = ClusterTopology(self._facts.name)
        self._caches.nodes.subscribe(cluster.node_changed)
        self._caches.csinodes.subscribe(cluster.csinode_changed)
        return cluster

    def _placement(self, memory: ClaimMemory, unplaced: UnplacedClaims | None = None) -> ClusterPlacement | None:
        if self._cluster is None:
            return None
        return ClusterPlacement(self._cluster, self._parts.provisioning, memory, unplaced)

    def _gatherer(
        self,
        placement: ClusterPlacement | None,
        under_way: Callable[[str], bool],
        taken: Callable[[str], Mapping[str, str] | None],
    ) -> Gatherer:
        return Gatherer(
            self._parts.kube,
            self._facts,
            self._parts.provisioning,
            grants=self._caches.grants.values,
            placement=placement,
            under_way=under_way,
            taken=taken,
        )

    def _loop_of_volumes(
        self,
        name: str,
        reconcile: Reconcile,
        find: Callable[[str], PersistentVolume | None],
        **more: Any,
    ) -> Loop:
        """A loop keyed by volume name. `find` looks the volume up; the loop excludes others by the volume's claim."""

        def claim_of(name: str) -> str:
            volume = find(name)
            return name if volume is None else claim_uid(volume)

        def about(name: str) -> dict[str, object]:
            volume = find(name)
            claim = volume.spec.claimRef if volume is not None else None
            return {"PV": volume or name} | ({"PVC": claim} if claim is not None else {})

        return self._loop(name, reconcile, id_of=claim_of, about=about, **more)

    def _loop(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        about: Callable[[str], Mapping[str, object]],
        id_of: Callable[[str], str] = lambda key: key,
        place: Callable[[str], tuple[Lane, str]] = lambda key: NOWHERE,
        workers: int | Lanes | None = None,
        backoff: Backoff | None = None,
    ) -> Loop:
        retries = self._parts.settings.retries
        return Loop(
            name,
            reconcile,
            workers=retries.workers if workers is None else workers,
            backoff=backoff or Backoff(retries.start, retries.maximum),
            exclusive=self._exclusive,
            metrics=self._parts.metrics.queue(name),
            about=about,
            id_of=id_of,
            place=place,
        )
