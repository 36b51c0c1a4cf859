"""Who owns the capacity objects: this process's pod, or what controls it so many steps up (capacity.md 3).

Looked up once. Kinds on the way are not known beforehand: discovery tells their paths, and objects are read untyped.
"""

from typing import Any

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.model.kubernetes import OwnerReference


class OwnerError(Exception):
    """There is no such owner; the text says where the way up ends."""


async def find(kube: KubeClient, namespace: str, pod: str, level: int) -> OwnerReference | None:
    """The pod at level 0, its controller at level 1, and so on; none below. What is returned need not exist itself.

    Raises OwnerError.
    """
    if level < 0:
        return None
    owner = OwnerReference(apiVersion="v1", kind="Pod", name=pod, controller=True)
    try:
        obj = await kube.discover(f"/api/v1/namespaces/{namespace}/pods/{pod}")
        owner.uid = obj["metadata"]["uid"]
        for step in range(level):
            if step:
                obj = await _read(kube, namespace, owner)
            owner = _controller(obj, owner)
    except KubeError as error:
        lost = error.not_found and owner.kind == "Pod"
        advice = "; NAMESPACE and POD_NAME have to name this process's pod" if lost else ""
        raise OwnerError(f"cannot look up {owner.kind} {namespace}/{owner.name}: {error}{advice}") from error
    return owner


async def _read(kube: KubeClient, namespace: str, wanted: OwnerReference) -> dict[str, Any]:
    group, slash, version = wanted.apiVersion.rpartition("/")
    if not version or "/" in group or (slash and not group):
        raise OwnerError(f"{wanted.kind} {wanted.name} has the malformed apiVersion {wanted.apiVersion!r}")
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    for resource in (await kube.discover(path))["resources"]:
        if resource["kind"] == wanted.kind and "/" not in resource["name"]:
            return await kube.discover(f"{path}/namespaces/{namespace}/{resource['name']}/{wanted.name}")
    raise OwnerError(f"the cluster has no kind {wanted.kind} in {wanted.apiVersion}, which {wanted.name} is of")


def _controller(obj: dict[str, Any], of: OwnerReference) -> OwnerReference:
    """Owners that do not control it are passed over."""
    for reference in obj["metadata"].get("ownerReferences", []):
        if reference.get("controller"):
            return OwnerReference(
                apiVersion=reference["apiVersion"],
                kind=reference["kind"],
                name=reference["name"],
                uid=reference["uid"],
                controller=True,
            )
    raise OwnerError(
        f"{of.kind} {of.name} is controlled by nothing: choose --capacity-ownerref-level for the way this process is "
        "deployed (0: the pod, 1: its StatefulSet or DaemonSet, 2: its Deployment, -1: no owner)"
    )
