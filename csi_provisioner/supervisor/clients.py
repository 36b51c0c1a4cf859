"""Clients of the API server, each with its own rate limit; all are closed at the end.

Every replica makes the client for storage capacity, also while another one leads (process.md 3 step 20). If something
is missing for it the process ends: otherwise the scheduler would go on with outdated capacity.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from csi_provisioner import __version__
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.client import Cluster, KubeClient, KubeError, TokenBucket, connect
from csi_provisioner.kube.end import End
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import CSIStorageCapacity, ObjectMeta
from csi_provisioner.settings import ProvisioningSettings, Settings

if TYPE_CHECKING:
    from csi_provisioner.capacity.publisher import CapacityClient

# Not a valid object name, so every API server refuses it.
INVALID_NAME = "#%123-invalid-name"


@asynccontextmanager
async def api_client(
    cluster: Cluster, end: End, *, qps: float | None = None, burst: int = 0, purpose: str = ""
) -> AsyncIterator[KubeClient]:
    """Limited to `qps` if given. `purpose` is part of the user agent, which the server's audit log shows."""
    limit = TokenBucket(qps, burst) if qps else None
    agent = f"csi-provisioner/{__version__}{purpose}"
    client = connect(cluster, limit=limit, user_agent=agent, may_begin=end.may_begin)
    try:
        yield client
    finally:
        client.close()


@asynccontextmanager
async def capacity_client(
    cluster: Cluster, settings: Settings, driver: str, metrics: Metrics, end: End
) -> AsyncIterator["CapacityClient | None"]:
    """None without `--enable-capacity`. Raises Fatal."""
    capacity, limits, nodes = settings.capacity, settings.cluster, settings.nodes
    if not capacity.enabled:
        yield None
        return
    from csi_provisioner.capacity import owner, publisher
    from csi_provisioner.capacity.objects import Publication, manager_on

    # So that a standby exposes these series too, at zero.
    metrics.queue(publisher.QUEUE)
    if not nodes.enabled:
        metrics.queue(publisher.TOPOLOGY_QUEUE)
    metrics.capacity(*4 * (lambda: 0,))
    namespace, level = capacity.namespace, capacity.ownerref_level
    if not namespace:
        raise Fatal(
            "--enable-capacity needs the environment variable NAMESPACE: where CSIStorageCapacity objects go", 255
        )
    if level >= 0 and not capacity.pod_name:
        raise Fatal(
            f"--capacity-ownerref-level={level} needs the environment variable POD_NAME to find the owner of "
            "CSIStorageCapacity objects; -1 stands for no owner",
            255,
        )
    # Its own limit, so that requests for capacity never slow down provisioning.
    async with api_client(cluster, end, qps=limits.capacity_qps, burst=limits.capacity_burst) as client:
        found = await owner.find(client, namespace, capacity.pod_name, level)
        await _probe(client, namespace)
        if found is not None:
            log.info("Found the owner of CSIStorageCapacity objects", kind=found.kind, name=found.name, uid=found.uid)
        manager = manager_on(nodes.node_name if nodes.enabled else "")
        yield publisher.CapacityClient(client, Publication(driver, manager, namespace, found))


async def _probe(client: KubeClient, namespace: str) -> None:
    """Checks that the kind exists and that we may create it, by creating an object that the server must refuse."""
    invalid = CSIStorageCapacity(ObjectMeta(name=INVALID_NAME, namespace=namespace))
    try:
        await client.create(CSIStorageCapacity, invalid, namespace)
    except KubeError as error:
        if error.code == 422:  # refused for its name only: kind, namespace and rights are there
            return
        raise Fatal(
            f"--enable-capacity: cannot make CSIStorageCapacity objects (storage.k8s.io/v1, Kubernetes 1.24) in "
            f"namespace {namespace}: {str(error).replace(INVALID_NAME, '(any)')}",
            255,
        ) from error
    raise Fatal(
        f"--enable-capacity: the API server took an invalid CSIStorageCapacity object in namespace {namespace}", 255
    )


async def gated(settings: Settings, kube: KubeClient) -> ProvisioningSettings:
    """process.md 1.4: a cluster without VolumeAttributesClass switches that gate off, unless the user named it."""
    provisioning, gates = settings.provisioning, settings.gates
    if gates.volume_attributes_class_explicit or not gates.volume_attributes_class:
        return provisioning
    try:
        if "VolumeAttributesClass" in await kube.kinds("/apis/storage.k8s.io/v1"):
            return provisioning
    except KubeError as error:
        if error.code != 404:
            return provisioning
    log.info("The cluster has no VolumeAttributesClass in storage.k8s.io/v1, the feature is off")
    return replace(provisioning, volume_attributes_class=False)
