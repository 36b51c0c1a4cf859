"""Everything that is to be known of volumes without an owner, asked of the API server and of the driver.

What cannot be asked is said, and the rest is answered: only without PersistentVolumes and claims there is no answer.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import trio
from lightkube.core.resource import Resource

from csi_provisioner import __version__
from csi_provisioner.csi.channel import Channel
from csi_provisioner.csi.driver import Driver
from csi_provisioner.csi.errors import CallError
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube import identity
from csi_provisioner.kube.client import EVERYWHERE, KubeClient, KubeError, Scope, connect, resolve
from csi_provisioner.metrics import Metrics
from csi_provisioner.migration.registry import IN_TREE_NAMES
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from csi_provisioner.model.kubernetes import Lease, PersistentVolume, PersistentVolumeClaim
from csi_provisioner.planning import entries, leftover
from csi_provisioner.planning.entries import Entry, UnreadableError
from csi_provisioner.planning.evidence import Known
from csi_provisioner.planning.leftover import Leftover
from csi_provisioner.provision.journal import NUMBERS
from csi_provisioner.provision.journal_leases import ENTRIES, leader_of
from csi_provisioner.settings import Settings

from .entry import CannotAskError

T = TypeVar("T", bound=Resource)

CONNECT = 5.0
"""Seconds for a driver to answer; without one the API server alone is asked."""
BEGINNINGS = 3
"""How often the driver's list is begun again when its token has expired."""


@dataclass(eq=False)
class Asking:
    """`driver` is None where none answers; `name` is its name all the same. `notes` say what is not known."""

    settings: Settings
    kube: KubeClient
    name: str
    driver: Driver | None
    capabilities: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)

    @property
    def migratable(self) -> bool:
        return self.name in IN_TREE_NAMES

    async def known(self) -> Known:
        """All of it, now. In this order what is made meanwhile has its owner in a later list; what is deleted meanwhile
        is not in the driver's second one."""
        listed = await self.listed()
        journal, leftovers = await self._leases()
        claims = await self.all(PersistentVolumeClaim)
        volumes = await self.all(PersistentVolume)
        if listed is not None:
            again = await self.listed() or {}
            listed = {volume_id: again[volume_id] for volume_id in listed if volume_id in again}
        return Known(
            driver=self.name,
            settings=self.settings.provisioning,
            volumes=volumes,
            claims=claims,
            journal=journal,
            leftovers=leftovers,
            listed=listed,
        )

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    async def all(self, kind: type[T], scope: Scope = EVERYWHERE) -> list[T]:
        found: list[T] = []
        token = None
        while True:
            try:
                page = await self.kube.list_page(kind, scope, continue_token=token)
            except KubeError as error:
                if error.code != 410 or token is None:
                    raise
                found, token = [], None  # the list has become too old to be read on: from its beginning
                continue
            # One that nobody can read may be the owner of any volume.
            if page.unreadable and kind is not Lease:
                name = next(iter(page.unreadable)) or "(without a name)"
                raise CannotAskError(f"{kind.__name__} {name} cannot be read, and may name any volume")
            found += page.items
            if not (token := page.continue_token):
                return found

    # ---- the driver

    async def listed(self) -> dict[str, csi.ListVolumesResponseEntry] | None:
        """The driver's volumes by id; None with a note where it does not list them."""
        if self.driver is None:
            return None
        if "LIST_VOLUMES" not in self.capabilities:
            self.note(f"driver {self.name} does not list its volumes: only what was noted of them is known")
            return None
        for _ in range(BEGINNINGS):
            try:
                return await self._pages(self.driver)
            except CallError as error:
                if error.code == Code.UNIMPLEMENTED:
                    self.note(f"driver {self.name} announces LIST_VOLUMES and does not have it: {error}")
                    return None
                if error.code != Code.ABORTED:  # that of a token that has expired
                    raise CannotAskError(f"the driver's volumes cannot be listed: {error}") from error
        raise CannotAskError(f"the driver's list did not come to its end: its token expired {BEGINNINGS} times")

    async def _pages(self, driver: Driver) -> dict[str, csi.ListVolumesResponseEntry]:
        found: dict[str, csi.ListVolumesResponseEntry] = {}
        token, tokens = "", {""}
        while True:
            page = await driver.list_volumes(token)
            found |= {entry.volume.volume_id: entry for entry in page.entries if entry.volume is not None}
            if not (token := page.next_token):
                return found
            # A driver may be wrong in this too, and the command would never end.
            if token in tokens:
                raise CannotAskError(f"the driver's list has no end: its token {token!r} comes again")
            tokens.add(token)

    # ---- journal and leftovers

    async def _leases(self) -> tuple[dict[str, Entry], list[Leftover]]:
        """All journals of this driver, also those of nodes that are gone."""
        journal: dict[str, Entry] = {}
        leftovers: list[Leftover] = []
        for lease in await self._found():
            name, annotations = lease.metadata.name, lease.metadata.annotations or {}
            try:
                if name.endswith("-dropped"):
                    found, strange = leftover.understood(leftover.read(annotations), self.name)
                    leftovers += found
                else:
                    texts = entries.unpack(annotations.get(ENTRIES, "{}"))
                    read = {volume: entries.understood(text, self.name) for volume, text in texts.items()}
                    journal |= {volume: entry for volume, entry in read.items() if entry is not None}
                    strange = sum(entry is None for entry in read.values())
            except UnreadableError as error:
                self.note(f"Lease {name} cannot be read: {error}")
            else:
                if strange:
                    self.note(f"Lease {name}: {strange} entries are of another driver or version")
        return journal, leftovers

    async def _found(self) -> list[Lease]:
        namespace, base = self.settings.election.own_namespace, identity.sanitised(self.name)
        if not namespace:
            self.note("journal and dropped volumes are not known: --leader-election-namespace says where they are")
            return []
        names = re.compile(f"{re.escape(base)}(-.*)?-(journal-[0-9]{{2}}|dropped)")
        try:
            leases = await self.all(Lease, Scope(namespace))
        except KubeError as error:
            if not error.forbidden:
                raise
            # As published roles have it: no `list`.
            own = leader_of(base, self.settings.nodes.node_name)
            wanted = [*(f"{own}-journal-{number:02}" for number in range(NUMBERS)), leftover.lease_name(base)]
            return [lease for name in wanted if (lease := await self.get(Lease, name, namespace)) is not None]
        return [lease for lease in leases if names.fullmatch(lease.metadata.name)]

    async def get(self, kind: type[T], name: str, namespace: str | None = None) -> T | None:
        try:
            return await self.kube.get(kind, name, namespace)
        except KubeError as error:
            if not error.not_found:
                raise
            return None


@asynccontextmanager
async def connected(settings: Settings, command: str) -> AsyncIterator[tuple[KubeClient, Driver]]:
    """To both. Takes no part in the election."""
    cluster = resolve(settings.cluster)
    channel = Channel(settings.csi.address, on_lost=lambda: None, metrics=Metrics())
    async with channel, trio.open_nursery() as services:
        services.start_soon(cluster.credentials.run)
        kube = connect(cluster, user_agent=f"csi-provisioner/{__version__} ({command})")
        try:
            yield kube, Driver(channel, settings.csi)
        finally:
            kube.close()
        services.cancel_scope.cancel()


@asynccontextmanager
async def asking(settings: Settings) -> AsyncIterator[Asking]:
    """Asks the driver for nothing but its name and what it can do."""
    async with connected(settings, "orphans") as (kube, driver):
        yield await _met(settings, kube, driver)


async def _met(settings: Settings, kube: KubeClient, driver: Driver) -> Asking:
    expected = settings.csi.expected_driver
    try:
        await driver.connect(CONNECT)
        name = await driver.identify()
        _, capabilities = await driver.read_capabilities()
    except Fatal as error:
        if not expected:
            text = f"{error}; without a driver --provisioner NAME says whose volumes are meant"
            raise CannotAskError(text) from error
        note = f"the driver is not asked ({error}): only what was noted of its volumes is known"
        return Asking(settings, kube, expected, None, notes=[note])
    if expected not in ("", name):
        raise CannotAskError(f"the CSI driver is {name!r}, but --provisioner says {expected!r}")
    return Asking(settings, kube, name, driver, capabilities)
