"""Volumes that an earlier leader began, and whose claims are gone or want another one: none of them is left behind.

Design.md 6. Entries that were inherited stay for a hold, since a call of the old leader may still land. Then the very
request of the entry is sent again, idempotent by name; a volume that comes is deleted if it cannot have been anybody's,
and told with its id if it can. Keys are volume names, items of a loop of its own.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

import msgspec
import trio
from lightkube.core.resource import Resource

from csi_provisioner.csi import wire
from csi_provisioner.csi.driver import Driver
from csi_provisioner.csi.errors import CallError
from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.errors import unless_gone
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim, Secret
from csi_provisioner.model.outcome import DONE, Attempt, Outcome, RetryAt, TryError, after
from csi_provisioner.model.secret import SecretData
from csi_provisioner.model.state import Lane
from csi_provisioner.planning import deletion, recovery, secrets
from csi_provisioner.planning.entries import Entry
from csi_provisioner.work.workers import Workers

from .orphans import Orphans

T = TypeVar("T", bound=Resource)

QUEUE = "recoveries"
# Recoveries side by side, within --worker-threads: a lane of their own beside those of the claims
LANE, WORKERS = Lane(source="recovery"), 4
# Seconds until an entry is looked at again whose claim is still at work; the claim's end wakes it sooner
ANOTHER_LOOK = 60.0

Wants = Callable[[PersistentVolumeClaim, str], bool]
"""Does this living claim still want the volume of that name, from this process?"""


class Journal(Protocol):
    """What a recovery asks of the journal."""

    @property
    def inherited(self) -> Mapping[str, Entry]:
        """Entries of the leaders before, by volume name, until they have left."""

    @property
    def taken_at(self) -> float | None:
        """When the first take-over of the term had succeeded; None: not yet."""

    @property
    def doubted(self) -> Collection[str]:
        """Names of those since which a leader without journal was there."""

    async def confirm(self, name: str) -> bool:
        """A write with this entry, begun now, was answered: the term is still ours. False: the journal is off."""

    def leave(self, name: str) -> None:
        """The entry is of no use any more."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """`hold` in seconds; `migratable`: the driver serves an in-tree name too."""

    hold: float
    elected: bool
    migratable: bool
    wants: Wants
    under_way: Callable[[str], bool]
    """By claim UID: the claims' own loop is at it, also for a claim that was deleted in our own term."""
    clock: Callable[[], float]
    """The API server's time, in seconds since 1970."""


class Recovery(msgspec.Struct, eq=False, kw_only=True):
    journal: Journal
    rules: Rules
    kube: KubeClient
    driver: Driver
    caches: Caches
    orphans: Orphans
    events: EventRecorder
    metrics: Metrics
    workers: Workers
    _ages: dict[str, float] = msgspec.field(default_factory=dict)  # of entries, when they were first judged

    @property
    def judges_at(self) -> float:
        """Until then nothing is known of what the leader before us still had under way."""
        taken_at = self.journal.taken_at
        return (trio.current_time() if taken_at is None else taken_at) + self.rules.hold

    def names_of(self, uid: str) -> list[str]:
        """The inherited entries of a claim: what to wake when the claim changes."""
        return [name for name, entry in self.journal.inherited.items() if entry.claim.uid == uid]

    def readers(self) -> dict[str, PersistentVolumeClaim]:
        """Claims, by UID, whose sources have to stay (`Readers.under_way`)."""
        return {entry.claim.uid: recovery.reader(entry) for entry in self.journal.inherited.values()}

    async def reconcile(self, name: str, _attempt: Attempt) -> Outcome:
        entry = self.journal.inherited.get(name)
        if entry is None:
            self._ages.pop(name, None)
            return DONE
        if trio.current_time() < self.judges_at:
            return RetryAt(self.judges_at, "a call of the leader before may still land")
        # What the caches know costs no request; most entries end here.
        if name in self.caches.volumes:
            return self._owned(name)
        claim = self.caches.claims.by_uid(entry.claim.uid)
        if self.rules.under_way(entry.claim.uid) or (claim is not None and self.rules.wants(claim, name)):
            return RetryAt(trio.current_time() + ANOTHER_LOOK, "its claim is at work")
        # Once: a driver that is away for hours makes nobody else the owner.
        self._ages.setdefault(name, self.rules.clock() - entry.when)
        try:
            async with self.workers.call(LANE):
                return await self._recover(name, entry)
        except TryError as error:
            return after(error, f"volume {name}, begun before for claim {entry.claim}: {error}")

    async def _recover(self, name: str, entry: Entry) -> Outcome:
        ended = await self._looked(name, entry)
        if ended is not None:
            return ended
        rules = self.rules
        if kept := recovery.why_not_asked(
            entry, age=self._ages[name], elected=rules.elected, gap=name in self.journal.doubted
        ):
            return self._told(name, entry, "", kept)
        found = await self._secret(entry)
        try:
            volume_id = await self._asked_again(name, entry, found or SecretData())
        except CallError as error:
            if recovery.is_final(None if error.not_grpc else error.code, with_secret=found is not None):
                return self._told(name, entry, "", f"the driver does not make it again, so it may be there: {error}")
            raise
        # Nothing can be deleted without an id, and the next answer will not have one either.
        if not volume_id:
            return self._told(name, entry, "", "the driver does not say which volume it is")
        if retained := recovery.why_retained(entry):
            return self._told(name, entry, volume_id, retained)
        ended = await self._looked(name, entry)
        if ended is not None:
            return ended
        # After the second look, as the last of all: an administrator may have taken the volume under another name.
        if other := await self._named_by(volume_id):
            return self._told(name, entry, volume_id, other)
        # The looks took their time, and another leader may have come meanwhile.
        await self._confirmed(name)
        request = csi.DeleteVolumeRequest(volume_id=volume_id, secrets=(found or SecretData()).reveal())
        await self.driver.delete_volume(request, migrated=self._migrated(entry))
        log.info("Deleted a volume that no claim wants any more", volumeID=volume_id, PV=name, claim=str(entry.claim))
        return self._left(name, "deleted")

    async def _looked(self, name: str, entry: Entry) -> Outcome | None:
        """As the API server has it now: a volume that has its PersistentVolume, or that its living claim wants, is
        none of ours. None: nobody has it."""
        if await self._get(PersistentVolume, name) is not None:
            return self._owned(name)
        claim = await self._get(PersistentVolumeClaim, entry.claim.name, entry.claim.namespace)
        if claim is not None and claim.metadata.uid == entry.claim.uid and self.rules.wants(claim, name):
            return RetryAt(trio.current_time() + ANOTHER_LOOK, "its claim is still there")
        return None

    async def _asked_again(self, name: str, entry: Entry, secret: SecretData) -> str:
        await self._confirmed(name)
        request = replace(wire.decode(entry.request, csi.CreateVolumeRequest), secrets=secret.reveal())
        response = await self.driver.create_volume(request, migrated=self._migrated(entry))
        return response.volume.volume_id if response.volume is not None else ""

    async def _confirmed(self, name: str) -> None:
        """That we still lead: only the answer to a write of the journal says it."""
        if not await self.journal.confirm(name):
            raise KubeError(0, "JournalOff", "the volume journal cannot be written", doing=f"recover volume {name}")

    async def _secret(self, entry: Entry) -> SecretData | None:
        """None if there is no such secret any more; the driver is then asked once without."""
        if entry.secret is None:
            return SecretData()
        secret = await self._get(Secret, entry.secret.name, entry.secret.namespace)
        return None if secret is None else secrets.decoded(secret)

    async def _get(self, kind: type[T], name: str, namespace: str | None = None) -> T | None:
        with unless_gone():
            return await self.kube.get(kind, name, namespace)
        return None

    async def _named_by(self, volume_id: str) -> str | None:
        """Why it may be somebody's: a PersistentVolume of any name, to which an administrator may have given it."""
        token = None
        while True:
            page = await self.kube.list_page(PersistentVolume, continue_token=token)
            if page.unreadable:
                return f"PersistentVolume {next(iter(page.unreadable))} cannot be read, and may name it"
            for volume in page.items:
                if deletion.handle(volume) in (volume_id, None):
                    return f"PersistentVolume {volume.metadata.name} names it"
            if not (token := page.continue_token):
                return None

    def _migrated(self, entry: Entry) -> bool | None:
        return entry.migrated if self.rules.migratable else None

    # ---- its end

    def _owned(self, name: str) -> Outcome:
        return self._left(name, "owned")

    def _told(self, name: str, entry: Entry, volume_id: str, reason: str) -> Outcome:
        claim = recovery.claim_of(entry)
        self.orphans.suspect(volume_id=volume_id, name=name, claim=claim, reason=reason, secret=entry.secret)
        text = f"volume {name} ({volume_id or 'id unknown'}) may be left over in the storage backend: {reason}"
        self.events.record(claim, "Warning", "VolumeLeftOver", f"{text}; see csi-provisioner orphans")
        return self._left(name, "told")

    def _left(self, name: str, outcome: str) -> Outcome:
        self.metrics.recovered(outcome)
        self._ages.pop(name, None)
        self.journal.leave(name)
        return DONE
