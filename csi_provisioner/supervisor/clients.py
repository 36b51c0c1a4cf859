"""The clients of the API server: what each may ask, how fast, and that it is closed in the end.

The one for storage capacity is made by every replica, also while another one leads (process.md 3 step 20). What is
missing there ends the process: one that was told to publish and cannot would leave the scheduler with old numbers.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from csi_provisioner import __version__
from csi_provisioner.capacity import owner, publisher
from csi_provisioner.capacity.objects import Publication, manager_on
from csi_provisioner.capacity.publisher import CapacityClient
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.client import Cluster, KubeClient, KubeError, TokenBucket, connect
from csi_provisioner.kube.end import CLOSING, End
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import CSIStorageCapacity, ObjectMeta
from csi_provisioner.settings import Settings

# What no API server takes
INVALID_NAME = "#%123-invalid-name"


@asynccontextmanager
async def api_client(
    cluster: Cluster, end: End, *, qps: float | None = None, burst: int = 0, purpose: str = ""
) -> AsyncIterator[KubeClient]:
    """Limited to `qps`, if it is given. The server's own log shows `purpose`, in the user agent."""
    limit = TokenBucket(qps, burst) if qps else None
    agent = f"csi-provisioner/{__version__}{purpose}"
    client = await connect(cluster, limit=limit, user_agent=agent, may_begin=end.may_begin)
    try:
        yield client
    finally:
        async with end.shield(CLOSING):
            await client.aclose()


@asynccontextmanager
async def capacity_client(
    cluster: Cluster, settings: Settings, driver: str, metrics: Metrics, end: End
) -> AsyncIterator[CapacityClient | None]:
    """None without `--enable-capacity`. Raises Fatal."""
    capacity, limits, nodes = settings.capacity, settings.cluster, settings.nodes
    if not capacity.enabled:
        yield None
        return
    # A replica that stands by has these series too, at zero.
    metrics.queue(publisher.QUEUE)
    if not nodes.enabled:
        metrics.queue(publisher.TOPOLOGY_QUEUE)
    metrics.capacity(lambda: 0, lambda: 0, lambda: 0)
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
    async with api_client(cluster, end, qps=limits.capacity_qps, burst=limits.capacity_burst) as client:
        found = await owner.find(client, namespace, capacity.pod_name, level)
        await _probe(client, namespace)
        if found is not None:
            log.info("Found the owner of CSIStorageCapacity objects", kind=found.kind, name=found.name, uid=found.uid)
        manager = manager_on(nodes.node_name if nodes.enabled else "")
        yield CapacityClient(client, Publication(driver, manager, namespace, found))


async def _probe(client: KubeClient, namespace: str) -> None:
    """Has the cluster the kind, and may we make such objects there? Asked with one that no server takes."""
    invalid = CSIStorageCapacity(ObjectMeta(name=INVALID_NAME, namespace=namespace))
    try:
        await client.create(CSIStorageCapacity, invalid, namespace)
    except KubeError as error:
        if error.code == 422:
            return
        raise Fatal(
            f"--enable-capacity: cannot make CSIStorageCapacity objects (storage.k8s.io/v1, Kubernetes 1.24) in "
            f"namespace {namespace}: {str(error).replace(INVALID_NAME, '(any)')}",
            255,
        ) from error
    raise Fatal(
        f"--enable-capacity: the API server took an invalid CSIStorageCapacity object in namespace {namespace}", 255
    )
