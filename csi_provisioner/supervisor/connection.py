"""Who the driver is and whether it answers: met at the start, and watched from then on, also while standing by
(process.md 3, 4; design.md 4).
"""

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from csi_provisioner.csi.channel import Channel
from csi_provisioner.csi.driver import Driver
from csi_provisioner.fatal import Fatal
from csi_provisioner.logs import escaped, log
from csi_provisioner.metrics import Metrics
from csi_provisioner.migration.registry import IN_TREE_NAMES, known
from csi_provisioner.model.kubernetes import NodeName
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.settings import Settings

if TYPE_CHECKING:
    from csi_provisioner.nodes.local import LocalNode

# Limit of the first connection (process.md 4.2). After a loss the driver is waited for without a limit.
FIRST_CONNECT = 30.0
# Pause before the next attempt at a driver that answers, but not as it should.
RECONNECT_PAUSE = 1.0
# A driver that has said goodbye is met again within this time, or it is away.
MET_SOON = 5.0
# Outages that are remembered: more are not in the life of a claim that is still measured.
OUTAGES = 100
TERMINATION_LOG = Path("/dev/termination-log")


class Connection:
    """`facts` are those of the last meeting. The driver is away from the moment at which its connection ended without a
    goodbye until it is met again: connected, ready, of the same name."""

    facts = DriverFacts("")
    local: "LocalNode | None" = None
    """This node, in a per-node deployment. Asked once; a changed topology needs a new process."""

    def __init__(self, settings: Settings, metrics: Metrics, channel: Channel) -> None:
        self._settings = settings
        self._metrics = metrics
        self.channel = channel
        self.driver = Driver(self.channel, settings.csi)
        self.away_since = math.inf
        self._outages: deque[tuple[float, float]] = deque(maxlen=OUTAGES)
        self._lost = trio.Event()
        """The connection on which the driver was last identified takes no more calls."""
        self._gone = False
        """It ended without a goodbye (GOAWAY)."""
        self._changed = trio.Event()

    def on_lost(self) -> None:
        # At once, before any other task runs: whoever answers next may be another driver.
        self.channel.hold()
        self._gone = self._gone or not self.channel.left_politely
        if self._gone and not self.is_away:
            self._set_away(trio.current_time())
        self._lost.set()

    # ---- whether it answers

    @property
    def is_away(self) -> bool:
        return self.away_since < math.inf

    async def answers(self) -> None:
        """Returns when the driver is not away."""
        while self.is_away:
            await self._changed.wait()

    async def away_for(self, seconds: float) -> None:
        """Returns when the driver has been away for so long without a break."""
        while (since := self.away_since) + seconds > trio.current_time():
            with trio.move_on_at(since + seconds):
                await self._changed.wait()

    def away_within(self, begin: float, end: float) -> float:
        """For how many seconds between these moments it was away, or not met for the first time."""
        outages = [*self._outages, (self.away_since, math.inf)]
        return sum(max(0.0, min(end, over) - max(begin, since)) for since, over in outages)

    async def has_other_facts(self, known: DriverFacts) -> None:
        """Returns when the driver has come back with others."""
        while self.facts == known:
            await self._changed.wait()

    def _set_away(self, since: float) -> None:
        if self.is_away and since == math.inf:
            self._outages.append((self.away_since, trio.current_time()))
        self.away_since = since
        self._metrics.driver_ready(not self.is_away)
        self._changed.set()
        self._changed = trio.Event()

    # ---- meeting it

    async def meet_first(self) -> None:
        """The socket has to answer within `FIRST_CONNECT`; from then on the driver is waited for, whatever it loses.
        Raises Fatal for what it answers."""
        begun = trio.current_time()
        await self.driver.connect(FIRST_CONNECT)
        while True:
            self._lost, self._gone = trio.Event(), False
            try:
                await self.driver.probe_until_ready()
                name = await self.driver.identify()
                self._check_name(name)
                self.facts, self.local = await self._read_facts(name), await self._read_local()
            except Fatal as error:
                if not self._lost.is_set():
                    raise
                log.error("Lost connection to CSI driver before it was met, reconnecting", err=error)
                await trio.sleep(RECONNECT_PAUSE)
                await self.driver.connect()
                continue
            if not self._lost.is_set():  # else `watch` meets it again
                self.away_since = begun
                self.driver.met()
                self._set_away(math.inf)
            return

    async def watch(self, lost: Callable[[], None], met: Callable[[bool], None]) -> None:
        """Runs until cancelled: calls `lost` at each end of the connection, and `met` when the driver is met again,
        with whether it was away in between. Raises Fatal if another driver answers."""
        while True:
            await self._lost.wait()
            lost()
            self.facts, was_away = await self._meet_again()
            self.driver.met()
            self._set_away(math.inf)
            met(was_away)

    async def _meet_again(self) -> tuple[DriverFacts, bool]:
        """The driver's facts on a new connection, and whether it was away in between. Tried without end, because claims
        and volumes wait for it; only a driver of another name ends the process."""
        known, told, since, announced = self.facts.name, "", trio.current_time(), False
        while True:
            if self._gone and not announced:
                self._set_away(min(self.away_since, since))
                log.error("Lost connection to CSI driver, reconnecting; nothing is tried meanwhile", driver=known)
                announced = True
            # Before the attempt, so that a loss during it is seen at its end.
            self._lost, self._gone = trio.Event(), False
            try:
                # One that is not ready is asked again without end, and would pass for one that answers.
                with trio.move_on_after(math.inf if self.is_away else MET_SOON) as soon:
                    if self.is_away:
                        await self.driver.connect()
                    await self.driver.probe_until_ready()
                    name = await self.driver.identify()
                    found = await self._read_facts(name) if name == known else None
            except Fatal as error:
                self._gone = True  # a goodbye without a new connection is a loss too
                if self.is_away:
                    if str(error) != told:  # the same reason every second would fill the log
                        log.warning("CSI driver is not usable yet, trying on", err=error)
                    told = str(error)
                    await trio.sleep(RECONNECT_PAUSE)
                continue
            if soon.cancelled_caught:
                self._gone = True
                continue
            if found is None:
                text = f"The CSI driver came back as {name!r}, it was {known!r} before; starting over"
                await _write_termination_message(text)
                raise Fatal(text, 1)
            if not self._lost.is_set():
                return found, self.is_away
            # One that ends each connection before it is met, be it politely, would be asked without a pause or a word.
            self._gone = True
            await trio.sleep(RECONNECT_PAUSE)

    def _check_name(self, name: str) -> None:
        expected = self._settings.csi.expected_driver
        if expected not in ("", name):
            raise Fatal(
                f"the CSI driver is {name!r}, but --provisioner says {expected!r}; correct or remove the flag, or "
                "mount the socket of the other driver",
                255,
            )

    async def _read_facts(self, name: str) -> DriverFacts:
        """What a driver of this name can do."""
        in_tree = IN_TREE_NAMES.get(name)
        self._metrics.set_driver_name(name, migratable=in_tree is not None)
        if in_tree is not None:
            # The reference probes such a driver twice (process.md 3 step 15). The second sample carries the driver's
            # name, and dashboards expect it.
            await self.driver.probe_until_ready()
            known()  # not when its first volume comes: by then there may be no file left to open
        plugin, controller = await self.driver.read_capabilities()
        if "CREATE_DELETE_SNAPSHOT" in controller:
            from csi_provisioner.protection import snapshots  # noqa: F401 - only loaded
        log.info("CSI driver is ready", driver=name, inTreeName=in_tree or "")
        topology = self._settings.gates.topology and "VOLUME_ACCESSIBILITY_CONSTRAINTS" in plugin
        return DriverFacts(name, in_tree, plugin, controller, topology)

    async def _read_local(self) -> "LocalNode | None":
        nodes = self._settings.nodes
        if not nodes.enabled:
            return None
        from csi_provisioner.nodes.local import described

        return described(NodeName(nodes.node_name), await self.driver.node_get_info())


async def _write_termination_message(text: str) -> None:
    """Shown by `kubectl describe pod` as the termination message (process.md 4.4)."""
    try:
        await trio.to_thread.run_sync(TERMINATION_LOG.write_text, escaped(text))
    except (OSError, RuntimeError) as error:  # the latter for want of threads
        log.warning("The termination message cannot be written", path=str(TERMINATION_LOG), err=str(error))
