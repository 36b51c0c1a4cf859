"""Which CSIStorageCapacity objects should exist, which do, and what is to be done about it (capacity.md 6, 9, 10).

The state of the publisher, without its loops: told of every change of segments, classes and objects, it answers with
the work that follows. Objects are known only as the watch showed them, never as a write returned them, so that no
older version replaces a newer one. The same work may be given out twice; a queue that merges keys makes it one.
"""

from collections.abc import Iterable

from csi_provisioner.capacity import objects
from csi_provisioner.capacity.objects import Pair, Publication
from csi_provisioner.capacity.segments import Segment
from csi_provisioner.model.kubernetes import CSIStorageCapacity, PersistentVolume, StorageClass
from csi_provisioner.model.outcome import State
from csi_provisioner.planning.affinity import segments as segments_of
from csi_provisioner.planning.gate import IMMEDIATE_BINDING

Work = Pair | str
"""A pair to publish, or the name of a surplus object. That is deleted without another look: a pair that came back gets
a new object."""


class Desired:
    def __init__(self, publication: Publication, *, immediate_binding: bool) -> None:
        self._publication = publication
        self._immediate_binding = immediate_binding
        self._segments: frozenset[Segment] = frozenset()
        self._classes: dict[str, StorageClass] = {}
        self._pairs: dict[Pair, CSIStorageCapacity | None] = {}
        self._by_uid: dict[str, Pair] = {}

    # ---- what is asked

    def known(self, pair: Pair) -> tuple[StorageClass, CSIStorageCapacity | None] | None:
        """The class and the object of a pair; None if the pair is no longer wanted."""
        return (self._classes[pair.class_name], self._pairs[pair]) if pair in self._pairs else None

    def pairs(self) -> list[Pair]:
        return list(self._pairs)

    def goal(self) -> int:
        return len(self._pairs)

    def current(self) -> int:
        return len(self._by_uid)

    def obsolete(self, cached: Iterable[CSIStorageCapacity]) -> int:
        """Managed objects that fit no pair; duplicates fit."""
        return sum(self._publication.manages(obj) and objects.pair_of(obj) not in self._pairs for obj in cached)

    # ---- what is told

    def segments_changed(self, segments: frozenset[Segment]) -> list[Work]:
        added, removed = segments - self._segments, self._segments - segments
        self._segments = segments
        return [work for name in self._classes for work in (*self._add(added, name), *self._remove(removed, name))]

    def class_changed(self, name: str, _old: StorageClass | None, new: StorageClass | None) -> list[Work]:
        """A resync comes here too and refreshes the class's pairs."""
        if new is not None and self._is_eligible(new):
            self._classes[name] = new
            return self._add(self._segments, name)
        # Only what was eligible has pairs. All classes of the cluster come here.
        return [] if self._classes.pop(name, None) is None else self._remove(self._segments, name)

    def object_changed(self, old: CSIStorageCapacity | None, new: CSIStorageCapacity | None) -> list[Work]:
        """A change of the UID is a deletion and a creation that were seen together."""
        if old is not None and new is not None and old.metadata.uid != new.metadata.uid:
            return self._gone(old) + self._seen(new)
        if new is not None:
            return self._seen(new)
        return self._gone(old) if old is not None else []

    def tried(self, class_name: str, result: PersistentVolume | State) -> list[Pair]:
        """Pairs whose free space may have changed by a try to provision from the class. All others wait for polling."""
        if isinstance(result, PersistentVolume) and result.spec.nodeAffinity is not None:
            return self.deleted(result)  # space changed in the same pairs
        # NO_CHANGE: this try changed nothing in the driver.
        if result is State.NO_CHANGE or class_name not in self._classes:
            return []
        return [Pair(segment, class_name) for segment in self._segments]

    def deleted(self, volume: PersistentVolume) -> list[Pair]:
        """Pairs whose free space the volume's deletion has changed. Without affinity its segment is not known."""
        affinity = volume.spec.nodeAffinity
        wanted = self._segments.intersection(segments_of(affinity)) if affinity is not None else ()
        return [Pair(segment, name) for segment in wanted for name in self._classes]

    # ---- pairs

    def _is_eligible(self, storage_class: StorageClass) -> bool:
        immediate = storage_class.volumeBindingMode == IMMEDIATE_BINDING
        ours = storage_class.provisioner == self._publication.driver
        return ours and (self._immediate_binding or not immediate)

    def _add(self, segments: Iterable[Segment], name: str) -> list[Work]:
        pairs = [Pair(segment, name) for segment in segments]
        for pair in pairs:
            # A pair that is known keeps its object: this is also a resync.
            self._pairs.setdefault(pair, None)
        return [*pairs]

    def _remove(self, segments: Iterable[Segment], name: str) -> list[Work]:
        found = [self._pairs.pop(Pair(segment, name), None) for segment in segments]
        surplus = [obj.metadata for obj in found if obj is not None]
        for meta in surplus:
            del self._by_uid[meta.uid]  # so that its deletion does not call for a new one
        return [meta.name for meta in surplus]

    # ---- objects

    def _seen(self, obj: CSIStorageCapacity) -> list[Work]:
        if not self._publication.manages(obj):
            # Somebody removed our labels: the object is theirs now, and the pair needs a new one.
            return self._gone(obj)
        # By its UID first, not by what it says: a pair keeps its object, and the next poll corrects it (capacity.md 9).
        pair = self._by_uid.get(obj.metadata.uid)
        if pair is not None:
            self._pairs[pair] = obj
            return []
        pair = objects.pair_of(obj)
        # Unknown, no longer wanted, or a second object for its pair.
        if pair is None or self._pairs.get(pair, obj) is not None:
            return [obj.metadata.name]
        self._pairs[pair] = obj
        self._by_uid[obj.metadata.uid] = pair
        return []

    def _gone(self, obj: CSIStorageCapacity) -> list[Work]:
        pair = self._by_uid.pop(obj.metadata.uid, None)
        if pair is None:
            return []
        self._pairs[pair] = None
        return [pair]
