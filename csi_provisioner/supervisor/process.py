"""The process: start-up in its order, the driver's connection, signals, and the end (process.md 3, 4, 10; design.md 2).

Every task here waits for one event or runs until cancelled. What ends the process is raised as `Fatal`; only `run`
unpacks exception groups.
"""

import math
import random
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from csi_provisioner import __version__
from csi_provisioner.csi.channel import Channel
from csi_provisioner.diagnostics import asked
from csi_provisioner.diagnostics.listen import address_of, listen
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube import identity
from csi_provisioner.kube.client import Cluster, connect, resolve
from csi_provisioner.kube.end import SHIELDED, End, boottime
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.kube.kept import Kept
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.planning import leftover, rights
from csi_provisioner.provision.memory import ClaimMemory
from csi_provisioner.provision.orphans import Orphans
from csi_provisioner.provision.writer import JournalWriter
from csi_provisioner.settings import ProvisioningSettings, Settings
from csi_provisioner.traces import traces

from . import answering
from .clients import api_client, capacity_client, gated
from .connection import Connection
from .controllers import QUEUES
from .leading import Leadership
from .observer import Observer, gauges, lanes
from .parts import Parts
from .rights import Rights
from .term import LeaderTerm

if TYPE_CHECKING:
    from csi_provisioner.diagnostics.server import Server
    from csi_provisioner.nodes.local import LocalNode

# Time for the events that still wait when the work is over. At a stop they have what is left of the grace period.
LAST_EVENTS = 2.0
# Time for the spans that still wait, if the grace period has some left.
LAST_TRACES = 1.0
# Time for what `orphans` is to find later, before the lease is given back.
LAST_NOTES = 1.0
# An outage of the driver that lasts so long is told on claims; a mere restart is not.
TOLD_AFTER = 10.0
# A second signal within this time counts as the first one: some tools signal a process group and its leader too.
ONE_WISH = 0.5
SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def run(
    settings: Settings,
    *,
    stop: trio.Event | None = None,
    clock: Callable[[], float] = boottime,
    synced: Callable[[], None] = lambda: None,
    server: "Server | None" = None,
) -> int:
    """Runs until a signal, or until `stop` is set if it is given. Returns the exit code (process.md 10.3).

    `clock` also runs while the machine sleeps. `synced` is called in each leader term when its caches are complete.
    `server` serves already, and gets its pages here.
    """
    process = _Process(settings, stop, clock, synced, server)
    failures: list[Fatal] = []
    if settings.traces:
        await traces.begin()
    try:
        await process.run()
    except* Fatal as group:
        failures = _leaves(group)
    await traces.end(min(LAST_TRACES, process.end.gone_by - trio.current_time()))
    for error in failures:
        (log.fatal if error.code == 255 else log.error)("The process ends", err=error)
    return max((error.code for error in failures), default=process.exit_code)


class _Process:
    def __init__(
        self,
        settings: Settings,
        stop: trio.Event | None,
        clock: Callable[[], float],
        synced: Callable[[], None],
        server: "Server | None",
    ) -> None:
        self.exit_code = 0
        self._settings = settings
        self._metrics = Metrics()
        self._stop = trio.Event() if stop is None else stop
        self._handles_signals = stop is None
        self._synced = synced
        self._server = server
        self._works = False
        self._granted: dict[rights.Right, float] = {}
        self._outdated = trio.Event()
        """The driver has other capabilities than when the term began."""
        election = settings.election
        shielded = election.lease_duration - election.renew_deadline if election.enabled else SHIELDED
        self.end = End(shielded, clock)
        self._leadership = Leadership(settings, self._metrics, self.end)
        self._observer = Observer(self._leadership, self._metrics)
        self._leadership.term = lambda: self._observer.term
        self._metrics.ask(lambda: gauges(self._observer.state()))
        self._metrics.lanes(lambda: lanes(self._observer.state()))
        for name in QUEUES:
            self._metrics.queue(name)  # so that a standby exposes these series too, at zero

    async def run(self) -> None:
        with self._leadership.named() as name:
            await self._run(name)

    async def _run(self, name: str) -> None:
        async with trio.open_nursery() as services:
            services.start_soon(asked.serve, name, partial(answering.answer, self._settings, self._observer))
            if self._handles_signals:
                services.start_soon(self._signals, services.cancel_scope)
            services.start_soon(self._end_in_time, services.cancel_scope)
            services.start_soon(self._observer.run)
            services.start_soon(self._observer.rates.run)
            self._listen(services)
            await self._start_and_work(services)
            services.cancel_scope.cancel()

    async def _signals(self, process: trio.CancelScope) -> None:
        """The first signal drains, a later one ends at once; more of them change nothing."""
        # When the receiver below closes, Trio puts back the handlers it found. The default ones kill the process at
        # once: nothing would be said about unsaved volumes, and the exit code would be wrong. These do nothing.
        for wanted in SIGNALS:
            signal.signal(wanted, lambda _number, _frame: None)
        first = math.inf
        with trio.open_signal_receiver(*SIGNALS) as received:
            async for number in received:
                now = trio.current_time()
                if self._stop.is_set() and now > first + ONE_WISH:
                    log.warning("Second signal, ending at once", signal=signal.Signals(number).name)
                    self.exit_code = 1
                    self.end.stop_by(now)
                    process.cancel()
                    return
                first = min(first, now)
                log.info("Stopping", signal=signal.Signals(number).name, grace=f"{self._settings.shutdown_grace:g}s")
                self._stop.set()

    async def _end_in_time(self, process: trio.CancelScope) -> None:
        """One grace period for the whole end. Before the work has begun there is nothing to drain."""
        await self._stop.wait()
        process.deadline = trio.current_time() + self._settings.shutdown_grace
        self.end.stop_by(process.deadline)
        if not self._works:
            process.cancel()

    # ---- start

    async def _start_and_work(self, services: trio.Nursery) -> None:
        # The order decides which error and exit code a broken setup shows (process.md 3).
        wanted = self._settings.cluster
        cluster = resolve(wanted)  # once: all clients share its credentials
        services.start_soon(cluster.credentials.run)
        async with api_client(cluster, self.end, qps=wanted.qps, burst=wanted.burst) as kube:
            address, metrics, may_begin = self._settings.csi.address, self._metrics, self.end.may_begin
            channel = Channel(address, on_lost=lambda: connection.on_lost(), metrics=metrics, may_begin=may_begin)
            async with channel:
                connection = self._observer.connection = Connection(self._settings, metrics, channel)
                log.info("Waiting for the CSI driver", address=address)
                async with trio.open_nursery() as meeting:  # neither has anything to do with the other
                    meeting.start_soon(connection.meet_first)
                    provisioning = await gated(self._settings, kube)
                    services.start_soon(self._look_at_rights, cluster, connection, provisioning)
                facts, local = connection.facts, connection.local
                async with capacity_client(cluster, self._settings, facts.name, metrics, self.end) as capacity:
                    kept = Kept(
                        kube, leftover.lease_name(identity.sanitised(facts.name)), self._settings.election.own_namespace
                    )
                    parts = Parts(
                        settings=self._settings,
                        provisioning=provisioning,
                        metrics=metrics,
                        kube=kube,
                        driver=connection.driver,
                        events=EventRecorder(kube, _event_source(facts.name), busy=self._is_behind),
                        memory=ClaimMemory(),
                        orphans=Orphans(facts.name, metrics, kept.add),
                        kept=kept,
                        end=self.end,
                        identity=_identity(facts.name, local),
                        local=local,
                        capacity=capacity,
                        synced=self._synced,
                        granted=self._granted,
                    )
                    await self._work(cluster, parts, connection)

    async def _look_at_rights(
        self, cluster: Cluster, connection: Connection, provisioning: ProvisioningSettings
    ) -> None:
        """Which are needed follows from what the driver can do; until it is met, from the flags alone."""
        # A client of its own without a limit: these requests must not delay claims.
        client = partial(connect, cluster, user_agent=f"csi-provisioner/{__version__} (rights)")
        settings = replace(self._settings, provisioning=provisioning)
        while True:
            facts = connection.facts
            found = rights.wanted(settings, facts, identity.sanitised(facts.name))
            self._observer.rights = Rights(client, list(found), self._granted)
            async with trio.open_nursery() as looking:
                looking.start_soon(self._observer.rights.run)
                await connection.has_other_facts(facts)
                looking.cancel_scope.cancel()

    def _is_behind(self) -> bool:
        return self._observer.term is not None and self._observer.term.is_behind

    def _listen(self, services: trio.Nursery) -> None:
        """Before anything is asked of anybody: probes want an answer, and a taken port is told (process.md 3)."""
        http = self._settings.http
        if self._server is None and not http.endpoint:
            return
        # Here, so that who has no pages does not wait for what they are made with.
        from csi_provisioner.diagnostics.server import Server

        from . import served

        found = served.pages(self._settings, self._metrics, self._observer, self._leadership)
        if self._server is not None:
            self._server.publish(found)
        else:
            listener = listen(http.endpoint, http.path)
            log.info("Listening", address=address_of(listener), path=http.path)
            services.start_soon(self._serve, listener, Server(found))

    async def _serve(self, listener: socket.socket, server: "Server") -> None:
        with listener:
            await server.serve(listener)

    # ---- work

    async def _work(self, cluster: Cluster, parts: Parts, connection: Connection) -> None:
        async with trio.open_nursery() as telling:
            await telling.start(self._always, "events", parts.events.run)
            try:
                async with trio.open_nursery() as watching:
                    watching.start_soon(connection.watch, self._on_lost, self._on_met)
                    lead = partial(self._lead, parts, connection)
                    await self._leadership.run(cluster, parts.events, connection, lead, self._stop)
                    watching.cancel_scope.cancel()
            finally:
                # Events tell people what happened last. At a stop the end of the grace period is their limit.
                limit = math.inf if self._stop.is_set() else trio.current_time() + LAST_EVENTS
                with trio.move_on_at(min(limit, self.end.deadline())):
                    await parts.events.wait_written()
            telling.cancel_scope.cancel()

    async def _always(
        self, name: str, run: Callable[..., Awaitable[None]], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Runs what is never to end; only a defect lets it come to its end here, which a restart heals."""
        await run(task_status=task_status)
        self._observer.ended.add(name)

    # ---- the driver goes and comes, while a term runs or none

    def _on_lost(self) -> None:
        if self._observer.term is not None:
            self._observer.term.pause()

    def _on_met(self, was_away: bool) -> None:
        connection, term = self._observer.connection, self._observer.term
        assert connection is not None
        # Who stops already ends what runs, in the time it has for that.
        if term is not None and term.facts != connection.facts and not self._stop.is_set():
            log.info("CSI driver is back with other capabilities, starting the work over", driver=connection.facts.name)
            self._outdated.set()
            return
        log.info("CSI driver is back", driver=connection.facts.name)
        if term is not None:
            term.resume(after_loss=was_away)

    # ---- leading

    async def _lead(self, parts: Parts, connection: Connection, journal: JournalWriter | None) -> None:
        """Until the process stops, or the lease is given back because the driver stays away.

        A new term begins each time the driver comes back with other capabilities, and what is known of claims stays.
        Of an earlier leadership nothing stays but the suspected orphans: somebody else may have led in between.
        """
        parts = replace(parts, memory=ClaimMemory(), journal=journal, away=connection.away_within)
        async with trio.open_nursery() as keeping, self._journal_kept(journal):
            self._works = True
            keeping.start_soon(parts.kept.run)
            try:
                self._outdated.set()
                while self._outdated.is_set():
                    self._outdated = trio.Event()
                    self._observer.term = LeaderTerm(parts, connection.facts)
                    if connection.is_away:
                        self._observer.term.pause()
                    await self._run_term(self._observer.term, connection)
            finally:
                if self._observer.term is not None:
                    self._observer.term.end()
                self._observer.term = None  # events that waited for its claims are written now
                self._works = self._stop.is_set()
            with trio.move_on_after(LAST_NOTES):
                await parts.kept.write()
            keeping.cancel_scope.cancel()

    @asynccontextmanager
    async def _journal_kept(self, journal: JournalWriter | None) -> AsyncIterator[None]:
        """Taken over before anything else; at the end what is over is taken out, in the time of the last saves."""
        if journal is None:
            yield
            return
        try:
            async with trio.open_nursery() as writing:
                await writing.start(journal.run)
                yield
                writing.cancel_scope.cancel()
        finally:
            async with self.end.shield(max(0.0, self.end.deadline() - trio.current_time() - LAST_EVENTS)):
                await journal.finish()

    async def _run_term(self, term: LeaderTerm, connection: Connection) -> None:
        """Until the process stops, the driver has other capabilities, or it has been away for too long."""
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                await self._stop.wait()
                term.stop()
                # Shields and the last events need their part of the grace period; running calls have the rest.
                drained = self._settings.shutdown_grace - self.end.shielded - LAST_EVENTS
                nursery.cancel_scope.deadline = trio.current_time() + max(0.0, drained)

            async def hand_over(wait: Callable[[], Awaitable[None]]) -> None:
                await wait()
                term.hand_over()
                nursery.cancel_scope.cancel()

            async def too_long() -> None:
                await connection.away_for(self._settings.election.lease_duration)
                if self._stop.is_set():  # saves have the grace period
                    await trio.sleep_forever()
                log.error("The CSI driver stays away, giving the lease back; leading again once it answers")

            async def tell_outages() -> None:
                while True:
                    await connection.away_for(TOLD_AFTER)
                    if self._stop.is_set():  # a pod that ends takes its driver along
                        return
                    term.tell_driver_is_away()
                    await connection.answers()

            nursery.start_soon(drain)
            nursery.start_soon(tell_outages)
            nursery.start_soon(hand_over, self._outdated.wait)
            if self._leadership.sought:
                nursery.start_soon(hand_over, too_long)
            await term.run()
            nursery.cancel_scope.cancel()


def _identity(driver: str, local: "LocalNode | None") -> str:
    """Stored with each volume: which process made it (process.md 3.2)."""
    identity = f"{time.time_ns() // 1_000_000}-{random.randrange(10_000)}-{driver}"
    return identity if local is None else f"{identity}-{local.name}"


def _event_source(driver: str) -> str:
    hostname = socket.gethostname()
    if not hostname:
        raise Fatal("the host name of this machine cannot be told, which events need as their source", 1)
    return f"{driver}_{hostname}_{uuid.uuid4()}"


def _leaves(group: ExceptionGroup[Fatal]) -> list[Fatal]:
    parts = ([each] if isinstance(each, Fatal) else _leaves(each) for each in group.exceptions)
    return [error for part in parts for error in part]
