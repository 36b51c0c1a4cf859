"""Takes our finalizer off a source claim that is being deleted, once no clone waits for it (provision.md 12.2).

Keyed by `namespace/name`. Only claims with a deletionTimestamp come here; a living source keeps its finalizer, and one
whose volume is another driver's is left to the provisioner of that one: of clones whose claims are gone it alone knows.
"""

from collections.abc import Callable

import msgspec

from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.errors import unless_gone
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim
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
    caches: Caches
    driver: str
    readers: Callable[[], Readers]

    async def reconcile(self, key: str, _attempt: Attempt) -> Outcome:
        claim = self.caches.claims.get(key)
        if claim is None or not is_to_check(claim):
            return DONE
        try:
            if await self._is_of_another_driver(claim):
                return DONE
            # Looked at again with back-off: that a clone is bound is no event of its source.
            if sources.clone_pending(claim, self.readers()):
                return Retry(f"claim {key} is still being cloned from; its deletion waits for that")
            changed = await self.kube.update(claim, lambda raw: finalizers.remove(raw, CLONE_FINALIZER))
        except KubeError as error:
            return after(error, give_up=error.not_found)
        if changed is not None:
            log.v(3, "Source claim may go, nobody clones it", PVC=claim)
        return DONE

    async def _is_of_another_driver(self, claim: PersistentVolumeClaim) -> bool:
        name = claim.spec.volumeName or ""
        # A request only for those that are hardly ours: of our own, the time it takes would cost a conflict.
        if self.caches.volumes.is_foreign(name):
            with unless_gone():
                volume = await self.kube.get(PersistentVolume, name)
                return volume.spec.csi is not None and volume.spec.csi.driver != self.driver
        return False
