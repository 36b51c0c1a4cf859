"""The world of `model.py` with the real code in it: election, journal, a claim's way, recovery, deletion.

API server and driver are small and in memory, clocks are virtual, and what goes wrong is drawn from a seed: messages
that are late, or lost on either way; processes that are killed or stopped at any moment, or whose machine slept with an
answer in hand while others led; people who delete, keep and adopt. `violations` are those of the model's invariants, by
their names there.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar, cast

import trio

from csi_provisioner.csi.errors import CallError
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.election import JOURNAL, LeaderElector
from csi_provisioner.kube.end import End
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.kube.kept import Kept
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.codes import Code
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.leftover import Leftover
from csi_provisioner.provision.memory import ClaimMemory
from csi_provisioner.provision.orphans import Orphans
from csi_provisioner.provision.writer import JournalWriter
from csi_provisioner.settings import CsiSettings, ElectionSettings, ProvisioningSettings, RetrySettings, Settings
from csi_provisioner.supervisor.leading import Leadership
from csi_provisioner.supervisor.parts import Parts
from csi_provisioner.supervisor.term import LeaderTerm

from .clock import sleep, sleep_until
from .server import LEASES, VOLUMES, Object, Server
from .ways import TIMEOUT, Storage, Wire

T = TypeVar("T")

DRIVER, NAMESPACE = "sim", "default"
LEASE, RENEW, RETRY = 5.0, 3.0, 1.0
HOLD = LEASE + TIMEOUT
AGE = 35.0
"""An administrator does not act on a younger volume. The server's clock runs so fast that it is an hour of its own."""
FAST = 3600 / AGE
FAULTS = (
    "kill",
    "stop",
    "sleep",
    "lost",
    "late",
    "err",
    "refuse",
    "stale",
    "delete",
    "elsewhere",
    "admin",
    "wipe",
    "touch",
    "go",
    "twins",
)
UNTOLD = re.compile("GET|.*(events|review)")
FACTS = DriverFacts(DRIVER, plugin=frozenset({"CONTROLLER_SERVICE"}), controller=frozenset({"CREATE_DELETE_VOLUME"}))
ELECTION = ElectionSettings(
    enabled=True,
    namespace=NAMESPACE,
    own_namespace=NAMESPACE,
    lease_duration=LEASE,
    renew_deadline=RENEW,
    retry_period=RETRY,
)
SETTINGS = Settings(
    csi=CsiSettings(timeout=TIMEOUT),
    election=ELECTION,
    # With `auto` a journal that cannot be written for one lease duration is done without, and that is said.
    provisioning=ProvisioningSettings(volume_journal="on"),
    retries=RetrySettings(start=0.5, maximum=4.0, snapshot_sweep_interval=0),
)

METRICS = Metrics()
"""All processes': nobody reads them here, and making them anew would be a tenth of a history."""


@dataclass
class Volume:
    name: str
    kept: bool = False


@dataclass(eq=False)
class Message:
    process: "Process"
    what: str
    work: Callable[[], Any]
    arrives: float
    answer: Any = None


class Dead(Exception):  # noqa: N818
    """Nothing of a killed process reaches anybody."""


class Process:
    """One provisioner: everything of ours but its command line and its connections."""

    def __init__(self, world: "History", identity: str) -> None:
        self.world, self.identity = world, identity
        self.dead = False
        self.slept = 0.0
        self.scope = trio.CancelScope()
        self.stop = trio.Event()
        self.end = End(LEASE - RENEW, lambda: trio.current_time() + self.slept)
        self.kube = KubeClient(cast("Any", Wire(world, self)), self.end.may_begin)
        self.journal: JournalWriter | None = None
        self.leads = False

    async def run(self) -> None:
        with self.scope:
            try:
                await self._elect()
            except* (Fatal, Dead) as group:
                self.world.note(self, "ends", str(group.exceptions[0]))
        self.dead = True
        self.world.processes.remove(self)

    def kill(self) -> None:
        self.dead = True
        self.end.stop_by(trio.current_time())
        self.scope.cancel()

    async def _elect(self) -> None:
        leadership = Leadership(SETTINGS, METRICS, self.end)
        elector = LeaderElector(
            self.kube,
            ELECTION,
            name=DRIVER,
            identity=self.identity,
            metrics=METRICS,
            end=self.end,
            now=lambda: datetime.fromtimestamp(self.world.server_time(), UTC),
            random=self.world.chance.random,
        )
        await elector.run(partial(leadership._lead, self._lead, self.kube, DRIVER, elector))

    async def _lead(self, journal: JournalWriter | None) -> None:
        assert journal is not None
        self.world.note(self, "leads")
        self.journal, self.leads = journal, True
        parts = Parts(
            settings=SETTINGS,
            provisioning=SETTINGS.provisioning,
            metrics=METRICS,
            kube=self.kube,
            driver=cast("Any", Storage(self.world, self)),
            events=EventRecorder(self.kube, self.identity),
            memory=ClaimMemory(),
            orphans=Orphans(DRIVER, METRICS, self._told),
            kept=Kept(self.kube, "", ""),
            end=self.end,
            identity=self.identity,
            journal=journal,
        )
        term: LeaderTerm | None = None
        try:
            async with trio.open_nursery() as writing:
                await writing.start(journal.run)
                term = LeaderTerm(parts, FACTS)
                self.world.note(self, "has the journal", sorted(journal.inherited))
                async with trio.open_nursery() as working:
                    working.start_soon(self._drain, term, working.cancel_scope)
                    await term.run()
                    working.cancel_scope.cancel()
                writing.cancel_scope.cancel()
        finally:
            if term is not None:
                term.end()
            async with self.end.shield(max(0.0, self.end.deadline() - trio.current_time())):
                await journal.finish()

    async def _drain(self, term: LeaderTerm, work: trio.CancelScope) -> None:
        await self.stop.wait()
        term.stop()
        work.deadline = trio.current_time() + TIMEOUT

    def _told(self, leftover: Leftover) -> None:
        if not self.dead:
            self.world.told.add(leftover.name)
            self.world.note(self, "TELLS", leftover.name, leftover.reason)


@dataclass(eq=False)
class History:
    """One seed's, which draws its `faults` where none are given."""

    seed: int
    faults: frozenset[str] | None = None
    told: set[str] = field(default_factory=set)
    violations: set[str] = field(default_factory=set)
    trace: list[tuple[Any, ...]] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    born: dict[str, float] = field(default_factory=dict)
    under_way: dict[Message, None] = field(default_factory=dict)  # in the order of sending

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        if self.faults is None:
            self.faults = frozenset(f for f in FAULTS if self.chance.random() < (0.75 if f == "delete" else 0.4))
        self.lasting = self.faults  # what the world is, also when it is calm
        self.server = Server()
        self.volumes: dict[str, Volume] = {}
        self.policies: dict[str, str] = {}
        self.leader: Process | None = None
        self._made = self._calls = 0
        self._busy: set[str] = set()
        self._spawned = 0

    # ---- what everybody sees

    def note(self, who: Process | str, *what: Any) -> None:
        name = who if isinstance(who, str) else who.identity
        self.trace.append((round(trio.current_time() - self._began, 2), name, *what))

    def bad(self, kind: str, *what: Any) -> None:
        self.violations.add(kind)
        self.note("***", kind, *what)

    def server_time(self) -> float:
        return 1_000_000 + (trio.current_time() - self._began) * FAST

    def has(self, fault: str, share: float = 1.0) -> bool:
        assert self.faults is not None
        return fault in self.faults and self.chance.random() < share

    def lag(self) -> float:
        return self.chance.uniform(0, 3) if self.has("stale", 0.5) else self.chance.uniform(0, 0.05)

    # ---- messages

    async def message(
        self,
        process: Process,
        what: str,
        work: Callable[[], T],
        lost: Exception,
        *,
        reads: bool = False,
        calls: bool = False,
    ) -> T:
        """Late or lost on its way there or back; once sent it may arrive whatever becomes of who sent it."""
        if process.dead:
            await trio.lowlevel.checkpoint()
            raise Dead
        late = self.chance.uniform(0.3, TIMEOUT - 0.5) if self.has("late", 0.25) else self.chance.uniform(0.005, 0.1)
        sent = Message(process, what, work, trio.current_time() + late)
        self.under_way[sent] = None
        try:
            await sleep_until(sent.arrives)
        except trio.Cancelled:
            if reads or self.chance.random() < 0.3:
                self.under_way.pop(sent, None)
            else:
                self._later.start_soon(self._arrive, sent)
            raise
        if process.dead:
            raise Dead
        self._killed(process, reads)
        if self.has("lost", 0.04):  # and it never gets there
            self.under_way.pop(sent, None)
        self._deliver(sent)
        self._killed(process, reads)
        if sent.answer is None or self.has("lost", 0.08 if calls else 0.04):
            await sleep(1.0)
            raise lost
        self._in_hand(process)
        if isinstance(sent.answer, Exception):
            raise sent.answer
        return cast("T", sent.answer)

    def is_marked(self) -> bool:
        """The leader has said that it keeps a journal: who follows one that was killed before believes nothing."""
        lease = self.server.get(LEASES, DRIVER)
        marks = (lease["metadata"].get("annotations") or {}) if lease is not None else {}
        return lease is not None and marks.get(JOURNAL) == str(lease["spec"]["leaseTransitions"])

    def _killed(self, process: Process, reads: bool) -> None:
        """Just before or just after a request has done what it does."""
        if process.leads and not reads and self.has("kill", 0.02 if self.is_marked() else 0.001):
            self.note(process, "kill -9")
            process.kill()
            raise Dead

    async def _arrive(self, sent: "Message") -> None:
        await sleep_until(sent.arrives)
        self._deliver(sent)

    def _deliver(self, sent: "Message") -> None:
        if sent not in self.under_way:
            return
        self.under_way.pop(sent, None)
        try:
            sent.answer = sent.work()
        except (KubeError, CallError) as error:
            sent.answer = error
        if not UNTOLD.match(sent.what):
            said = sent.answer if isinstance(sent.answer, Exception | str) else "ok"
            self.note(sent.process, sent.what, "->", str(said)[:60])
        self.leader = self._holder()

    def _holder(self) -> Process | None:
        holder = ((self.server.get(LEASES, DRIVER) or {}).get("spec") or {}).get("holderIdentity")
        return next((one for one in self.processes if one.identity == holder), None)

    def _in_hand(self, process: Process) -> None:
        """The machine sleeps with the answer in hand, past its lease; somebody else leads meanwhile, in our place. What
        was under way has come to its end by then."""
        leads = process.leads and self._holder() is process and "twins" not in self.lasting
        if self._calm or not leads or not self.has("sleep", 0.015):
            return
        process.slept += HOLD + LEASE
        self.note(process, "sleeps")
        for sent in [sent for sent in self.under_way if sent.process is process]:
            if self.chance.random() < 0.7:
                self._deliver(sent)
            self.under_way.pop(sent, None)
        self.successor()

    # ---- the driver

    def begun(self, process: Process, method: str, about: str) -> None:
        others = self.leader is not None and self.leader is not process and self.leader.leads
        if others and not self.lasting & {"twins", "pause"}:  # of twins one learns it at its next renewal
            self.bad("I5 late call", method, about, "of", process.identity)

    def create(self, name: str) -> str:
        if self.has("err", 0.12):
            raise CallError(Code.ABORTED, "busy", "CreateVolume")
        if self.has("refuse", 0.12):  # without looking whether it exists
            raise CallError(Code.INVALID_ARGUMENT, "no", "CreateVolume")
        for volume_id, volume in self.volumes.items():
            if volume.name == name:
                return volume_id
        self._made += 1
        volume_id = f"{name[:8]}#{self._made}"
        self.volumes[volume_id] = Volume(name)
        return volume_id

    def delete(self, process: Process | None, volume_id: str) -> str:
        volume = self.volumes.get(volume_id)
        if volume is not None:
            owners = [pv for pv in self.server.objects[VOLUMES].values() if handle(pv) == volume_id]
            rightly = all(
                pv["status"]["phase"] == "Released" and pv["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
                for pv in owners
            )
            # What no PersistentVolume names is left alone where its class says so: of it people are told.
            retained = process is not None and not owners and self.policies[volume.name[4:]] == "Retain"
            if volume.kept or not rightly or retained:
                self.bad("I2 data", volume_id)
        self.volumes.pop(volume_id, None)
        return "ok"


def handle(pv: Object) -> str:
    return str(pv["spec"]["csi"]["volumeHandle"])
