"""Writing the PersistentVolume until it is there (provision.md 13).

One try in the claim's own task; after a failure the volume stays in memory and its name is an item of the schedule,
tried for ever. The volume in the storage backend is never deleted because the API server would not take the object.
"""

from collections.abc import Callable

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.errors import again, floor
from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import PersistentVolume
from csi_provisioner.model.outcome import DONE, Attempt, Outcome

from .memory import ClaimMemory

# Go's queue starts here; the longest wait is much shorter than its 1000 s, so that an outage of the API server of
# minutes is over for a claim half a minute after it is over for the cluster.
FIRST_DELAY = 0.005
LONGEST_DELAY = 30.0
# Where the process has only seconds left
LONGEST_AT_END = 0.5
# Saves are single POSTs; four at once are what the reference runs, and enough to drain a backlog after an outage.
WORKERS = 4


# The object itself is refused: only another one, from another answer of the driver, will do.
FINAL = (400, 422)


class Saver:
    """`written` is called once per volume that is in the API server, `wake(name, floor)` schedules another try."""

    def __init__(
        self,
        kube: KubeClient,
        volumes: Store[PersistentVolume],
        memory: ClaimMemory,
        *,
        written: Callable[[PersistentVolume], None],
        wake: Callable[[str, float], None],
    ) -> None:
        self._kube = kube
        self._volumes = volumes
        self._memory = memory
        self._written = written
        self._wake = wake

    async def save(self, volume: PersistentVolume) -> None:
        """The first try at a volume that memory keeps; it stays there until it is in the API server."""
        error = await self._try(volume)
        if error is not None:
            log.error(
                "Could not save the PersistentVolume; its volume exists, saving is tried until it is there",
                PV=volume,
                err=str(error),
            )
            self._wake(volume.metadata.name, floor(error))

    def ensure(self, name: str) -> None:
        """A volume that memory keeps is an item of the schedule, whatever became of the task that made it."""
        self._wake(name, 0.0)

    async def reconcile(self, name: str, _attempt: Attempt) -> Outcome:
        """One further try at a volume that waits to be saved."""
        volume = self._memory.unsaved.get(name)
        if volume is None:
            return DONE
        error = await self._try(volume)
        return DONE if error is None else again(error)

    async def _try(self, volume: PersistentVolume) -> KubeError | None:
        try:
            self._volumes.remember(await self._kube.create(PersistentVolume, volume))
        except KubeError as error:
            if not error.already_exists:
                if error.code in FINAL:
                    self._memory.note_refused(volume)
                return error
        self._memory.note_written(volume)
        self._written(volume)
        return None
