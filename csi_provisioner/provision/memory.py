"""What is known of claims beyond the caches, for as long as this process leads: one record a claim.

What a cache cannot tell: a volume that the driver may still be making (its claim is kept, even deleted), a
volume that was made or written but is not in a cache yet, and a claim the driver called infeasible. Losing this memory
is safe for claims that exist, because CreateVolume is idempotent by name; it is not for those that do not (`orphans`).
"""

import math
from collections.abc import Iterator, Mapping

import msgspec

from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim
from csi_provisioner.planning.topology import TopologyMemory


class Infeasible(msgspec.Struct, frozen=True):
    """The driver refused the claim as it stands (provision.md 6): not before `until`, unless the class changes."""

    until: float
    class_uid: str


class Unsaved(msgspec.Struct):
    """A volume that is made, until its PersistentVolume is known to be in the API server."""

    volume: PersistentVolume
    claim: PersistentVolumeClaim
    volume_id: str
    """The driver's, which the in-tree form of a volume does not tell."""
    refused: bool = False
    """The API server will not have it as it is: it stays, but the driver may be asked for it anew."""
    told: int = 0
    """The status that was last said to be one that only a person can change."""
    sent: bool = False
    """It was sent once, and no answer said that it is written: it may be there."""
    seen: bool = False
    """The watch has shown it."""
    ended: bool = False
    """The watch has shown its end, or the driver was asked to delete the volume: it must not come back."""


class Record(msgspec.Struct):
    """One claim, by its UID."""

    asked: PersistentVolumeClaim | None = None
    """As it was when the driver was asked; it may be at work on the volume until it says for certain that it is not."""
    asked_at: float = 0.0
    annotations: Mapping[str, str] | None = None
    """Those that the driver was given when it was first asked."""
    refused_since: bool = False
    """A later try ended before the driver was asked: nobody knows for how long the earlier one stays open."""
    infeasible: Infeasible | None = None
    topology: TopologyMemory | None = None
    unsaved: Unsaved | None = None
    written: str = ""
    """Name of the PersistentVolume that was written and that the claim's cache does not show yet."""


EMPTY = Record()
NOWHERE = ("", "")


class Wait(msgspec.Struct, gc=False):
    """How long a claim waits, until it is bound (`waiting`). Times are of Trio's clock."""

    group: tuple[str, str] = NOWHERE
    """Its class and why it waits."""
    ready: float = math.inf
    """Since when; without end while the scheduler has chosen no node."""
    timed: bool = False
    """That moment is known, and its volume is still to be measured."""
    calling: bool = False
    failed: str = ""
    """The step at which the last try ended."""
    made: bool = False
    """The PersistentVolume is there."""
    written: float | None = None
    excused: float = 0.0
    """Seconds of calls and of back-off after the driver's failures, but for those in which it was away."""
    held: tuple[float, float] | None = None
    """The back-off that goes on: its beginning and its end."""


class ClaimMemory:
    """Keyed by claim UID; volumes that wait to be saved are also found by their own name."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._uids: dict[str, str] = {}  # of the claims whose volumes are unsaved, by the volume's name
        self.waits: dict[str, Wait] = {}

    def __contains__(self, uid: str) -> bool:
        return uid in self._records

    def holds(self, uid: str) -> bool:
        """Is anything known of the claim, so that its cache has to keep it whole?"""
        return uid in self._records or uid in self.waits

    def of(self, uid: str) -> Record:
        """To be read only: a claim of which nothing is known has an empty one."""
        return self._records.get(uid, EMPTY)

    def _edit(self, uid: str) -> Record:
        return self._records.setdefault(uid, Record())

    def _tidy(self, uid: str) -> None:
        # Records of claims of which nothing is known any more would add up for as long as the process leads.
        if self._records.get(uid) == EMPTY:
            del self._records[uid]

    # ---- the driver is asked

    def ask(self, claim: PersistentVolumeClaim, at: float = 0.0, annotations: Mapping[str, str] | None = None) -> None:
        """In progress until the driver says for certain."""
        record = self._edit(claim.metadata.uid)
        if record.asked is None:
            record.annotations = annotations
        record.asked, record.asked_at, record.refused_since = claim, at, False

    def refuse_before_call(self, uid: str) -> None:
        """A try ended before the driver was asked, and not for an API server that is away."""
        self._edit(uid).refused_since = self.of(uid).asked is not None
        self._tidy(uid)

    def finish(self, uid: str) -> bool:
        """Nothing is in progress any longer, so that the next try may ask for another place; was it?"""
        record = self._edit(uid)
        asked, record.asked, record.refused_since, record.topology = record.asked is not None, None, False, None
        record.asked_at, record.annotations = 0.0, None
        self._tidy(uid)
        return asked

    def in_progress(self) -> dict[str, PersistentVolumeClaim]:
        return {uid: record.asked for uid, record in self._records.items() if record.asked is not None}

    def is_under_way(self, uid: str) -> bool:
        """The driver may be making the claim's volume, or it is made and not written yet."""
        record = self.of(uid)
        return record.asked is not None or record.unsaved is not None

    def reading(self) -> dict[str, PersistentVolumeClaim]:
        """Claims under way, maybe deleted, whose source has to stay. One whose last try was refused before the call
        does not count: a deleted claim that can never be asked for again would hold its source for ever."""
        found = {}
        for uid, record in self._records.items():
            # Also where it was refused: the driver may be asked again, and then reads the source again.
            if record.unsaved is not None:
                found[uid] = record.unsaved.claim
            elif record.asked is not None and not record.refused_since:
                found[uid] = record.asked
        return found

    def hold_off(self, uid: str, infeasible: Infeasible | None) -> None:
        self._edit(uid).infeasible = infeasible
        self._tidy(uid)

    def topology(self, uid: str) -> TopologyMemory:
        """What earlier tries saw of the cluster; theirs to change."""
        record = self._edit(uid)
        record.topology = record.topology or TopologyMemory()
        return record.topology

    # ---- a volume is made

    def keep_unsaved(self, volume: PersistentVolume, claim: PersistentVolumeClaim, volume_id: str) -> None:
        """Another answer of the driver takes the place of the one before. What became of that one's PersistentVolume is
        this one's too, but not its end: the volume is there, maybe made anew under its old id."""
        if self._uids.get(volume.metadata.name, claim.metadata.uid) != claim.metadata.uid:
            self.drop_unsaved(volume.metadata.name)  # two claims share a name that is too short: the last one has it
        record = self._edit(claim.metadata.uid)
        before = record.unsaved
        record.unsaved = Unsaved(volume, claim, volume_id)
        # The same volume: what was sent before may be in the API server under this name.
        if before is not None and before.volume_id == volume_id and not before.ended:
            record.unsaved.sent, record.unsaved.seen = before.sent, before.seen
        self._uids[volume.metadata.name] = claim.metadata.uid

    def note_written(self, name: str) -> None:
        """The volume is in the API server: until the claim's cache shows it bound, no second one may be made."""
        if name in self._uids:
            record = self._edit(self._uids.pop(name))
            record.unsaved, record.written = None, name

    def drop_unsaved(self, name: str) -> None:
        """It was written and is gone again, or its volume is deleted."""
        uid = self._uids.pop(name)
        self._edit(uid).unsaved = None
        self._tidy(uid)

    def unsaved(self, name: str) -> Unsaved | None:
        return self.of(self._uids.get(name, "")).unsaved

    def all_unsaved(self) -> Iterator[Unsaved]:
        return (entry for name in list(self._uids) if (entry := self.unsaved(name)) is not None)

    @property
    def is_saving(self) -> bool:
        """Volumes wait to be written that the API server may still take."""
        return any(not entry.refused for entry in self.all_unsaved())

    def note_deleted(self, volume_id: str) -> None:
        """The driver was asked to delete this volume: no PersistentVolume of it may be written any more."""
        for entry in self.all_unsaved():
            if entry.volume_id == volume_id:
                entry.ended = True

    # ---- the claim ends, or a cache shows what was remembered

    def forget(self, uid: str) -> None:
        """The claim is gone, and nothing is under way for it."""
        record = self._edit(uid)
        record.infeasible, record.topology, record.written = None, None, ""
        self._tidy(uid)

    def forget_written(self, uid: str) -> None:
        self._edit(uid).written = ""
        self._tidy(uid)

    def saw_claim(self, _key: str, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        """Handler of the claim store: what the cache shows by itself need not be remembered any longer."""
        # Looked up first, because nearly all claims of a cluster have no record, and none is made for this.
        if new is None and old is not None and old.metadata.uid in self:
            self.hold_off(old.metadata.uid, None)
            self.forget_written(old.metadata.uid)
        elif new is not None and new.spec.volumeName and new.metadata.uid in self:
            # The next try that wants no volume ends what is in progress.
            done = self.of(new.metadata.uid).asked is None
            (self.forget if done else self.forget_written)(new.metadata.uid)

    def saw_volume(self, name: str, _old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        """Handler of the volume store: an answer that was lost is given by the watch."""
        entry = self.unsaved(name)
        if entry is not None and entry.sent:
            entry.seen, entry.ended = True, entry.ended or new is None


def claim_uid(volume: PersistentVolume) -> str:
    """UID of the claim a volume was made for; the volume's own name where there is no claim (design.md 3, rule 1)."""
    claim = volume.spec.claimRef
    return claim.uid if claim is not None and claim.uid else volume.metadata.name
