"""Sweeps our finalizer off snapshots that no unfinished claim refers to (provision.md 12.3).

It catches what a crash, a deleted claim or a missing right has left. One list a sweep instead of a watch: a snapshot is
looked at for two fields every few minutes, and rights on snapshots are optional. Those of other drivers are left to
their own provisioners, which alone know what is still being made for claims that are gone.
"""

from collections.abc import Callable
from typing import NoReturn

import trio

from csi_provisioner.advice import row
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.errors import unless_gone
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
        # Asked after the list: a claim that came meanwhile protects its snapshot.
        now = readers()
        users = sources.snapshot_users(now)
        for snapshot in page.items:
            if sources.is_orphaned(snapshot, users, now.under_way):
                await _release(kube, driver, snapshot)
        if page.continue_token is None:
            return
        token = page.continue_token


async def _release(kube: KubeClient, driver: str, snapshot: VolumeSnapshot) -> None:
    name = kubernetes.key(snapshot)
    try:
        if await _driver_of(kube, snapshot) not in (None, driver):
            return
        await kube.update(snapshot, lambda raw: finalizers.remove(raw, SNAPSHOT_FINALIZER))
    except KubeError as error:
        # Decided on what is there no longer, so nothing is written. The next sweep decides anew.
        if error.not_found or error.conflict:
            log.v(4, "Snapshot changed meanwhile, the next sweep looks again", snapshot=name)
        else:
            # The right is optional in the published roles, so a missing one is no trouble.
            tell = log.info if error.forbidden else log.warning
            tell("Could not take our finalizer off a snapshot", snapshot=name, err=error)
        return
    log.v(3, "Took an orphaned finalizer off a snapshot", snapshot=name)


async def _driver_of(kube: KubeClient, snapshot: VolumeSnapshot) -> str | None:
    """None: it is bound to nothing from which a volume could be made."""
    content = snapshot.status.boundVolumeSnapshotContentName if snapshot.status else None
    if content and dns.is_subdomain(content):
        with unless_gone():
            return (await kube.get(VolumeSnapshotContent, content)).spec.driver
    return None
