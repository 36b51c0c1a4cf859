"""Which volumes of the storage backend nobody owns, and how that is known: the journal, what was told, and lists.

Design.md 8. One volume is one finding, with all its evidence. What may be somebody else's is only counted.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim, SecretReference
from csi_provisioner.planning import deletion, naming, wellknown
from csi_provisioner.planning.entries import Entry
from csi_provisioner.planning.leftover import Leftover
from csi_provisioner.settings import ProvisioningSettings

JOURNAL, LISTING = "journal", "listing"

# One in so many listed volumes without an owner is believed; more of them are rather a wrong list.
SHARE = 5


class Known(msgspec.Struct, frozen=True):
    """`listed` are the driver's volumes by id, None where it does not list them."""

    driver: str
    settings: ProvisioningSettings
    volumes: list[PersistentVolume]
    claims: list[PersistentVolumeClaim]
    journal: dict[str, Entry] = {}
    leftovers: list[Leftover] = []
    listed: Mapping[str, csi.ListVolumesResponseEntry] | None = None


class Finding(msgspec.Struct):
    """`volume_id` is empty where nobody knows it, `name` is that of the PersistentVolume."""

    volume_id: str
    name: str
    claim: str = ""
    found: list[str] = msgspec.field(default_factory=list)
    """journal, dropped, suspect, listing"""
    evidence: list[str] = msgspec.field(default_factory=list)
    capacity: int | None = None
    published: list[str] = msgspec.field(default_factory=list)
    """Nodes that the driver says have it."""
    entry: Entry | None = None
    leftover: Leftover | None = None
    volume: csi.Volume | None = None

    @property
    def secret(self) -> SecretReference | None:
        given = self.entry or self.leftover
        return given.secret if given is not None else None

    @property
    def migrated(self) -> bool:
        given = self.entry or self.leftover
        return given is not None and given.migrated


class Report(NamedTuple):
    orphans: list[Finding]
    in_progress: int
    """Volumes that a living claim waits for."""
    unknown: list[str]
    """Ids in the driver's list that nothing here names; another cluster may own them."""

    def find(self, volume_id: str) -> Finding | None:
        return next((finding for finding in self.orphans if finding.volume_id == volume_id), None)


def owner(volumes: Iterable[PersistentVolume], volume_id: str) -> str | None:
    """The PersistentVolume, of whatever name and driver, that names the volume."""
    return next((volume.metadata.name for volume in volumes if deletion.handle(volume) == volume_id), None)


def report(known: Known) -> Report:
    return _Look(known).report()


def doubt(known: Known, found: Report) -> str | None:
    """Why the lists look wrong rather than the volumes lost."""
    if not known.volumes and (found.orphans or known.listed):
        return "the cluster has no PersistentVolume at all"
    # What the journal or a warning says too is no matter of lists.
    alone = sum(finding.found == [LISTING] for finding in found.orphans)
    if alone * SHARE > len(known.listed or ()):
        return f"{alone} of the {len(known.listed or ())} volumes that the driver lists have no PersistentVolume"
    return None


class _Look:
    def __init__(self, known: Known) -> None:
        self._known = known
        self._handles = {handle for volume in known.volumes if (handle := deletion.handle(volume))}
        self._names = {volume.metadata.name for volume in known.volumes}
        names = ((naming.volume_name(claim.metadata.uid, known.settings), claim) for claim in known.claims)
        self._claims = dict(names)
        # Not within a longer word: another prefix may end as ours does.
        length = known.settings.volume_name_uuid_length
        uid = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}" if length == -1 else f"[0-9a-f]{{{length}}}"
        self._named = re.compile(f"(?<![a-z0-9]){re.escape(known.settings.volume_name_prefix)}-{uid}(?![a-z0-9])")
        self._findings: dict[str, Finding] = {}  # by id, or by name where that is unknown
        self._in_progress: set[str] = set()
        self._unknown: list[str] = []

    def report(self) -> Report:
        listed = self._known.listed
        # What was noted without an id gets it from the list.
        ids = {name: id_ for id_, entry in (listed or {}).items() if (name := self._name_of(id_, entry))}
        for name, entry in self._known.journal.items():
            self._judge_entry(name, entry, ids.get(name, ""))
        for leftover in self._known.leftovers:
            self._judge_leftover(leftover, leftover.volume_id or ids.get(leftover.name, ""))
        for id_, volume in (listed or {}).items():
            self._judge_listed(id_, volume)
        return Report(list(self._findings.values()), len(self._in_progress), self._unknown)

    def _judge_entry(self, name: str, entry: Entry, volume_id: str) -> None:
        if name in self._names or volume_id in self._handles:
            return
        if self._is_awaited(name):
            self._in_progress.add(name)
            return
        since = (
            f"in the volume journal since {_moment(entry.when)}, and no claim waits for it; the leader looks after it"
        )
        finding = self._finding(volume_id, name, JOURNAL, since)
        finding.claim, finding.entry = str(entry.claim), entry

    def _judge_leftover(self, leftover: Leftover, volume_id: str) -> None:
        listed = self._known.listed
        if volume_id in self._handles or (not volume_id and leftover.name in self._names):
            return
        if volume_id and listed is not None and volume_id not in listed:
            # It is gone from the backend: somebody has deleted it there.
            return
        if leftover.kind == "suspect" and self._is_awaited(leftover.name):
            self._in_progress.add(leftover.name)
            return
        text = f"told at {_moment(leftover.when)}: {leftover.reason}"
        finding = self._finding(volume_id, leftover.name, leftover.kind, text)
        finding.claim, finding.leftover = finding.claim or leftover.claim, leftover

    def _judge_listed(self, volume_id: str, listed: csi.ListVolumesResponseEntry) -> None:
        if volume_id in self._handles:
            return
        name = self._name_of(volume_id, listed)
        # What is known of it already is evidence enough, whatever its id and context say.
        known = self._findings.get(volume_id)
        if known is None and name is None:
            self._unknown.append(volume_id)
            return
        # Made this very moment: its PersistentVolume comes.
        if name is not None and self._is_awaited(name):
            self._in_progress.add(name)
            return
        finding = known or self._finding(volume_id, name or "", LISTING, self._why(name or "", listed))
        if LISTING not in finding.found:
            finding.found.append(LISTING)
        finding.volume = listed.volume
        finding.capacity = listed.volume.capacity_bytes or None if listed.volume else None
        finding.published = list(listed.status.published_node_ids) if listed.status else []

    def _why(self, name: str, listed: csi.ListVolumesResponseEntry) -> str:
        said = wellknown.VOLUME_NAME_PARAMETER in self._context(listed)
        where = "its volume_context names" if said else "its id holds"
        if name in self._names:
            return f"{where} PersistentVolume {name}, which is of another volume"
        return f"{where} {name}, and no PersistentVolume or claim has that name or UID"

    def _finding(self, volume_id: str, name: str, source: str, evidence: str) -> Finding:
        finding = self._findings.setdefault(volume_id or name, Finding(volume_id, name))
        finding.found.append(source)
        finding.evidence.append(evidence)
        return finding

    def _name_of(self, volume_id: str, listed: csi.ListVolumesResponseEntry) -> str | None:
        """The PersistentVolume for which it was made: the driver's word, else what its id says."""
        if name := self._context(listed).get(wellknown.VOLUME_NAME_PARAMETER):
            return name
        match = self._named.search(volume_id)
        return match[0] if match else None

    def _context(self, listed: csi.ListVolumesResponseEntry) -> Mapping[str, str]:
        return listed.volume.volume_context if listed.volume is not None else {}

    def _is_awaited(self, name: str) -> bool:
        """Its claim is there and has no other volume: whoever leads goes on with it."""
        claim = self._claims.get(name)
        return claim is not None and claim.spec.volumeName in (None, "", name) and name not in self._names


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
