"""CreateVolume, and the undo of a volume whose answer cannot be used (provision.md 9)."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import trio

from csi_provisioner.csi.driver import Driver
from csi_provisioner.csi.errors import CallError
from csi_provisioner.logs import log
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import templates, verdict
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.request import Plan
from csi_provisioner.planning.verdict import Made, Unusable

from .orphans import Orphans

# One after the other without a pause (provision.md 9.4): a driver that is merely busy gets a second chance.
UNDO_TRIES = 5
# The driver is told the deadline, rounded, and may answer just before it: with so many seconds left it is over.
TOO_LATE = 0.01

Shield = Callable[[], AbstractAsyncContextManager[trio.CancelScope]]
"""Has its deadline, a nearer one once what surrounds it is cancelled, and goes on until then (design.md 3, rule 9)."""


@dataclass(eq=False)
class Creator:
    """`shield` bounds all tries of an undo together; `deleted` is told of each volume that one is begun for."""

    driver: Driver
    orphans: Orphans
    migratable: bool
    shield: Shield
    deleted: Callable[[str], None]

    async def create(self, plan: Plan) -> Made:
        """One call, nothing is repeated.

        Raises `CallError` as the driver gave it, and `Refusal` for an answer that cannot be used, after its undo. A
        cancellation may leave the volume being made: the next try asks for it by the same name.
        """
        response = await self.driver.create_volume(plan.request, migrated=self._migrated(plan))
        answer = verdict.judge(plan, response)
        if isinstance(answer, Unusable):
            raise Refusal(State.IN_BACKGROUND, await self._undone(plan, answer))
        log.v(3, "Volume created", volumeID=answer.volume_id, bytes=answer.capacity_bytes, PVC=plan.draft.claim)
        return answer

    async def discard(self, plan: Plan, volume_id: str) -> CallError | None:
        """Delete a volume that no PersistentVolume names; the last error if that did not work within the limit.

        Raises `CallError` where the calls were lost with the driver's connection: it may not survive this very volume.
        """
        self.deleted(volume_id)  # before: the call may work though its answer is lost
        request = csi.DeleteVolumeRequest(volume_id=volume_id, secrets=plan.secrets.reveal())
        error: CallError | None = None
        started = trio.current_time()
        # Shielded: a volume that is made and cannot be used would be left behind by a stop in just this moment.
        async with self.shield() as scope:
            for _ in range(UNDO_TRIES):
                once_lost = error is not None and error.lost
                try:
                    await self.driver.delete_volume(request, migrated=self._migrated(plan))
                except CallError as failed:
                    error = failed
                else:
                    return None
                if trio.current_time() > scope.deadline - TOO_LATE or (once_lost and error.lost):
                    break
        if error is None or (trio.current_time() > scope.deadline - TOO_LATE and not error.lost):
            limit = max(0.0, scope.deadline - started)  # shorter than ours where the process ends meanwhile
            error = CallError(
                Code.DEADLINE_EXCEEDED, f"not done within {limit:.3g} s", "/csi.v1.Controller/DeleteVolume"
            )
        self.orphans.suspect(
            volume_id=volume_id,
            name=plan.draft.name,
            claim=plan.draft.claim,
            reason=f"it could not be used, and deleting it failed: {error}",
            secret=plan.references.get(templates.PROVISIONER),
        )
        if error.lost:
            raise error
        return error

    async def _undone(self, plan: Plan, unusable: Unusable) -> str:
        if unusable.volume_id is None:
            return unusable.message
        error = await self.discard(plan, unusable.volume_id)
        return unusable.message if error is None else verdict.orphaned(plan, unusable, error)

    def _migrated(self, plan: Plan) -> bool | None:
        return plan.draft.class_plan.migrated if self.migratable else None
