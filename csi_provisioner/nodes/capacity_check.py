"""Whether a claim's volume fits on this node, checked before the claim is taken (node-deployment.md 5 step 1 and 7).

The check changes nothing: it sets no finalizer and remembers nothing about the claim (quirk Q11).
"""

import msgspec
import trio

from csi_provisioner.csi.driver import Driver
from csi_provisioner.csi.errors import CallError
from csi_provisioner.logs import log
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from csi_provisioner.model.kubernetes import NodeName, PersistentVolumeClaim, StorageClass
from csi_provisioner.model.outcome import TryError
from csi_provisioner.nodes import claiming
from csi_provisioner.planning import topology, wellknown
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.topology import PlacementFacts, TopologyMemory
from csi_provisioner.provision.gather import Gatherer


class CapacityCheck(msgspec.Struct, eq=False):
    """`gatherer` is not that of provisioning, which would remember what is only checked here. With topology its cluster
    is this node alone."""

    node: NodeName
    driver: Driver
    gatherer: Gatherer
    spent: dict[str, float] = msgspec.field(default_factory=dict)
    """Seconds of calls for a claim, by its UID; for the caller to take out."""

    def is_allowed(self, claim: PersistentVolumeClaim, storage_class: StorageClass) -> bool:
        """Whether allowedTopologies of the class include this node. A claim taken elsewhere would fail for ever."""
        placement = self.gatherer.placement
        if placement is None or not storage_class.allowedTopologies:
            return True
        allowed = self.gatherer.class_plan(storage_class).allowed
        if isinstance(allowed, Refusal):
            return True  # take it: provisioning reports the bad class in an event
        facts = PlacementFacts(claim.metadata.name, self.node, allowed, self.gatherer.settings)
        try:
            topology.requirement(facts, placement.cluster, TopologyMemory())
        except Refusal as refusal:
            log.v(3, "Claim is not for this node", PVC=claim, reason=refusal.message)
            return False
        return True

    async def fits(self, claim: PersistentVolumeClaim, storage_class: StorageClass) -> bool:
        """Also True if the check fails: then provisioning reports the reason in an event.

        Raises CallError while the driver is away, because this node should not take a claim then.
        """
        try:
            plan = await self.gatherer.plan(self._as_ours(claim), storage_class, protect=False)
            return await self._has_room(plan.request, claim.metadata.uid)
        except TryError as error:
            # Not the claim's fault: it is checked again when the driver is back.
            if isinstance(error, CallError) and error.code == Code.UNAVAILABLE:
                raise
            log.warning("Cannot tell whether the volume fits on this node", PVC=claim, err=error)
            return True
        finally:
            # The topology that was seen now must not bind a later check.
            if self.gatherer.placement is not None:
                self.gatherer.placement.forget(claim.metadata.uid)

    async def _has_room(self, request: csi.CreateVolumeRequest, uid: str) -> bool:
        questions = claiming.questions(request)
        for question in questions:
            begun = trio.current_time()
            try:
                answer = await self.driver.get_capacity(question)
            finally:
                self.spent[uid] = self.spent.get(uid, 0.0) + trio.current_time() - begun
            if claiming.fits(answer, request):
                return True
        return not questions  # a volume without a size fits anywhere

    def _as_ours(self, claim: PersistentVolumeClaim) -> PersistentVolumeClaim:
        """The claim with this node selected, as it looks once we have taken it."""
        annotations = {**(claim.metadata.annotations or {}), wellknown.SELECTED_NODE: self.node}
        metadata = msgspec.structs.replace(claim.metadata, annotations=annotations)
        return msgspec.structs.replace(claim, metadata=metadata)
