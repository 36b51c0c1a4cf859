"""Which lane a claim or a volume is in, and the workers of a leader term (design.md 7)."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain

from csi_provisioner.flagset import max_calls
from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.events import About, EventRecorder
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim, StorageClass
from csi_provisioner.model.outcome import Attempt, GiveUp, Outcome, State
from csi_provisioner.model.state import Lane, LaneState
from csi_provisioner.planning import deletion, gate, settled
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.wellknown import CLAIM_KIND, SNAPSHOT_KIND
from csi_provisioner.provision import recovery
from csi_provisioner.settings import Settings
from csi_provisioner.work.bounds import Bounds, StoppedError
from csi_provisioner.work.runner import Loop, Reconcile
from csi_provisioner.work.workers import Workers

NOWHERE = Lane(), ""
MAX_CALLS = "csi-provisioner.io/max-concurrent-calls"


class Fairness:
    """`find` gives the claim of a UID. There are workers of claims, and of what earlier leaders began, and as many of
    volumes; they bound calls."""

    def __init__(
        self,
        settings: Settings,
        facts: DriverFacts,
        caches: Caches,
        find: Callable[[str], PersistentVolumeClaim | None],
        events: EventRecorder,
    ) -> None:
        self._events = events
        self._facts = facts
        self._caches = caches
        self._find = find
        self._classes: set[str] = set()
        self._gone: set[str] = set()  # classes with an annotation that are gone, while volumes name them
        self._warned: dict[str, str] = {}  # class -> its annotation that is no number
        self.bounds = Bounds(dict(settings.retries.class_workers), exists=lambda name: name in caches.storage_classes)
        self._claims: Loop | None = None
        self._resume: list[Callable[[str], None]] = []
        self._copies = False  # a claim with a source was seen: its lane is beside that of claims without
        self._deleted_of: set[str] = set()  # classes of the volumes that were deleted, of which two tell enough
        make = partial(
            Workers,
            settings.retries.workers,
            bounds=self.bounds,
            limit=settings.csi.timeout if settings.retries.adaptive else None,
        )
        self.creates = make(
            several=lambda: self._copies or len(self._classes) > 1, fixed={recovery.LANE: recovery.WORKERS}
        )
        self.deletes = make(several=lambda: len(self._deleted_of | self._classes) > 1)
        caches.storage_classes.subscribe(self._saw_class)
        caches.volumes.subscribe(self._saw_volume)

    def serve(self, workers: Workers, loop: Loop, *, of_class: Callable[[str], Iterable[str]]) -> None:
        """The loop's tasks make their calls with these workers. `of_class`: the keys of a class, to go on with once it
        may have calls again."""

        def changed(class_: str) -> None:
            if self.bounds.of(class_) != 0:
                for key in of_class(class_):
                    loop.wake(key)

        workers.changed = loop.ranked
        if workers is self.creates:
            self._claims = loop
        loop.lane_states = lambda: workers.states(loop.lanes)
        self._resume.append(changed)

    def told(self, reconcile: Reconcile, find: Callable[[str], About | None], reason: str) -> Reconcile:
        """Says on the object that its class may have no calls; a change of that wakes it."""

        async def reconcile_or_tell(key: str, attempt: Attempt) -> Outcome:
            try:
                return await reconcile(key, attempt)
            except StoppedError as stopped:
                if (about := find(key)) is not None:
                    self._events.record(about, "Normal", reason, str(stopped))
                return GiveUp(str(stopped), State.NO_CHANGE)

        return reconcile_or_tell

    def volumes_of(self, class_: str) -> Iterator[str]:
        """Those that are to be deleted."""
        for volume in self._caches.volumes.values():
            if (volume.spec.storageClassName or "") == class_ and deletion.should_delete(volume):
                yield volume.metadata.name

    def of_claim(self, uid: str) -> tuple[Lane, str]:
        """The claim's lane and namespace."""
        claim = self._find(uid)
        if claim is None:
            return NOWHERE
        name = gate.claim_class(claim)
        source = claim.spec.dataSource or claim.spec.dataSourceRef
        kind = source.kind if source is not None and source.kind in (CLAIM_KIND, SNAPSHOT_KIND) else ""
        self._copies = self._copies or bool(kind)
        return Lane(name if name in self._caches.storage_classes else "", kind), claim.metadata.namespace or ""

    def lane_of(self, uid: str) -> LaneState:
        """The claim's, as it is now."""
        lane, _ = self.of_claim(uid)
        states = {state.lane: state for state in self._claims.lane_states()} if self._claims is not None else {}
        return states.get(lane) or LaneState(lane, bound=self.creates.bound(lane))

    def of_volume(self, name: str) -> tuple[Lane, str]:
        volume = self._caches.volumes.get(name)
        # A change of our finalizer is no call, and must not wait for those of the class.
        if volume is None or not deletion.should_delete(volume):
            return NOWHERE
        class_ = volume.spec.storageClassName or ""
        if len(self._deleted_of) < 2:
            self._deleted_of.add(class_)
        claim = volume.spec.claimRef
        return Lane(class_), (claim.namespace or "") if claim is not None else ""

    def _saw_class(self, name: str, old: StorageClass | None, new: StorageClass | None) -> None:
        ours = new is not None and self._facts.answers_to(new.provisioner)
        (self._classes.add if ours else self._classes.discard)(name)
        if (old is None) != (new is None):
            self.bounds.came_or_went(name)
        # A class that is gone leaves its bound, but for 0, until no volume names it.
        if new is not None:
            self._gone.discard(name)
            self._annotate(name, (new.metadata.annotations or {}).get(MAX_CALLS) if ours else None)
        elif self.bounds.of(name) is not None:
            self._gone.add(name)
            self._forget(name)
        if new is None:
            self._go_on(name)

    def _annotate(self, name: str, text: str | None) -> None:
        before, bound = self.bounds.of(name), None
        try:
            bound = None if text is None else max_calls(text)
        except ValueError as error:
            if self._warned.get(name) != text:
                log.warning(f"The annotation {MAX_CALLS} of a StorageClass bounds nothing: {error}", storageClass=name)
        self._warned = {other: said for other, said in self._warned.items() if other != name}
        if text is not None and bound is None:
            self._warned[name] = text
        self.bounds.annotate(name, bound)
        if before == 0:
            self._go_on(name)

    def _go_on(self, name: str) -> None:
        for resume in self._resume:
            resume(name)

    def _saw_volume(self, _name: str, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        if new is None and old is not None and self._gone:
            self._forget(old.spec.storageClassName or "")

    def _forget(self, name: str) -> None:
        volumes = self._caches.volumes
        classes = chain(
            (volume.spec.storageClassName or "" for volume in volumes.values()), map(settled.class_of, volumes.notes())
        )
        if name in self._gone and name not in classes:
            self._gone.discard(name)
            self._annotate(name, None)
