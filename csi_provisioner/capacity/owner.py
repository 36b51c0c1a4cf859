"""The owner of the capacity objects: this process's pod, or one of its controllers (capacity.md 3).

Looked up once. An owner can be of any kind, so its plural comes from API discovery.
"""

from csi_provisioner.advice import advice
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.model.kubernetes import ObjectMeta, OwnerReference


async def find(kube: KubeClient, namespace: str, pod: str, level: int) -> OwnerReference | None:
    """The pod at level 0, its controller at level 1, and so on; a negative level means no owner.

    The owner itself is not read. Raises Fatal that says at which object the chain ends.
    """
    if level < 0:
        return None
    owner = OwnerReference(apiVersion="v1", kind="Pod", name=pod, controller=True)
    try:
        found = await kube.read("/api/v1", "Pod", "pods", pod, namespace)
        owner.uid = found.uid
        for step in range(level):
            if step:  # the pod has been read already
                found = await _read(kube, namespace, owner)
            owner = _controller(found, owner)
    except KubeError as error:
        # Only of the pod it is known where its name comes from.
        lost = error.not_found and owner.kind == "Pod"
        what = f"; {advice(error)}" if lost else ""
        raise _fatal(f"cannot look up {owner.kind} {namespace}/{owner.name}: {error}{what}") from error
    return owner


async def _read(kube: KubeClient, namespace: str, wanted: OwnerReference) -> ObjectMeta:
    group, slash, version = wanted.apiVersion.rpartition("/")
    if not version or "/" in group or (slash and not group):
        raise _fatal(f"{wanted.kind} {wanted.name} has the malformed apiVersion {wanted.apiVersion!r}")
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    plural = (await kube.kinds(path)).get(wanted.kind)
    if plural is None:
        raise _fatal(f"the cluster has no kind {wanted.kind} in {wanted.apiVersion}, which {wanted.name} is of")
    return await kube.read(path, wanted.kind, plural, wanted.name, namespace)


def _controller(found: ObjectMeta, of: OwnerReference) -> OwnerReference:
    """The owner that is marked as controller; there is at most one."""
    # Owners that do not control the object play no part: it would go with any of them.
    for reference in found.ownerReferences or ():
        if reference.controller:
            return reference
    raise _fatal(
        f"{of.kind} {of.name} is controlled by nothing: choose --capacity-ownerref-level for the way this process is "
        "deployed (0: the pod, 1: its StatefulSet or DaemonSet, 2: its Deployment, -1: no owner)"
    )


def _fatal(text: str) -> Fatal:
    return Fatal(f"cannot tell the owner of CSIStorageCapacity objects: {text}", 255)
