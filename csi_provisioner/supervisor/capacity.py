"""Storage capacity in the process: its own way to the API server, made at the start; its part in a life of the work.

Every replica makes the first, also while another one leads (process.md 3 step 20). What is missing there ends the
process: a provisioner that was told to publish and cannot would leave the scheduler with old numbers.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from csi_provisioner import __version__
from csi_provisioner.capacity import discovery, naming, owner, publisher, segments
from csi_provisioner.capacity.discovery import Discovery
from csi_provisioner.capacity.objects import Publication
from csi_provisioner.capacity.publisher import Publisher
from csi_provisioner.csi.driver import Driver
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.client import Cluster, KubeClient, KubeError, TokenBucket, connect
from csi_provisioner.kube.end import CLOSING, End
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import CSIStorageCapacity, ObjectMeta
from csi_provisioner.nodes.local import LocalNode
from csi_provisioner.settings import CapacitySettings, Settings
from csi_provisioner.work.backoff import Backoff

from .caches import Stores

# What no API server takes
INVALID_NAME = "#%123-invalid-name"


@dataclass(frozen=True, slots=True)
class Access:
    """A client with the limit of `--kube-api-capacity-qps`, and what all objects have in common."""

    kube: KubeClient
    publication: Publication


@asynccontextmanager
async def access(
    cluster: Cluster, settings: Settings, driver: str, metrics: Metrics, end: End
) -> AsyncIterator[Access | None]:
    """None without `--enable-capacity`. Raises Fatal."""
    capacity, limits = settings.capacity, settings.cluster
    if not capacity.enabled:
        yield None
        return
    _expose(metrics, central=not settings.nodes.enabled)
    if not capacity.namespace:
        raise Fatal(
            "--enable-capacity needs the environment variable NAMESPACE: where CSIStorageCapacity objects go", 255
        )
    if capacity.ownerref_level >= 0 and not capacity.pod_name:
        raise Fatal(
            f"--capacity-ownerref-level={capacity.ownerref_level} needs the environment variable POD_NAME to find the "
            "owner of CSIStorageCapacity objects; -1 stands for no owner",
            255,
        )
    limit = TokenBucket(limits.capacity_qps, limits.capacity_burst) if limits.capacity_qps else None
    agent = f"csi-provisioner/{__version__}"
    kube = await connect(cluster, limit=limit, user_agent=agent, may_begin=end.may_begin)
    try:
        node = settings.nodes.node_name if settings.nodes.enabled else None
        yield Access(kube, await _publication(kube, capacity, capacity.namespace, driver, node))
    finally:
        async with end.shield(CLOSING):
            await kube.aclose()


async def _publication(
    kube: KubeClient, settings: CapacitySettings, namespace: str, driver: str, node: str | None
) -> Publication:
    found = await owner.find(kube, namespace, settings.pod_name or "", settings.ownerref_level)
    await _probe(kube, namespace)
    if found is not None:
        log.info("Found the owner of CSIStorageCapacity objects", kind=found.kind, name=found.name, uid=found.uid)
    return Publication(driver, naming.managed_by(node), namespace, found)


async def _probe(kube: KubeClient, namespace: str) -> None:
    """Has the cluster the kind, and may we make such objects there? Asked with one that no server takes."""
    invalid = CSIStorageCapacity(ObjectMeta(name=INVALID_NAME, namespace=namespace))
    try:
        await kube.create(CSIStorageCapacity, invalid, namespace)
    except KubeError as error:
        if error.code == 422:
            return
        raise Fatal(
            f"--enable-capacity: cannot make CSIStorageCapacity objects (storage.k8s.io/v1, Kubernetes 1.24) in "
            f"namespace {namespace}: {str(error).replace(INVALID_NAME, '(any)')}",
            255,
        ) from error
    raise Fatal(
        f"--enable-capacity: the API server took an invalid CSIStorageCapacity object in namespace {namespace}",
        255,
    )


def _expose(metrics: Metrics, *, central: bool) -> None:
    """A replica that stands by has these series too, at zero."""
    metrics.queue(publisher.QUEUE)
    if central:
        metrics.queue(discovery.QUEUE)
    metrics.capacity(lambda: 0, lambda: 0, lambda: 0)


class Capacity:
    """The publishing of one life: on one node its own segment, else those of all nodes."""

    def __init__(
        self,
        access: Access,
        settings: Settings,
        driver: Driver,
        kept: Stores,
        local: LocalNode | None,
        metrics: Metrics,
    ) -> None:
        retries = settings.retries
        self.publisher = Publisher(
            access.publication,
            settings.capacity,
            access.kube,
            driver,
            kept.storage_classes,
            segments=self._segments,
            backoff=Backoff(retries.start, retries.maximum),
            metrics=metrics.queue(publisher.QUEUE),
        )
        self._local = local
        self._discovery: Discovery | None = None
        if local is None:
            assert kept.nodes is not None
            assert kept.csinodes is not None
            self._discovery = Discovery(
                access.publication.driver,
                kept.nodes,
                kept.csinodes,
                changed=self.publisher.segments_changed,
                backoff=Backoff(retries.start, retries.maximum),
                metrics=metrics.queue(discovery.QUEUE),
            )
        desired = self.publisher.desired
        metrics.capacity(desired.goal, desired.current, self.publisher.obsolete)

    async def run(self) -> None:
        """For ever, once the other caches are whole. Whether this can work does not keep claims from being served."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.publisher.run)
            if self._discovery is not None:
                nursery.start_soon(self._discovery.run)

    def _segments(self) -> frozenset[segments.Segment]:
        if self._discovery is not None:
            return self._discovery.segments()
        return frozenset([segments.fixed(self._local.segments if self._local else None)])
