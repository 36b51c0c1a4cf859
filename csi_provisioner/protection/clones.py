"""Takes our finalizer off a source claim that is being deleted, once no clone waits for it (provision.md 12.2).

Keyed by `namespace/name`. Only claims with a deletionTimestamp come here; a living source keeps its finalizer.
"""

from collections.abc import Callable

import msgspec

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from csi_provisioner.model.outcome import DONE, Attempt, Outcome, Retry, after
from csi_provisioner.planning import finalizers, sources
from csi_provisioner.planning.sources import Readers
from csi_provisioner.planning.wellknown import CLONE_FINALIZER


def is_to_check(claim: PersistentVolumeClaim) -> bool:
    return bool(claim.metadata.deletionTimestamp) and finalizers.present(claim, CLONE_FINALIZER)


def keep_shown(claim: PersistentVolumeClaim, event: bytes) -> None:
    """Told of every claim before it is cached: of those that wait for us the event itself is kept, so that they can be
    let go as they are, in one request. In two, the volume controller often takes its own finalizer off in between."""
    if is_to_check(claim):
        claim.shown = event


class CloneReconciler(msgspec.Struct, eq=False):
    """`readers` tells who may still be cloned, also deleted claims whose volume is being made."""

    kube: KubeClient
    claims: Store[PersistentVolumeClaim]
    readers: Callable[[], Readers]

    async def reconcile(self, key: str, _attempt: Attempt) -> Outcome:
        claim = self.claims.get(key)
        if claim is None or not is_to_check(claim):
            return DONE
        # Looked at again with back-off: that a clone is bound is no event of its source.
        if sources.clone_pending(claim, self.readers()):
            return Retry(f"claim {key} is still being cloned from; its deletion waits for that")
        try:
            changed = await self.kube.update(claim, lambda raw: finalizers.remove(raw, CLONE_FINALIZER))
        except KubeError as error:
            return after(error, give_up=error.not_found)
        if changed is not None:
            log.v(3, "Source claim may go, nobody clones it", PVC=claim)
        return DONE
