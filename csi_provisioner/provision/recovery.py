"""Volumes that an earlier leader began, and whose claim is gone or wants another one: none of them is left behind.

Design.md 6. An entry that is inherited stays for a hold, since a call of the old leader may still land; then the very
request of the entry is sent again, idempotent by name, and a volume that comes is deleted, if it cannot have been
anybody's. What may be is told, with its id. Keys are volume names, and items of a loop of their own.
"""

from collections.abc import Callable
from dataclasses import replace

import trio

from csi_provisioner.csi import wire
from csi_provisioner.csi.driver import Driver
from csi_provisioner.csi.errors import CallError
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim, Secret
from csi_provisioner.model.outcome import DONE, Outcome, Retry, RetryAt, State
from csi_provisioner.model.secret import SecretData
from csi_provisioner.planning import recovery, verdict
from csi_provisioner.planning.entries import Entry

from .orphans import Orphans
from .writer import JournalWriter

WORKERS = 4
"""Calls of recoveries side by side, within --worker-threads: living claims go first."""

Wants = Callable[[PersistentVolumeClaim, str], bool]
"""Does this living claim still want the volume of that name from this process?"""


class Recovery:
    """`hold` is how long inherited entries stay untouched after the take-over, in seconds."""

    def __init__(
        self,
        journal: JournalWriter,
        kube: KubeClient,
        driver: Driver,
        volumes: Store[PersistentVolume],
        *,
        hold: float,
        elected: bool,
        gap: bool,
        wants: Wants,
        orphans: Orphans,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._journal = journal
        self._kube = kube
        self._driver = driver
        self._volumes = volumes
        self._hold = hold
        self._elected = elected
        self._gap = gap
        self._wants = wants
        self._orphans = orphans
        self._metrics = metrics
        self._clock = clock
        self._ages: dict[str, float] = {}

    @property
    def judges_at(self) -> float:
        """Before then nothing is known of what the leader before us still had under way."""
        taken_at = self._journal.taken_at
        return (trio.current_time() if taken_at is None else taken_at) + self._hold

    async def reconcile(self, name: str) -> Outcome:
        entry = self._journal.inherited.get(name)
        if entry is None:
            return DONE
        if trio.current_time() < self.judges_at:
            return RetryAt(self.judges_at, "a call of the leader before may still land")
        self._ages.setdefault(name, self._clock() - entry.when)
        try:
            return await self._recover(name, entry)
        except KubeError as error:
            return Retry(f"volume {name} that was begun before: {error}")
        except CallError as error:
            return Retry(f"volume {name} that was begun before, for claim {entry.claim}: {error}")

    async def _recover(self, name: str, entry: Entry) -> Outcome:
        if await self._is_owned(name, entry):
            return DONE
        if kept := recovery.why_kept(entry, age=self._ages[name], elected=self._elected, gap=self._gap):
            return self._told(name, entry, "", kept)
        secrets, found = await self._secrets(entry)
        try:
            volume_id = await self._ask_again(name, entry, secrets)
        except CallError as error:
            final = (
                verdict.state_of(None if error.not_grpc else error.code, topology_active=False, selected_node="")
                is State.FINISHED
                and error.code not in recovery.NEVER_CERTAIN
            )
            if final or not found:
                return self._told(name, entry, "", f"the driver refuses to say whether it made it: {error}")
            raise
        if retained := recovery.why_retained(entry):
            return self._told(name, entry, volume_id, retained)
        if await self._is_owned(name, entry):
            return DONE
        if other := await self._volume_with(volume_id):
            return self._told(name, entry, volume_id, f"PersistentVolume {other} names it")
        await self._confirmed(name, entry)
        request = csi.DeleteVolumeRequest(volume_id=volume_id, secrets=secrets.reveal())
        await self._driver.delete_volume(request, migrated=entry.migrated)
        log.info("Deleted a volume whose claim was gone before it had an owner", volumeID=volume_id, PV=name)
        self._metrics.recovered("deleted")
        self._journal.leave(name)
        return DONE

    async def _is_owned(self, name: str, entry: Entry) -> bool:
        """Has the volume its PersistentVolume, or does its claim, alive, still want it? As the API server says, now."""
        try:
            await self._kube.get(PersistentVolume, name)
        except KubeError as error:
            if not error.not_found:
                raise
        else:
            self._metrics.recovered("owned")
            self._journal.leave(name)
            return True
        try:
            claim = await self._kube.get(PersistentVolumeClaim, entry.claim.name, entry.claim.namespace)
        except KubeError as error:
            if not error.not_found:
                raise
            return False
        return claim.metadata.uid == entry.claim.uid and self._wants(claim, name)

    async def _ask_again(self, name: str, entry: Entry, secrets: SecretData) -> str:
        await self._confirmed(name, entry)
        request = replace(wire.decode(entry.request, csi.CreateVolumeRequest), secrets=secrets.reveal())
        response = await self._driver.create_volume(request, migrated=entry.migrated)
        return response.volume.volume_id if response.volume is not None else ""

    async def _confirmed(self, name: str, entry: Entry) -> None:
        """A write that is answered says that we still lead."""
        await self._journal.enter(name, lambda _now: entry, confirm=True)

    async def _secrets(self, entry: Entry) -> tuple[SecretData, bool]:
        """The secret's values, and whether there is one if there should be."""
        if entry.secret is None:
            return SecretData(), True
        try:
            secret = await self._kube.get(Secret, entry.secret.name, entry.secret.namespace)
        except KubeError as error:
            if not error.not_found:
                raise
            return SecretData(), False
        return SecretData.decode(secret.data), True

    async def _volume_with(self, volume_id: str) -> str | None:
        """Any PersistentVolume that names it, under whatever name an administrator gave it."""
        token = None
        while True:
            page = await self._kube.list_page(PersistentVolume, continue_token=token)
            for volume in page.items:
                if volume.spec.csi is not None and volume.spec.csi.volumeHandle == volume_id:
                    return volume.metadata.name
            if not (token := page.continue_token):
                return None

    def _told(self, name: str, entry: Entry, volume_id: str, reason: str) -> Outcome:
        self._orphans.suspect(volume_id=volume_id, name=name, claim=str(entry.claim), reason=reason)
        self._metrics.recovered("told")
        self._journal.leave(name)
        return DONE
