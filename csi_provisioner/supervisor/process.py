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
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import trio

from csi_provisioner.csi.channel import Channel
from csi_provisioner.csi.driver import Driver
from csi_provisioner.diagnostics import pages
from csi_provisioner.diagnostics.listen import address_of, listen
from csi_provisioner.diagnostics.server import Server
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube import identity
from csi_provisioner.kube.client import Cluster, KubeClient, KubeError, resolve
from csi_provisioner.kube.end import SHIELDED, End, boottime
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.kube.kept import Kept
from csi_provisioner.logs import escaped, log
from csi_provisioner.metrics import Metrics
from csi_provisioner.migration.registry import IN_TREE_NAMES
from csi_provisioner.model.kubernetes import NodeName
from csi_provisioner.nodes.local import LocalNode, described
from csi_provisioner.planning import leftover
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.provision.memory import ClaimMemory
from csi_provisioner.provision.orphans import Orphans
from csi_provisioner.settings import HEALTH_PATH, ProvisioningSettings, Settings

from .clients import api_client, capacity_client
from .controllers import QUEUES, Parts
from .leading import Leadership
from .term import LeaderTerm

# Limit of the first connection (process.md 4.2). After a loss the driver is waited for without a limit.
FIRST_CONNECT = 30.0
# Pause before the next attempt at a driver that answers, but not as it should.
RECONNECT_PAUSE = 1.0
# Time for the events that still wait when the work is over. At a stop they have what is left of the grace period.
LAST_EVENTS = 2.0
# Time for what `orphans` is to find later, before the lease is given back.
LAST_NOTES = 1.0
# A second signal within this time counts as the first one: some tools signal a process group and its leader too.
ONE_WISH = 0.5
SIGNALS = (signal.SIGTERM, signal.SIGINT)
TERMINATION_LOG = trio.Path("/dev/termination-log")
LOST = "Lost connection to CSI driver, exiting"


async def run(
    settings: Settings,
    *,
    stop: trio.Event | None = None,
    clock: Callable[[], float] = boottime,
    synced: Callable[[], None] = lambda: None,
) -> int:
    """Runs until a signal, or until `stop` is set if it is given. Returns the exit code (process.md 10.3).

    `clock` also runs while the machine sleeps. `synced` is called in each leader term when its caches are complete.
    """
    process = _Process(settings, stop, clock, synced)
    failures: list[Fatal] = []
    try:
        await process.run()
    except* Fatal as group:
        failures = _leaves(group)
    for error in failures:
        (log.fatal if error.code == 255 else log.error)("The process ends", err=error)
    return max((error.code for error in failures), default=process.exit_code)


class _Process:
    def __init__(
        self, settings: Settings, stop: trio.Event | None, clock: Callable[[], float], synced: Callable[[], None]
    ) -> None:
        self.exit_code = 0
        self._settings = settings
        self._metrics = Metrics()
        self._stop = trio.Event() if stop is None else stop
        self._handles_signals = stop is None
        self._synced = synced
        self._works = False
        self._term: LeaderTerm | None = None
        self._lost = trio.Event()
        """The connection on which the driver was last identified takes no more calls."""
        self._gone = False
        """It ended without a goodbye (GOAWAY)."""
        election = settings.election
        shielded = election.lease_duration - election.renew_deadline if election.enabled else SHIELDED
        self._end = End(shielded, clock)
        self._leadership = Leadership(settings, self._metrics, self._end)
        for name in QUEUES:
            self._metrics.queue(name)  # so that a standby exposes these series too, at zero

    async def run(self) -> None:
        async with trio.open_nursery() as services:
            if self._handles_signals:
                services.start_soon(self._signals, services.cancel_scope)
            services.start_soon(self._end_in_time, services.cancel_scope)
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
                    self._end.stop_by(now)
                    process.cancel()
                    return
                first = min(first, now)
                log.info("Stopping", signal=signal.Signals(number).name, grace=f"{self._settings.shutdown_grace:g}s")
                self._stop.set()

    async def _end_in_time(self, process: trio.CancelScope) -> None:
        """One grace period for the whole end. Before the work has begun there is nothing to drain."""
        await self._stop.wait()
        process.deadline = trio.current_time() + self._settings.shutdown_grace
        self._end.stop_by(process.deadline)
        if not self._works:
            process.cancel()

    # ---- start

    async def _start_and_work(self, services: trio.Nursery) -> None:
        # The order decides which error and exit code a broken setup shows (process.md 3).
        wanted = self._settings.cluster
        cluster = resolve(wanted)  # once: all clients share its credentials
        services.start_soon(cluster.credentials.run)
        async with api_client(cluster, self._end, qps=wanted.qps, burst=wanted.burst) as kube:
            provisioning = await self._gated(kube)
            address, metrics, may_begin = self._settings.csi.address, self._metrics, self._end.may_begin
            channel = Channel(address, on_lost=lambda: self._on_lost(channel), metrics=metrics, may_begin=may_begin)
            async with channel:
                driver = Driver(channel, self._settings.csi)
                log.info("Waiting for the CSI driver", address=address)
                await driver.connect(FIRST_CONNECT)
                facts, local = await self._meet_first(driver)
                async with capacity_client(cluster, self._settings, facts.name, metrics, self._end) as capacity:
                    self._listen(services)
                    kept = Kept(
                        kube, leftover.lease_name(identity.sanitised(facts.name)), self._settings.election.own_namespace
                    )
                    parts = Parts(
                        settings=self._settings,
                        provisioning=provisioning,
                        metrics=metrics,
                        kube=kube,
                        driver=driver,
                        events=EventRecorder(kube, _event_source(facts.name), busy=self._is_behind),
                        memory=ClaimMemory(),
                        orphans=Orphans(facts.name, metrics, kept.add),
                        kept=kept,
                        end=self._end,
                        identity=_identity(facts.name, local),
                        local=local,
                        capacity=capacity,
                        synced=self._synced,
                    )
                    await self._work(cluster, parts, facts)

    def _is_behind(self) -> bool:
        return self._term is not None and self._term.is_behind

    async def _gated(self, kube: KubeClient) -> ProvisioningSettings:
        """process.md 1.4: a cluster without VolumeAttributesClass switches that gate off, unless the user named it."""
        provisioning, gates = self._settings.provisioning, self._settings.gates
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

    async def _meet_first(self, driver: Driver) -> tuple[DriverFacts, LocalNode | None]:
        """If the driver is lost here, the process ends: there is no work yet that would make waiting worthwhile."""
        try:
            await driver.probe_until_ready()
            name = await driver.identify()
            self._check_name(name)
            return await self._facts(driver, name), await self._local(driver)
        except Fatal as error:
            if not self._lost.is_set():
                raise
            await _write_termination_message(LOST)
            raise Fatal(f"{LOST}: {error}", 1) from error

    def _check_name(self, name: str) -> None:
        expected = self._settings.csi.expected_driver
        if expected not in ("", name):
            raise Fatal(
                f"the CSI driver is {name!r}, but --provisioner says {expected!r}; correct or remove the flag, or "
                "mount the socket of the other driver",
                255,
            )

    async def _facts(self, driver: Driver, name: str) -> DriverFacts:
        """What a driver of this name can do."""
        in_tree = IN_TREE_NAMES.get(name)
        self._metrics.set_driver_name(name, migratable=in_tree is not None)
        if in_tree is not None:
            # The reference probes such a driver twice (process.md 3 step 15). The second sample carries the driver's
            # name, and dashboards expect it.
            await driver.probe_until_ready()
        plugin, controller = await driver.read_capabilities()
        log.info("CSI driver is ready", driver=name, inTreeName=in_tree or "")
        topology = self._settings.gates.topology and "VOLUME_ACCESSIBILITY_CONSTRAINTS" in plugin
        return DriverFacts(name, in_tree, plugin, controller, topology)

    async def _local(self, driver: Driver) -> LocalNode | None:
        """This node, in a per-node deployment. Asked once; a changed topology needs a new process."""
        if not self._settings.nodes.enabled:
            return None
        return described(NodeName(self._settings.nodes.node_name), await driver.node_get_info())

    def _listen(self, services: trio.Nursery) -> None:
        http = self._settings.http
        if not http.endpoint:
            return
        listener = listen(http.endpoint, http.path)
        log.info("Listening", address=address_of(listener), path=http.path)
        services.start_soon(self._serve, listener)

    async def _serve(self, listener: socket.socket) -> None:
        http = self._settings.http
        found = {http.path: pages.metrics_page(self._metrics)}
        if self._leadership.sought and not http.legacy:
            found[HEALTH_PATH] = pages.health_page(self._leadership.health)
        if http.pprof:
            from csi_provisioner.diagnostics import profiles  # cProfile is only loaded where it is wanted

            found.update(profiles.pages())
        with listener:
            await Server(found).serve(listener)

    # ---- work

    async def _work(self, cluster: Cluster, parts: Parts, facts: DriverFacts) -> None:
        async with trio.open_nursery() as telling:
            await telling.start(parts.events.run)
            try:
                await self._leadership.run(cluster, facts.name, parts.events, partial(self._lead, parts, facts))
            finally:
                # Events tell people what happened last. At a stop the end of the grace period is their limit.
                limit = math.inf if self._stop.is_set() else trio.current_time() + LAST_EVENTS
                with trio.move_on_at(min(limit, self._end.deadline())):
                    await parts.events.wait_written()
            telling.cancel_scope.cancel()

    async def _lead(self, parts: Parts, facts: DriverFacts) -> None:
        """A new term begins each time the driver comes back with other capabilities. What is known of claims stays."""
        self._works = True
        changed: DriverFacts | None = facts
        async with trio.open_nursery() as keeping:
            keeping.start_soon(parts.kept.run)
            try:
                while changed is not None:
                    self._term = LeaderTerm(parts, changed)
                    changed = await self._run_term(self._term, parts.driver, changed)
            finally:
                if self._term is not None:
                    self._term.end()
                self._term = None  # events that waited for its claims are written now
            with trio.move_on_after(LAST_NOTES):
                await parts.kept.write()
            keeping.cancel_scope.cancel()

    async def _run_term(self, term: LeaderTerm, driver: Driver, facts: DriverFacts) -> DriverFacts | None:
        """Returns the driver's new facts if they changed, None when the process stops."""
        changed: DriverFacts | None = None
        async with trio.open_nursery() as nursery:

            async def keep_connected() -> None:
                nonlocal changed
                changed = await self._keep_connected(term, driver, facts)
                term.hand_over()
                nursery.cancel_scope.cancel()

            async def drain() -> None:
                await self._stop.wait()
                term.stop()
                # Shields and the last events need their part of the grace period; running calls have the rest.
                drained = self._settings.shutdown_grace - self._end.shielded - LAST_EVENTS
                nursery.cancel_scope.deadline = trio.current_time() + max(0.0, drained)

            nursery.start_soon(keep_connected)
            nursery.start_soon(drain)
            await term.run()
            nursery.cancel_scope.cancel()
        return changed

    def _on_lost(self, channel: Channel) -> None:
        # At once, before any other task runs: whoever answers next may be another driver.
        channel.hold()
        self._gone = self._gone or not channel.left_politely
        self._lost.set()

    async def _keep_connected(self, term: LeaderTerm, driver: Driver, facts: DriverFacts) -> DriverFacts:
        """Returns when the driver comes back with other capabilities than before."""
        while True:
            await self._lost.wait()
            term.pause()
            found, was_away = await self._meet_again(driver, facts.name)
            driver.met()
            # Who stops already ends what runs, in the time it has for that.
            if found != facts and not self._stop.is_set():
                log.info("CSI driver is back with other capabilities, starting the work over", driver=facts.name)
                return found
            log.info("CSI driver is back", driver=facts.name)
            term.resume(after_loss=was_away)

    async def _meet_again(self, driver: Driver, known: str) -> tuple[DriverFacts, bool]:
        """The driver's facts on a new connection, and whether it was away in between. Tried without end, because claims
        and volumes wait for it; only a driver of another name ends the process."""
        was_away, told = False, ""
        while True:
            if self._gone and not was_away:
                was_away = True
                log.error("Lost connection to CSI driver, reconnecting; nothing is tried meanwhile", driver=known)
            # Before the attempt, so that a loss during it is seen at its end.
            self._lost, self._gone = trio.Event(), False
            try:
                if was_away:
                    await driver.connect()
                await driver.probe_until_ready()
                name = await driver.identify()
                found = await self._facts(driver, name) if name == known else None
            except Fatal as error:
                self._gone = True  # a goodbye without a new connection is a loss too
                if was_away:
                    if str(error) != told:  # the same reason every second would fill the log
                        log.warning("CSI driver is not usable yet, trying on", err=error)
                    told = str(error)
                    await trio.sleep(RECONNECT_PAUSE)
                continue
            if found is None:
                text = f"The CSI driver came back as {name!r}, it was {known!r} before; starting over"
                await _write_termination_message(text)
                raise Fatal(text, 1)
            if not self._lost.is_set():
                return found, was_away
            # One that ends each connection before it is met, be it politely, would be asked without a pause or a word.
            self._gone = True
            await trio.sleep(RECONNECT_PAUSE)


async def _write_termination_message(text: str) -> None:
    """Shown by `kubectl describe pod` as the termination message (process.md 4.4)."""
    try:
        await TERMINATION_LOG.write_text(escaped(text))
    except OSError as error:
        log.warning("The termination message cannot be written", path=str(TERMINATION_LOG), err=str(error))


def _identity(driver: str, local: LocalNode | None) -> str:
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
