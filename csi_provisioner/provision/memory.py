"""What is known of claims beyond the caches, for as long as this process leads.

What a cache cannot tell: a volume that the driver may still be making (its claim is kept, even deleted), a
volume that was made or written but is not in a cache yet, and a claim the driver called infeasible. Losing this memory
is safe for claims that exist, because CreateVolume is idempotent by name; it is not for those that do not (`orphans`).
"""

import msgspec

from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim
from csi_provisioner.planning.topology import TopologyMemory


class Infeasible(msgspec.Struct, frozen=True):
    """The driver refused the claim as it stands (provision.md 6): not before `until`, unless the class changes."""

    until: float
    class_uid: str


class ClaimMemory:
    """Keyed by claim UID, but for the volumes that wait to be saved, which go by their own name."""

    def __init__(self) -> None:
        self.in_progress: dict[str, PersistentVolumeClaim] = {}
        self.infeasible: dict[str, Infeasible] = {}
        self.unsaved: dict[str, PersistentVolume] = {}
        self.topology: dict[str, TopologyMemory] = {}
        self._written: dict[str, str] = {}
        self._unsaved_of: dict[str, str] = {}
        self._refused: set[str] = set()
        self._turned_back: set[str] = set()
        self._made_for: dict[str, PersistentVolumeClaim] = {}  # the claims whose volumes are unsaved

    def ask(self, claim: PersistentVolumeClaim) -> None:
        """The driver is asked for the claim's volume: in progress until it says for certain."""
        self.in_progress[claim.metadata.uid] = claim
        self._turned_back.discard(claim.metadata.uid)

    def turn_back(self, uid: str) -> None:
        """A try ended before the driver was asked, and not for an API server that is away: an earlier one stays open,
        but nobody knows for how long."""
        if uid in self.in_progress:
            self._turned_back.add(uid)

    def settle(self, uid: str) -> bool:
        """Nothing is in progress any longer; was it?"""
        self._turned_back.discard(uid)
        return self.in_progress.pop(uid, None) is not None

    def is_under_way(self, uid: str) -> bool:
        """The driver may be making the claim's volume, or it is made and not written yet."""
        return uid in self.in_progress or uid in self._made_for

    def reading(self) -> dict[str, PersistentVolumeClaim]:
        """Claims under way, maybe deleted, whose source has to stay. One whose last try was turned back does not count:
        a source that is to go, held by a deleted claim that can never be asked for again, would stay for ever."""
        asked = {uid: claim for uid, claim in self.in_progress.items() if uid not in self._turned_back}
        return asked | self._made_for

    def keep_unsaved(self, volume: PersistentVolume, claim: PersistentVolumeClaim) -> None:
        self._made_for[claim.metadata.uid] = claim
        self._refused.discard(volume.metadata.name)
        self.unsaved[volume.metadata.name] = volume
        self._unsaved_of[claim_uid(volume)] = volume.metadata.name

    def note_written(self, volume: PersistentVolume) -> None:
        """The volume is in the API server: until the claim's cache shows it bound, no second one may be made."""
        name, uid = volume.metadata.name, claim_uid(volume)
        self.unsaved.pop(name, None)
        self._refused.discard(name)
        self._unsaved_of.pop(uid, None)
        self._made_for.pop(uid, None)
        self._written[uid] = name

    def note_refused(self, volume: PersistentVolume) -> None:
        """The API server will not have the volume as it is: it stays, but the driver may be asked for it anew."""
        self._refused.add(volume.metadata.name)

    def unsaved_name(self, uid: str) -> str | None:
        """Name of the claim's volume if it only waits to be written."""
        name = self._unsaved_of.get(uid)
        return None if name in self._refused else name

    @property
    def is_saving(self) -> bool:
        """Volumes wait to be written that the API server may still take."""
        return len(self.unsaved) > len(self._refused)

    def written(self, uid: str) -> str | None:
        """Name of the PersistentVolume that was written for the claim and that its cache does not show yet."""
        return self._written.get(uid)

    def forget(self, uid: str) -> None:
        """The claim is gone, and nothing is under way for it."""
        self.infeasible.pop(uid, None)
        self.topology.pop(uid, None)
        self._written.pop(uid, None)

    def forget_written(self, uid: str) -> None:
        self._written.pop(uid, None)

    def saw_claim(self, _key: str, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        """Handler of the claim store: what the cache shows by itself need not be remembered any longer."""
        if new is None and old is not None:
            self._written.pop(old.metadata.uid, None)
            self.infeasible.pop(old.metadata.uid, None)
        elif new is not None and new.spec.volumeName:
            self._written.pop(new.metadata.uid, None)


def claim_uid(volume: PersistentVolume) -> str:
    """UID of the claim a volume was made for; the volume's own name where there is no claim (design.md 3, rule 1)."""
    claim = volume.spec.claimRef
    return claim.uid if claim is not None and claim.uid else volume.metadata.name
