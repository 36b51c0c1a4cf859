"""CreateVolume, and the undo of a volume whose answer cannot be used (provision.md 9)."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

import msgspec
import trio

from csi_provisioner.csi.driver import Driver
from csi_provisioner.csi.errors import CallError
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import templates
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.request import Plan

from .orphans import Orphans

# One after the other without a pause (provision.md 9.4): a driver that is merely busy gets a second chance.
UNDO_TRIES = 5
# The driver is told the deadline, rounded, and may answer just before it: with so many seconds left it is over.
TOO_LATE = 0.01

Shield = Callable[[], AbstractAsyncContextManager[trio.CancelScope]]
"""Has its deadline, a nearer one once what surrounds it is cancelled, and goes on until then (design.md 3, rule 9)."""


class Creator(msgspec.Struct, eq=False):
    """`shield` bounds all tries of an undo together; `deleted` is told of each volume that one is begun for. `owner_of`
    an id: the PersistentVolume that names it."""

    driver: Driver
    orphans: Orphans
    migratable: bool
    shield: Shield
    deleted: Callable[[str], None]
    owner_of: Callable[[str], Awaitable[str | None]]

    async def create(self, plan: Plan) -> csi.CreateVolumeResponse:
        """One call, nothing is repeated. Raises `CallError` as the driver gave it.

        A cancellation may leave the volume being made: the next try asks for it by the same name.
        """
        return await self.driver.create_volume(plan.request, migrated=self._migrated(plan))

    async def undo(self, plan: Plan, answer: csi.CreateVolumeResponse, refusal: Refusal) -> NoReturn:
        """The volume of that answer cannot be used. Raises the refusal, once the volume is deleted again."""
        volume_id = answer.volume.volume_id if answer.volume is not None else ""
        if owner := await self.owner_of(volume_id):
            text = f"{refusal.message}; volume {volume_id} is not deleted again: {owner} names it"
            raise Refusal(refusal.state, text) from refusal
        error = await self._discard(plan, volume_id) if volume_id else None
        if error is None:
            raise refusal
        raise Refusal(
            State.IN_BACKGROUND,
            f"{refusal.message}; deleting it again failed as well ({error}): volume {volume_id} "
            f"of PersistentVolume {plan.draft.name} may be left behind in the storage and need deletion by hand",
        ) from error

    async def _discard(self, plan: Plan, volume_id: str) -> CallError | None:
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
                # One loss may be an accident, such as a restart. After two in a row it is this call that kills it.
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
            # The last answer of the driver says less than that the time is over.
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

    def _migrated(self, plan: Plan) -> bool | None:
        return plan.draft.class_plan.migrated if self.migratable else None
