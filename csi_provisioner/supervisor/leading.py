"""Leader election around the work, and its health check (process.md 6, 7; design.md 2).

Without `--leader-election` the work begins at once. Each leadership has its own journal of volumes, and the client of
the election writes it.
"""

import math
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import trio
from msgspec.structs import replace

from csi_provisioner.fatal import Fatal
from csi_provisioner.kube import identity
from csi_provisioner.kube.client import Cluster, KubeClient
from csi_provisioner.kube.election import LeaderElector
from csi_provisioner.kube.end import End
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.state import LeadershipState
from csi_provisioner.planning import dns
from csi_provisioner.provision import journal_leases
from csi_provisioner.provision.writer import JournalWriter
from csi_provisioner.settings import Settings

from .clients import api_client
from .connection import Connection
from .term import LeaderTerm

Lead = Callable[[JournalWriter | None], Awaitable[None]]


class Leadership:
    """Made before the election begins, so that a standby can answer health checks."""

    def __init__(self, settings: Settings, metrics: Metrics, end: End) -> None:
        self.sought = settings.election.enabled
        self.identity = ""
        self.term: Callable[[], LeaderTerm | None] = lambda: None
        """The one that runs, which is told of a cluster that was restored from a backup."""
        self._settings = settings
        self._metrics = metrics
        self._end = end
        self._elector: LeaderElector | None = None
        if self.sought:
            metrics.leading(False)

    @property
    def leads(self) -> bool:
        return self._elector is not None and self._elector.renewed > -math.inf

    @contextmanager
    def named(self) -> Iterator[str]:
        """A name that no other process has as long as this lasts: in the Lease and for the local socket."""
        if not self.sought:
            yield str(os.getpid())
            return
        with identity.held(socket.gethostname()) as self.identity:
            yield self.identity

    def state(self, begun: float | None) -> LeadershipState:
        """`begun`: for how long a term has been running here."""
        spec = self._elector.spec if self._elector is not None else None
        return LeadershipState(
            sought=self.sought,
            leads=begun is not None or self.leads,
            trouble=self.health() or "",
            identity=self.identity,
            lease=self._elector.lease if self._elector is not None else "",
            holder=(spec.holderIdentity if spec is not None else None) or "",
            since=_age(spec.acquireTime) if spec is not None else begun,
        )

    def health(self) -> str | None:
        """The reason why the leader is unhealthy, or None."""
        return self._elector.health() if self._elector is not None else None

    async def run(
        self,
        cluster: Cluster,
        events: EventRecorder,
        connection: Connection,
        lead: Lead,
        stop: trio.Event,
    ) -> None:
        """Waits for the lease and runs `lead` under it, again and again until `stop`.

        Competes only while the driver answers: a leader without one would keep the lease from those that have one.
        Raises Fatal if the lease is lost while `lead` runs, and where the driver's name makes none.
        """
        settings, driver = self._settings.election, connection.facts.name
        if self.sought or self._settings.provisioning.volume_journal == "on":
            _check_name(driver)
        if not self.sought:
            async with api_client(cluster, self._end, purpose=" (volume journal)") as leases:
                journal = self._journal(leases, driver)
                if journal is not None:
                    journal.gap = False  # nobody counts the terms: the age of an entry alone decides
                await lead(journal)
            return
        # Its own client without a limit, so that busy workers never delay a renewal (design.md 3, rule 8).
        client = api_client(cluster, self._end, purpose=" (leader election)")
        async with client as leases:
            while not stop.is_set():
                self._elector = LeaderElector(
                    leases,
                    settings,
                    name=identity.sanitised(driver),
                    identity=self.identity,
                    metrics=self._metrics,
                    events=events,
                    component=f"{driver.replace('/', '-')}/{self.identity}",
                    end=self._end,
                    ready=connection.answers,
                )
                await self._elector.run(partial(self._lead, lead, leases, driver, self._elector))

    async def _lead(self, lead: Lead, leases: KubeClient, driver: str, elector: LeaderElector) -> None:
        journal = self._journal(leases, driver)
        elector.went_back, elector.seen = partial(self._go_back, journal), self._seen
        if journal is not None:
            journal.gap, journal.renew = elector.gap, elector.renew_soon
            journal.lost = lambda: elector.lost
            journal.renewed, elector.keeps_journal = lambda: elector.renewed, lambda: journal.is_whole
        await lead(journal)

    def _go_back(self, journal: JournalWriter | None) -> None:
        if journal is not None:
            journal.rewrite()
        if (term := self.term()) is not None:
            term.look_again()

    def _seen(self) -> int:
        return -1 if (term := self.term()) is None else term.caches.seen

    def _journal(self, client: KubeClient, driver: str) -> JournalWriter | None:
        """None where it is not wanted, or nothing says which namespace it is to stand in."""
        settings, wanted = self._settings, self._settings.provisioning.volume_journal
        namespace = settings.election.own_namespace
        if wanted == "off" or (wanted == "auto" and not namespace):
            log.info("No volume journal is kept", flag=wanted, namespace=namespace)
            return None
        return JournalWriter(
            client=client,
            driver=driver,
            lease=journal_leases.leader_of(identity.sanitised(driver), settings.nodes.node_name),
            election=replace(settings.election, namespace=namespace or "default"),
            hold=settings.election.lease_duration + settings.csi.timeout,
            metrics=self._metrics,
            may_begin=self._end.may_begin,
            required=wanted == "on",
        )


def _check_name(driver: str) -> None:
    """The API server would refuse it for ever."""
    lease = identity.sanitised(driver)
    if not dns.is_subdomain(lease):
        raise Fatal(
            f"the CSI driver's name {driver!r} makes {lease!r} the name of the Lease, which no object can have: it "
            "takes lower-case letters, digits and dashes between them; the driver needs another name, or this "
            "process runs alone, without --leader-election and without --volume-journal=on",
            255,
        )


def _age(when: str | None) -> float | None:
    """Seconds, as far as the clocks of whoever wrote it and of this machine agree."""
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(when or "")).total_seconds())
    except (ValueError, TypeError):
        return None
