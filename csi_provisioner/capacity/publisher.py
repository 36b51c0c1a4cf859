"""Keeps the CSIStorageCapacity objects true: asks the driver, writes, deletes (capacity.md 7, 8 and 10).

What should exist and what follows from a change is `desired`'s; here is the work it gives out. A key of the queue is
the work itself, encoded, so that the same work twice is one item with one backoff. All requests go through a client
of their own, whose limit keeps them from slowing provisioning down.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
import trio

from csi_provisioner.capacity import objects, segments
from csi_provisioner.capacity.desired import Desired, Work
from csi_provisioner.capacity.freshness import Freshness
from csi_provisioner.capacity.objects import Pair, Publication
from csi_provisioner.capacity.segments import Segment
from csi_provisioner.csi.driver import Driver
from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.client import KubeClient, KubeError, Scope
from csi_provisioner.kube.reflector import Reflector
from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model import csi, kubernetes
from csi_provisioner.model.kubernetes import (
    CSINode,
    CSIStorageCapacity,
    Node,
    NodeName,
    PersistentVolume,
    StorageClass,
)
from csi_provisioner.model.outcome import DONE, Attempt, Outcome, State, TryError, after
from csi_provisioner.planning import terms
from csi_provisioner.settings import CapacitySettings, RetrySettings
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import Loop, Reconcile

QUEUE, TOPOLOGY_QUEUE = "csistoragecapacity", "csitopology"
# The only key of the topology queue.
LOOK = "segments"
# Wait for more changes before looking at all nodes: a rollout changes many in a second, and 5,000 cost about 15 ms.
SETTLE = 0.2

# Of a poll interval: a class that fails again and again is asked for as a whole four times as often as it is anyway.
LOOKS = 0.25

# --capacity-poll-interval accepts 0, which would poll the driver without a pause.
SHORTEST_POLL = 0.1


class CapacityClient(msgspec.Struct, frozen=True):
    """A client with its own rate limit (`--kube-api-capacity-qps`), and what all our objects have in common."""

    kube: KubeClient
    publication: Publication


class Publisher(msgspec.Struct, eq=False, dict=True):
    """Publishes during one leader term. `fixed` is the only segment in a per-node deployment, else None."""

    client: CapacityClient
    settings: CapacitySettings
    retries: RetrySettings
    driver: Driver
    caches: Caches
    metrics: Metrics
    fixed: Segment | None
    _store: Store[CSIStorageCapacity] = msgspec.field(default_factory=Store)
    _created: dict[Pair, str] = msgspec.field(default_factory=dict)
    """Keys of objects whose creation the watch has not shown yet."""

    def __post_init__(self) -> None:
        self._kube, self._publication = self.client.kube, self.client.publication
        self.desired = Desired(self._publication, immediate_binding=self.settings.immediate_binding)
        self.loop = self._loop(QUEUE, self._reconcile, self.settings.threads)
        self._discovery = self._loop(TOPOLOGY_QUEUE, self._look, 1) if self.fixed is None else None
        self._freshness = Freshness(self.settings.poll_interval * LOOKS)
        self.metrics.capacity(self.desired.goal, self.desired.current, self._obsolete, self._age)

    def _loop(self, name: str, reconcile: Reconcile, workers: int) -> Loop:
        backoff, queue = Backoff(self.retries.start, self.retries.maximum), self.metrics.queue(name)
        return Loop(name, reconcile, workers=workers, backoff=backoff, exclusive=Exclusive(), metrics=queue)

    async def run(self) -> None:
        """Runs until cancelled; the other caches must be complete. If this cannot work, claims are still served."""
        reflector = Reflector(
            self._kube,
            CSIStorageCapacity,
            self._store,
            Scope(self._publication.namespace, self._publication.selector()),
        )
        self.caches.lags[reflector.kind.__name__] = reflector.lag
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(reflector.run)
                self._begin()
                nursery.start_soon(self.loop.run)
                nursery.start_soon(self._poll)
                if self._discovery is not None:
                    self._discovery.wake(LOOK)
                    nursery.start_soon(self._discovery.run)
        finally:
            self.metrics.capacity(*4 * (lambda: 0,))  # who leads next publishes, and says how old it is

    def _age(self) -> float:
        return self._freshness.age(self.desired.pairs())

    def published(self) -> Iterable[CSIStorageCapacity]:
        return self._store.values()

    def _obsolete(self) -> int:
        return self.desired.obsolete(self._store.values())

    # ---- what others tell

    def provisioned(self, storage_class: StorageClass, result: PersistentVolume | State, full: NodeName) -> None:
        """A try of the class ended: with the volume as it was written, or without one. `full`: the node for which the
        driver had no room; where it has some is what the scheduler wants to know next."""
        name, after = storage_class.metadata.name, None
        if result is State.NO_CHANGE:
            return
        if isinstance(result, State):
            pair = Pair(self._segment(full), name)
            if full and self.desired.known(pair) is not None:
                self.loop.wake(_key(pair), first=True)
            after = self._freshness.look(name)
            if after is None:  # all pairs of the class wait already, and there may be thousands
                return
        self._enqueue(self.desired.tried(name, result), after or 0.0)

    def _segment(self, node: NodeName) -> Segment:
        csinode, found = self.caches.csinodes.get(node), self.caches.nodes.get(node)
        if self.fixed is not None or csinode is None or found is None:
            return self.fixed or ()
        return next(iter(segments.of_nodes(self._publication.driver, [csinode], {node: found})), ())

    def deleted(self, volume: PersistentVolume) -> None:
        self._enqueue(self.desired.deleted(volume))

    # ---- what gives work

    def _begin(self) -> None:
        """Pairs first, then objects (capacity.md 7): an object seen before its pair would look like a surplus one."""
        self._find_segments()
        self.caches.nodes.subscribe(self._saw_node)
        self.caches.csinodes.subscribe(self._saw_csinode)
        self.caches.storage_classes.subscribe(self._saw_class)
        self._store.subscribe(self._saw_object)
        stores: tuple[Store[Any], ...] = self.caches.storage_classes, self._store
        for store in stores:
            for key in store.shown_keys():
                store.replay(key)
        log.info(
            "Publishing storage capacity",
            pairs=self.desired.goal(),
            objects=len(self._store),
            namespace=self._publication.namespace,
            managedBy=self._publication.manager,
        )

    async def _poll(self) -> None:
        """Asks for all pairs once per interval; the first round is `_begin`."""
        while True:
            await trio.sleep(max(self.settings.poll_interval, SHORTEST_POLL))
            self._enqueue(self.desired.pairs())
            self._freshness.keep(self.desired.pairs())
            log.v(3, "Storage capacity is asked for", pairs=self.desired.goal(), published=self.desired.current())

    async def _look(self, _key: str, _attempt: Attempt) -> Outcome:
        self._find_segments()
        return DONE

    def _find_segments(self) -> None:
        """Those of this node alone, or those that the cluster has now (capacity.md 5.1)."""
        found = frozenset([self.fixed or ()])
        if self._discovery is not None:
            nodes = {node.metadata.name: node for node in self.caches.nodes.values()}
            found = segments.of_nodes(self._publication.driver, self.caches.csinodes.values(), nodes)
        self._enqueue(self.desired.segments_changed(found))

    def _saw_node(self, _key: str, old: Node | None, new: Node | None) -> None:
        if self._discovery is not None and segments.node_matters(old, new):
            self._discovery.wake(LOOK, SETTLE)

    def _saw_csinode(self, _key: str, old: CSINode | None, new: CSINode | None) -> None:
        if self._discovery is not None and segments.csinode_matters(self._publication.driver, old, new):
            self._discovery.wake(LOOK, SETTLE)

    def _saw_class(self, name: str, old: StorageClass | None, new: StorageClass | None) -> None:
        self._enqueue(self.desired.class_changed(name, old, new))

    def _saw_object(self, key: str, old: CSIStorageCapacity | None, new: CSIStorageCapacity | None) -> None:
        shown = new or old
        pair = objects.pair_of(shown) if shown is not None else None
        if pair is not None and self._created.get(pair) == key:
            del self._created[pair]
        self._enqueue(self.desired.object_changed(old, new))

    def _enqueue(self, work: Iterable[Work], after: float = 0.0) -> None:
        for item in work:
            self.loop.wake(_key(item), after)

    # ---- the work

    async def _reconcile(self, key: str, _attempt: Attempt) -> Outcome:
        work = msgspec.json.decode(key, type=Work)
        try:
            if isinstance(work, str):
                await self._delete(work)
            else:
                await self._publish(work)
        except TryError as error:
            return after(error, f"{self._named(work)}: {error}")
        return DONE

    async def _publish(self, pair: Pair) -> None:
        wanted = self.desired.known(pair)
        if wanted is None:
            return
        found = await self.driver.get_capacity(objects.question(pair, wanted[0]))
        # Look again: during the call the pair may have gone or got its object, and a second one would be surplus.
        wanted = self.desired.known(pair)
        if wanted is not None:
            await self._write(pair, self._newest(pair, wanted[1]), found)
            self._freshness.answered(pair)

    def _newest(self, pair: Pair, shown: CSIStorageCapacity | None) -> CSIStorageCapacity | None:
        """The pair's object as we wrote it last, also if the watch has not shown that version yet."""
        return self._store.get(kubernetes.key(shown) if shown is not None else self._created.get(pair, ""))

    async def _write(self, pair: Pair, known: CSIStorageCapacity | None, found: csi.GetCapacityResponse) -> None:
        if known is None:
            written = await self._kube.create(CSIStorageCapacity, objects.new(pair, found, self._publication))
            self._store.remember(written)
            if self._store.get(kubernetes.key(written)) is written:
                self._created[pair] = kubernetes.key(written)  # until the watch shows it, if it has not yet
        else:
            patch = objects.correction(known, found, self._publication)
            if patch is None:
                return
            name, namespace = known.metadata.name, self._publication.namespace
            written = await self._kube.patch(CSIStorageCapacity, name, patch, namespace)
            self._store.remember(written)
        log.v(
            5,
            "Storage capacity published",
            object=kubernetes.key(written),
            storageClass=pair.class_name,
            segment=dict(pair.segment),
            capacity=written.capacity,
        )

    async def _delete(self, name: str) -> None:
        try:
            await self._kube.delete(CSIStorageCapacity, name, self._publication.namespace)
        except KubeError as error:
            if not error.not_found:
                raise

    def _named(self, work: Work) -> str:
        if isinstance(work, str):
            return f"surplus object {self._publication.namespace}/{work}"
        return f"StorageClass {work.class_name} in {{{terms.text(work.segment)}}}"


def _key(work: Work) -> str:
    return msgspec.json.encode(work).decode()
