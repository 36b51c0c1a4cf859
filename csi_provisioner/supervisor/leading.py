"""Leader election around the work, and its health check (process.md 6, 7; design.md 2).

Without `--leader-election` the work begins at once and no Lease is touched.
"""

import socket
from collections.abc import Awaitable, Callable

import trio

from csi_provisioner.kube import identity
from csi_provisioner.kube.client import Cluster
from csi_provisioner.kube.election import LeaderElector
from csi_provisioner.kube.end import End
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.metrics import Metrics
from csi_provisioner.settings import Settings

from .clients import api_client
from .connection import Connection


class Leadership:
    """Made before the election begins, so that a standby can answer health checks."""

    def __init__(self, settings: Settings, metrics: Metrics, end: End) -> None:
        self.sought = settings.election.enabled
        self._settings = settings
        self._metrics = metrics
        self._end = end
        self._elector: LeaderElector | None = None
        if self.sought:
            metrics.leading(False)

    def health(self) -> str | None:
        """The reason why the leader is unhealthy, or None."""
        return self._elector.health() if self._elector is not None else None

    async def run(
        self,
        cluster: Cluster,
        events: EventRecorder,
        connection: Connection,
        lead: Callable[[], Awaitable[None]],
        stop: trio.Event,
    ) -> None:
        """Waits for the lease and runs `lead` under it, again and again until `stop`.

        Competes only while the driver answers: a leader without one would keep the lease from those that have one.
        Raises Fatal if the lease is lost while `lead` runs.
        """
        if not self.sought:
            await lead()
            return
        settings, driver = self._settings.election, connection.facts.name
        # Its own client without a limit, so that busy workers never delay a renewal (design.md 3, rule 8).
        client = api_client(cluster, self._end, purpose=" (leader election)")
        with identity.held(socket.gethostname()) as holder:
            async with client as leases:
                while not stop.is_set():
                    self._elector = LeaderElector(
                        leases,
                        settings,
                        name=identity.sanitised(driver),
                        identity=holder,
                        metrics=self._metrics,
                        events=events,
                        component=f"{driver.replace('/', '-')}/{holder}",
                        end=self._end,
                        ready=connection.answers,
                    )
                    await self._elector.run(lead)
