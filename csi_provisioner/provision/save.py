"""Writing the PersistentVolume until it is there (provision.md 13).

One try in the claim's own task; after a failure the volume stays in memory and its name is an item of the schedule,
tried for ever. The volume in the storage backend is never deleted because the API server would not take the object.
An object whose answer was lost may be there, and may even be gone again: what the watch shows decides.
"""

from collections.abc import Callable

import msgspec

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim
from csi_provisioner.model.outcome import DONE, Attempt, Outcome, after
from csi_provisioner.planning import deletion

from .announcer import Announcer
from .memory import ClaimMemory, Unsaved

# Go's queue starts here; the longest wait is much shorter than its 1000 s, so that an outage of the API server of
# minutes is over for a claim half a minute after it is over for the cluster.
FIRST_DELAY = 0.005
LONGEST_DELAY = 30.0
# The longest wait where the process has only seconds left.
LONGEST_AT_END = 0.5
# Tries between two events that say the same: about ten minutes. An object gets few events a minute, and this one must
# not keep the others from it.
TOLD_AGAIN = 20
# Saves are single POSTs; four at once are what the reference runs, and enough to drain a backlog after an outage.
WORKERS = 4

# The object itself is refused: only another one, from another answer of the driver, will do.
FINAL = (400, 413, 422)
# Nor is one of 1.5 to 3 MiB: etcd's words, and those of the way there, which the API server answers with 500
TOO_LARGE = ("request is too large", "message larger than max")


class Saver(msgspec.Struct, eq=False):
    """`wake(name, floor)` schedules another try. `ended(uid)`: the claim's volume has come to its end unbound. `over`
    is told of each whose end is certain."""

    kube: KubeClient
    volumes: Store[PersistentVolume]
    memory: ClaimMemory
    announcer: Announcer
    wake: Callable[[str, float], None]
    ended: Callable[[str], None]
    over: Callable[[str], None]
    under_way: int = 0
    """First tries that have not ended."""

    async def save(self, volume: PersistentVolume) -> None:
        """The first try at a volume that memory keeps; it stays there until it is in the API server."""
        self.under_way += 1
        try:
            error = await self._try(volume.metadata.name)
        finally:
            self.under_way -= 1
        if error is not None:
            log.error(
                "Could not save the PersistentVolume; its volume exists, saving is tried until it is there",
                PV=volume,
                err=str(error),
            )
            self.wake(volume.metadata.name, error.floor)

    def ensure(self, name: str) -> None:
        """A volume that memory keeps is an item of the schedule, whatever became of the task that made it."""
        self.wake(name, 0.0)

    async def reconcile(self, name: str, attempt: Attempt) -> Outcome:
        """One further try at a volume that waits to be saved."""
        error = await self._try(name, tell_again=attempt.number % TOLD_AGAIN == 0)
        return DONE if error is None else after(error)

    async def _try(self, name: str, *, tell_again: bool = False) -> KubeError | None:
        """`tell_again`: what only a person can change is said once more."""
        entry = self.memory.unsaved(name)
        if entry is None:
            return None
        try:
            there = await self._was_there(entry)
            # After the look, during which the watch may have shown the end.
            if entry.ended:
                self.memory.drop_unsaved(name)
                self.over(name)
                self.ended(entry.claim.metadata.uid)
                return None
            if not there:
                await self._send(entry)
        except KubeError as error:
            if (error.forbidden or _is_final(error)) and (tell_again or entry.told != error.code):
                entry.told = error.code
                self.announcer.refused(entry, error)
            return error
        self.memory.note_written(name)
        self.over(name)
        await self.announcer.written(entry.volume)
        return None

    async def _was_there(self, entry: Unsaved) -> bool:
        """Did an earlier try write it, though nobody said so? The PersistentVolume of a deleted volume must not come
        back. Where the watch does not tell, the claim does; one that is gone tells nothing, and an object too many is
        better then than a volume without any. So does one that we may not read."""
        if entry.seen or not entry.sent:
            return entry.seen
        meta, name, bound = entry.claim.metadata, entry.volume.metadata.name, False
        try:
            claim = await self.kube.get(PersistentVolumeClaim, meta.name, meta.namespace)
            bound = claim.metadata.uid == meta.uid and claim.spec.volumeName == name
            if bound and not entry.seen:
                self.volumes.remember(await self.kube.get(PersistentVolume, name))
        except KubeError as error:
            # Whether it is there stays open, so nothing is written: the next try asks again.
            if error.unavailable:
                raise
        # Looked at again, because the watch goes on during the request.
        return bound or entry.seen

    async def _send(self, entry: Unsaved) -> None:
        before, entry.sent = entry.sent, True  # a cancellation may come after the server has it
        try:
            self.volumes.remember(await self.kube.create(PersistentVolume, entry.volume))
        except KubeError as error:
            if error.already_exists:
                await self._look_whose(entry)
                return
            entry.sent = before or error.unavailable
            entry.refused = _is_final(error)
            raise

    async def _look_whose(self, entry: Unsaved) -> None:
        """An object of that name is there: ours, if it names our volume."""
        found = await self.kube.get(PersistentVolume, entry.volume.metadata.name)
        self.volumes.remember(found)
        if (other := deletion.handle(found)) not in (entry.volume_id, None):
            self.announcer.taken(entry, other)


def _is_final(error: KubeError) -> bool:
    return error.code in FINAL or any(words in error.message for words in TOO_LARGE)
