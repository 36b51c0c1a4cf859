"""Sweeps our finalizer off snapshots that no unfinished claim refers to (provision.md 12.3).

It catches what a crash, a deleted claim or a missing right has left. One list a sweep instead of a watch: a snapshot is
looked at for two fields every few minutes, and rights on snapshots are optional. Those of other drivers are left to
their own provisioners, which alone know what is still being made for claims that are gone.
"""

from collections.abc import Callable, Iterable
from typing import NoReturn

import trio

from csi_provisioner.advice import row
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.logs import log
from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import VolumeSnapshot, VolumeSnapshotContent
from csi_provisioner.planning import dns, finalizers, sources
from csi_provisioner.planning.sources import Readers
from csi_provisioner.planning.wellknown import SNAPSHOT_FINALIZER

SNAPSHOT_API = "/apis/snapshot.storage.k8s.io/v1"


async def wait_served(kube: KubeClient, interval: float) -> None:
    """Until the cluster has snapshots. They may be installed later, and an API server that has just started does not
    serve them at once."""
    while True:
        pause = interval
        try:
            if "VolumeSnapshot" in await kube.kinds(SNAPSHOT_API):
                return
        except KubeError as error:
            pause = max(interval, error.floor)
        await trio.sleep(pause)


async def is_possible(kube: KubeClient) -> bool:
    """May we list them? Asked once, as the process begins to lead."""
    try:
        await kube.list_page(VolumeSnapshot, limit=1)
    except KubeError as error:
        if error.forbidden:
            log.v(3, "No right to list VolumeSnapshots, orphaned finalizers on them are not swept", err=error)
            return False
    return True


async def sweep_forever(kube: KubeClient, driver: str, readers: Callable[[], Readers], interval: float) -> NoReturn:
    """At once, then every `interval` seconds; a sweep that fails is left to the next one."""
    while True:
        pause = interval
        try:
            await _sweep(kube, driver, readers)
        except KubeError as error:
            pause = max(interval, error.floor)
            # Quirk Q5, not kept: what could not be listed is not taken for unused.
            # An outage that all parts of the process meet is told once, not by each of them.
            if row(error).cause not in kube.troubles:
                log.warning("Could not look for orphaned finalizers on VolumeSnapshots", err=error)
        except Exception:
            log.exception("Unexpected error, the next sweep for orphaned finalizers tries again")
        await trio.sleep(pause)


async def _sweep(kube: KubeClient, driver: str, readers: Callable[[], Readers]) -> None:
    token: str | None = None
    while True:
        page = await kube.list_page(VolumeSnapshot, continue_token=token)
        ours = [snapshot for snapshot in _orphans(page.items, readers()) if await _is_of(kube, driver, snapshot)]
        # Asked again after the reads: a claim that came meanwhile protects its snapshot.
        for snapshot in _orphans(ours, readers()):
            await _release(kube, snapshot)
        if page.continue_token is None:
            return
        token = page.continue_token


def _orphans(snapshots: Iterable[VolumeSnapshot], readers: Readers) -> list[VolumeSnapshot]:
    users = sources.snapshot_users(readers)
    return [snapshot for snapshot in snapshots if sources.is_orphaned(snapshot, users, readers.under_way)]


async def _is_of(kube: KubeClient, driver: str, snapshot: VolumeSnapshot) -> bool:
    """Or of no driver: bound to nothing from which a volume could be made. One that cannot be told now is not."""
    content = snapshot.status.boundVolumeSnapshotContentName if snapshot.status else None
    if not (content and dns.is_subdomain(content)):
        return True
    try:
        return (await kube.get(VolumeSnapshotContent, content)).spec.driver == driver
    except KubeError as error:
        if not error.not_found:
            _tell(snapshot, error)
        return error.not_found


async def _release(kube: KubeClient, snapshot: VolumeSnapshot) -> None:
    try:
        await kube.update(snapshot, lambda raw: finalizers.remove(raw, SNAPSHOT_FINALIZER))
    except KubeError as error:
        # Decided on what is there no longer, so nothing is written. The next sweep decides anew.
        if error.not_found or error.conflict:
            log.v(4, "Snapshot changed meanwhile, the next sweep looks again", snapshot=kubernetes.key(snapshot))
        else:
            _tell(snapshot, error)
        return
    log.v(3, "Took an orphaned finalizer off a snapshot", snapshot=kubernetes.key(snapshot))


def _tell(snapshot: VolumeSnapshot, error: KubeError) -> None:
    # The rights are optional in the published roles, so a missing one is no trouble.
    tell = log.info if error.forbidden else log.warning
    tell("Could not take our finalizer off a snapshot", snapshot=kubernetes.key(snapshot), err=error)
