"""One try at one PersistentVolume: its finalizer, and its deletion once it is released (delete.md 2 to 8).

Keyed by name. The order of the three writes is the contract: the volume in the storage backend, the object, our
finalizer. That the driver has deleted a volume is remembered until its PersistentVolume is gone, so that our own
writes, which wake the key up again, do not ask it a second time.
"""

from collections.abc import Callable, Mapping

import msgspec
import trio

from csi_provisioner.csi.driver import Driver
from csi_provisioner.csi.errors import CallError
from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.errors import unless_gone
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.kube.store import version_number
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import PersistentVolume, Secret
from csi_provisioner.model.outcome import DONE, Attempt, Done, Outcome, TryError, after
from csi_provisioner.model.secret import SecretData
from csi_provisioner.planning import capabilities, deletion, finalizers, secrets
from csi_provisioner.planning.deletion import Attached, FinalizerChange, Target
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import not_ours
from csi_provisioner.planning.wellknown import VOLUME_FINALIZER
from csi_provisioner.work.workers import Workers

from .detaching import Detaching


class VolumeReconciler(msgspec.Struct, eq=False, dict=True):
    """`segments` are the local topology of a per-node deployment. `tell_deleted`: the driver has deleted the volume of
    that id (capacity.md 10). `wake` has the volume of that name looked at. `in_doubt`: what the caches
    show may be of another history."""

    caches: Caches
    kube: KubeClient
    driver: Driver
    facts: DriverFacts
    events: EventRecorder
    metrics: Metrics
    segments: Mapping[str, str] | None
    tell_deleted: Callable[[PersistentVolume, str], None]
    wake: Callable[[str], None]
    workers: Workers
    in_doubt: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self._detaching = Detaching(self.events, self.metrics, self.wake)
        self._detaching.follow(self.caches.attachments)
        self._secret_of = deletion.secret_of(self.caches.storage_classes.get, self.facts)
        self._deleted: dict[str, str] = {}  # name -> UID of volumes the driver has deleted
        self._asking: dict[str, str] = {}  # of those it is being asked for
        self._removing: dict[str, str] = {}  # of those whose objects are being taken away after that
        self._finished: dict[str, str] = {}  # and of those whose finalizer we have taken off after that

    def has_deleted(self, volume: PersistentVolume) -> bool | None:
        """None: the driver is being asked just now."""
        name, uid = volume.metadata.name, volume.metadata.uid
        return None if self._asking.get(name) == uid else uid in (self._deleted.get(name), self._finished.get(name))

    def expects(self, old: PersistentVolume | None, new: PersistentVolume) -> bool:
        """It is news of our own writes: the task that makes them does the rest, or has done it."""
        name, uid = new.metadata.name, new.metadata.uid
        return old is not new and uid in (self._removing.get(name), self._finished.get(name))

    def saw_volume(self, name: str, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        """Handler of the volume store: a volume that is gone need not be remembered, and one that waited for it to go
        (delete.md 7.3) waits no longer."""
        if new is None:
            if old is not None and self.has_deleted(old) and (released := deletion.released_at(old)) is not None:
                self.metrics.gone_after(max(0.0, self.kube.server_time() - released))
            self._deleted.pop(name, None)
            self._finished.pop(name, None)
            self._detaching.over(name)
        elif old is new or (old is not None and _version(new) < _version(old)):
            # Told again or taken back, as after a restore that has brought it back: its finalizer may be on it.
            self._finished.pop(name, None)
        if old is not None and (new is None or deletion.should_delete(new)):
            for other in self.caches.volumes.sharing(deletion.handle(old) or ""):
                if other.metadata.name != name and deletion.should_delete(other):
                    self.wake(other.metadata.name)

    async def reconcile(self, name: str, attempt: Attempt) -> Outcome:
        volume = self.caches.volumes.get(name)
        if volume is None or not deletion.is_responsible(volume, self.facts):
            self._detaching.over(name)
            return DONE
        if self._finished.get(name) == volume.metadata.uid:
            # Woken by the news of our own writes.
            return DONE
        # Before the deletion, and on volumes that are not deleted now: it is what makes their deletion wait for us.
        change = deletion.finalizer_change(volume)
        if change is not None:
            try:
                volume = await self._patch(volume, change)
            except KubeError as error:
                return self._refused(volume, error)
            self.caches.volumes.remember(volume)
        if not deletion.should_delete(volume):
            self._detaching.over(name)
            return DONE
        return await self._delete(volume, attempt)

    async def _patch(self, volume: PersistentVolume, change: FinalizerChange) -> PersistentVolume:
        patch = deletion.finalizer_patch(change)
        log.v(4, "Changing our finalizer", PV=volume, change=change)
        return await self.kube.patch(PersistentVolume, volume.metadata.name, patch, strategy="strategic")

    async def _delete(self, volume: PersistentVolume, attempt: Attempt) -> Outcome:
        started, name = trio.current_time(), volume.metadata.name
        outcome: Outcome = DONE
        try:
            # Asked once: our own writes wake the key, and a driver may take a second deletion for an error.
            if self._deleted.get(name) != volume.metadata.uid:
                await self._delete_in_backend(volume, attempt)
                self._note(self._deleted, volume)
            self._check_sure()
            self._removing[name] = volume.metadata.uid
            await self._remove(volume)
        except KubeError as error:
            outcome = self._refused(volume, error)
        except Attached as attached:
            return self._detaching.wait(volume, attached)
        except TryError as error:
            if error.lost and attempt.excused:
                # The call is repeated when the driver is back, and is neither counted nor told before.
                return after(error, f"volume {name}: {error}")
            outcome = self._failed(volume, error, attempt)
        self._removing.pop(name, None)
        # Quirk Q7, kept: an ignored one counts as a success. As in the reference, one that is gone already does not.
        seconds = trio.current_time() - started if isinstance(outcome, Done) else None
        self.metrics.deletion(volume.spec.storageClassName or "", seconds)
        return outcome

    def _note(self, notes: dict[str, str], volume: PersistentVolume) -> None:
        """For as long as the cache has the volume: its going is what ends the note."""
        if volume.metadata.name in self.caches.volumes:
            notes[volume.metadata.name] = volume.metadata.uid

    async def _delete_in_backend(self, volume: PersistentVolume, attempt: Attempt) -> None:
        """delete.md 7, row by row."""
        self.workers.check(attempt.lane)
        target = deletion.target(volume)
        deletion.check_accessible(target.volume, self.segments)
        capabilities.check_driver(self.facts)
        data = await self._secrets(target)
        await self._check_unused(volume, target)
        migrated = target.migrated if self.facts.in_tree_name else None
        request = deletion.request(target, data)
        namespace = (volume.spec.claimRef.namespace or "") if volume.spec.claimRef is not None else ""
        async with self.workers.call(attempt.lane, namespace, attempt.since):
            # That may have taken minutes, in which people can change their mind.
            self._check_wanted(volume)
            await self._check_unused(volume, target)
            self._check_wanted(volume)
            self._asking[volume.metadata.name] = volume.metadata.uid
            try:
                await self.driver.delete_volume(request, migrated=migrated)
            finally:
                del self._asking[volume.metadata.name]
        log.v(2, "Volume deleted", PV=volume, volumeID=request.volume_id)
        self.tell_deleted(volume, request.volume_id)

    def _check_wanted(self, volume: PersistentVolume) -> None:
        seen = self.caches.volumes.get(volume.metadata.name)
        if seen is None or seen.metadata.uid != volume.metadata.uid or not deletion.should_delete(seen):
            raise not_ours(f"volume {volume.metadata.name} is not to be deleted any more")
        self._check_sure()

    def _check_sure(self) -> None:
        """Else what is released here may be somebody's again."""
        if self.in_doubt() or PersistentVolume.__name__ in self.caches.unsynced:
            raise KubeError(0, "InDoubt", "not sent: the lease could not be renewed, and the cluster may be restored")

    async def _check_unused(self, volume: PersistentVolume, target: Target) -> None:
        """As things are when it returns. Others of the same id that the cache keeps as records are read."""
        volumes, handle, read = self.caches.volumes, target.source.volumeHandle, {volume.metadata.name}
        deletion.check_detached(volume, self._detaching.of(volume.metadata.name))
        while unread := [other for other in volumes.sharing(handle) if other.metadata.name not in read]:
            for other in unread:
                read.add(other.metadata.name)
                whole = await self.caches.whole(self.kube, other)
                if whole is not None and deletion.handle(whole) == handle:
                    deletion.check_unshared(volume, (whole,), self.segments, self._secret_of)
        if read == {volume.metadata.name}:
            return
        # Reading takes its time, in which the watch shows more.
        shown = [whole for other in volumes.sharing(handle) if (whole := volumes.get(other.metadata.name)) is not None]
        deletion.check_detached(volume, self._detaching.of(volume.metadata.name))
        deletion.check_unshared(volume, shown, self.segments, self._secret_of)

    async def _secrets(self, target: Target) -> SecretData | None:
        classes = self.caches.storage_classes
        found = secrets.deletion_reference(target.volume, classes.get, self.facts, migrated=target.migrated)
        if found.warning:
            log.warning(found.warning, PV=target.volume)
        if found.reference is None:
            return None
        try:
            secret = await self.kube.get(Secret, found.reference.name, found.reference.namespace)
        except KubeError as error:
            # Only a secret that is gone is done without. One that cannot be read just now is waited for.
            if not error.not_found:
                raise secrets.deletion_unreadable(target.volume, found.reference, error) from error
            log.warning(
                "Cannot read the secret for the deletion, deleting without it",
                PV=target.volume,
                secret=f"{found.reference.namespace}/{found.reference.name}",
                err=error,
            )
            return None
        return secrets.decoded(secret)

    async def _remove(self, volume: PersistentVolume) -> None:
        """delete.md 6, steps 2 to 4: the object, then our finalizer."""
        name = volume.metadata.name
        if not volume.metadata.deletionTimestamp:
            await self.kube.delete(PersistentVolume, name)
        if not volume.metadata.finalizers:
            return
        # As the cache has it now: the finalizer may have been put on, or the object may be gone, since we looked first.
        seen = self.caches.volumes.get(name)
        if seen is None and self.caches.volumes.knows(name, volume.metadata.uid):
            seen = volume  # not to be deleted any more, and our finalizer may be on it all the same
        if seen is None or not finalizers.present(seen, VOLUME_FINALIZER):
            return
        with unless_gone():
            await self._patch(seen, "remove")
        # Only now: a cache that is late may still show our finalizer, and the key is done with by this note alone.
        self._note(self._finished, volume)

    def _refused(self, volume: PersistentVolume, error: KubeError) -> Outcome:
        """What only a person can change is told to people, where they look: on the claim, if it is still there."""
        if error.forbidden:
            claim = volume.spec.claimRef
            if claim is not None and not self.caches.claims.knows(kubernetes.key(claim), claim.uid):
                claim = None
            message = f"{error}; grant patch and delete on persistentvolumes to the service account of this process"
            self.events.record(claim or volume, "Warning", "VolumeFailedDelete", message, failure_class="api 403")
        return after(error, give_up=error.not_found)

    def _failed(self, volume: PersistentVolume, error: TryError, attempt: Attempt) -> Outcome:
        said = str(error)
        if isinstance(error, CallError):
            said = f"driver {self.facts.name} could not delete volume {volume.metadata.name}: {error}"
        if error.ignored:
            log.v(4, "Volume is not ours to delete", PV=volume, reason=said)
        else:
            self.events.record(
                volume,
                "Warning",
                "VolumeFailedDelete",
                f"{said} (attempt {attempt.number}; next try in {max(attempt.delay, error.floor):g} s)",
                failure_class=error.kind,
            )
        return after(error, said)


def _version(volume: PersistentVolume) -> int:
    return version_number(volume.metadata.resourceVersion)
