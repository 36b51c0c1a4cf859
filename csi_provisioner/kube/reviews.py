"""What this process may do, as the API server says (SelfSubjectAccessReview)."""

import msgspec
from lightkube.core.resource import GlobalResource

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import ObjectMeta, resource


class AccessReviewStatus(msgspec.Struct, gc=False):
    allowed: bool = True


@resource("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")
class SelfSubjectAccessReview(GlobalResource, msgspec.Struct):
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    status: AccessReviewStatus = msgspec.field(default_factory=AccessReviewStatus)
    apiVersion: str | None = None
    kind: str | None = None


async def is_allowed(
    kube: KubeClient, verb: str, resource: str, group: str = "", namespace: str = "", name: str = ""
) -> bool | None:
    """None: the server did not say. A cluster may do without reviews, and may not let us ask."""
    wanted = {"verb": verb, "resource": resource, "group": group, "namespace": namespace, "name": name}
    spec = {"resourceAttributes": {key: value for key, value in wanted.items() if value}}
    try:
        review = await kube.create(SelfSubjectAccessReview, {"metadata": {}, "spec": spec})
    except KubeError as error:
        log.v(3, "Could not ask for a right", verb=verb, resource=resource, err=str(error))
        return None
    return review.status.allowed
