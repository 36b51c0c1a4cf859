"""Would the claim's volume fit on this node (node-deployment.md 5 step 1 and section 7)? Asked before it is taken.

Nothing is changed by asking: no finalizer is set and nothing is remembered of the claim (quirk Q11).
"""

import msgspec

from csi_provisioner.csi.driver import Driver
from csi_provisioner.csi.errors import CallError
from csi_provisioner.kube.client import KubeError
from csi_provisioner.logs import log
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from csi_provisioner.model.kubernetes import NodeName, PersistentVolumeClaim, StorageClass
from csi_provisioner.nodes import claiming
from csi_provisioner.planning import topology, wellknown
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.refusal import Ignored, Problem, Refusal
from csi_provisioner.planning.topology import PlacementFacts, TopologyMemory
from csi_provisioner.provision.gather import Gatherer, Placement
from csi_provisioner.settings import ProvisioningSettings


class CapacityCheck:
    """`cluster` is this node alone; it is None, like `placement`, while topology is not active. `gatherer` and
    `placement` are not those of provisioning: what is looked at here must not be remembered there."""

    def __init__(
        self,
        node: NodeName,
        driver: Driver,
        gatherer: Gatherer,
        settings: ProvisioningSettings,
        *,
        cluster: ClusterTopology | None,
        placement: Placement | None,
    ) -> None:
        self._node = node
        self._driver = driver
        self._gatherer = gatherer
        self._settings = settings
        self._cluster = cluster
        self._placement = placement

    def is_allowed(self, claim: PersistentVolumeClaim, storage_class: StorageClass) -> bool:
        """Is this node in the class's allowedTopologies? Else the claim would be stuck here with an error."""
        if self._cluster is None or not storage_class.allowedTopologies:
            return True
        allowed = self._gatherer.class_plan(storage_class).allowed
        if isinstance(allowed, Problem):
            return True  # as below: provisioning says what is wrong with the class
        facts = PlacementFacts(
            claim=claim.metadata.name,
            selected_node=self._node,
            allowed=allowed,
            strict=self._settings.strict_topology,
            immediate=self._settings.immediate_topology,
        )
        try:
            topology.requirement(facts, self._cluster, TopologyMemory(), choose=lambda nodes: nodes[0])
        except Refusal as refusal:
            log.v(3, "Claim is not for this node", PVC=claim, reason=refusal.message)
            return False
        return True

    async def fits(self, claim: PersistentVolumeClaim, storage_class: StorageClass) -> bool:
        """True as well if that cannot be told: the claim is taken, and provisioning tells the reason in an event.

        Raises CallError while the driver is away: its node is no place for a claim now.
        """
        try:
            plan = await self._gatherer.plan(self._as_ours(claim), storage_class, protect=False)
            return await self._has_room(plan.request)
        except (Refusal, Ignored, KubeError, CallError) as error:
            if isinstance(error, CallError) and error.code == Code.UNAVAILABLE:
                raise
            log.warning("Cannot tell whether the volume fits on this node", PVC=claim, err=error)
            return True
        finally:
            if self._placement is not None:
                self._placement.forget(claim.metadata.uid)

    async def _has_room(self, request: csi.CreateVolumeRequest) -> bool:
        questions = claiming.questions(request)
        for question in questions:
            if claiming.fits(await self._driver.get_capacity(question), request):
                return True
        return not questions

    def _as_ours(self, claim: PersistentVolumeClaim) -> PersistentVolumeClaim:
        """As it will be once it is taken."""
        annotations = {**(claim.metadata.annotations or {}), wellknown.SELECTED_NODE: self._node}
        metadata = msgspec.structs.replace(claim.metadata, annotations=annotations)
        return msgspec.structs.replace(claim, metadata=metadata)
