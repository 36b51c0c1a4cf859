"""May this process write PersistentVolumes? Asked before the driver is: a volume that cannot be written down is lost.

The answer is that of the API server (SelfSubjectAccessReview). Where it does not answer, the right is taken for
granted: a cluster may do without reviews.
"""

import math

import msgspec
import trio
from lightkube.core.resource import GlobalResource

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import ObjectMeta, resource
from csi_provisioner.model.outcome import State
from csi_provisioner.planning.refusal import Refusal

AGAIN = 10.0
"""Seconds between two looks at a right that is missing: somebody may grant it at any time."""
RULE = "grant create on persistentvolumes to the service account of this process (kustomize/base does)"


class AccessReviewStatus(msgspec.Struct, gc=False):
    allowed: bool = True


@resource("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")
class SelfSubjectAccessReview(GlobalResource, msgspec.Struct):
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    status: AccessReviewStatus = msgspec.field(default_factory=AccessReviewStatus)
    apiVersion: str | None = None
    kind: str | None = None


class RightToSave:
    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._asking = trio.Lock()  # a hundred claims that come at once ask once
        self._asked_at = -math.inf
        self._granted = True
        self._doubted = True

    def doubt(self) -> None:
        """A PersistentVolume was refused with 403."""
        if not self._doubted:
            self._doubted, self._asked_at = True, -math.inf

    async def check(self) -> None:
        """Once a term, and while it is in doubt again, at most once in `AGAIN` seconds. Raises Refusal."""
        async with self._asking:
            if self._doubted and trio.current_time() >= self._asked_at + AGAIN:
                self._asked_at = trio.current_time()
                self._granted = await self._ask()
                self._doubted = not self._granted
        if not self._granted:
            text = f"this process may not create PersistentVolumes, so the driver is not asked for a volume; {RULE}"
            raise Refusal(State.NO_CHANGE, text)

    async def _ask(self) -> bool:
        wanted = {"resource": "persistentvolumes", "verb": "create"}
        try:
            review = await self._kube.create(
                SelfSubjectAccessReview, {"metadata": {}, "spec": {"resourceAttributes": wanted}}
            )
        except KubeError as error:
            log.v(3, "Could not ask for the right to create PersistentVolumes", err=str(error))
            return True
        return review.status.allowed
