"""The volume journal's one writer: it takes the journal over, and makes entries durable before the driver is asked.

Design.md 6. What to write is decided in `journal`. Each write carries the resourceVersion and UID of its Lease and our
term, a random word of this leadership: whoever finds another term there no longer leads. What the API server refuses
for good switches the journal off; everything else is tried again, and what waits for an entry waits.
"""

import math
from collections.abc import Awaitable, Callable

import msgspec
import trio

from csi_provisioner.advice import advice
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import entries
from csi_provisioner.planning.entries import Entry
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.settings import ElectionSettings

from .journal import NUMBERS, RENEWED, Log, Write
from .journal_leases import ENTRIES, FIRST_PAUSE, ForeignTermError, JournalLeases, annotation, is_for_good

LONGEST_PAUSE = 2.0
# Seconds until a journal that was switched off is tried again
ANOTHER_LOOK = 600.0


class JournalWriter(msgspec.Struct, eq=False, kw_only=True, dict=True):
    """One leadership's journal. `lease` is the name of the leader's; `hold`: how long entries that were found stay in
    any case. `required`: no volume is made without an entry. `gap`: what is found may have come to its end under one
    who kept no journal. `renewed` says when the last renewal that succeeded was sent, `renew` asks for another one."""

    client: KubeClient
    driver: str
    lease: str
    election: ElectionSettings
    hold: float
    metrics: Metrics
    required: bool = False
    gap: bool = True
    renewed: Callable[[], float] = lambda: -math.inf
    renew: Callable[[], None] = lambda: None
    may_begin: Callable[[], bool] = lambda: True
    lost: Callable[[], bool] = lambda: False
    """Whether another process may lead already."""
    inherited: dict[str, Entry] = msgspec.field(default_factory=dict)
    """Entries of earlier leaders, by volume name, until they have left."""
    doubted: set[str] = msgspec.field(default_factory=set)
    """Names of those from before a gap."""
    taken_at: float | None = None
    """When the first take-over had succeeded; None: not yet."""
    size: int = 0
    off: str = ""
    """Why there is no journal just now."""
    found: Callable[[str], None] = lambda _name: None
    """Told of a name that comes to those inherited."""

    def __post_init__(self) -> None:
        self._leases = JournalLeases(self.client, self.lease, self.election.namespace, self._pause)
        self._log = Log(self.driver)
        self._changed = trio.Event()
        self._written = trio.Event()
        self._confirmed = -math.inf  # when the last answered write was begun
        self._failing_since: float | None = None
        self._bypassed = False
        self._behind = False  # since a bypass, what the API server has is not what should be there
        self._ended = False  # no more tries
        self._known: dict[str, int] = {}  # when the entries were written that were written in this term
        self.begun: dict[str, float] = {}  # when a call was last begun under an entry
        self._uncertain: set[str] = set()
        self._ends_later: set[str] = set()  # their ends are certain, and the hold is not over
        self._told_full = False

    # ---- what a claim's way asks

    @property
    def is_kept(self) -> bool:
        """Whether entries are written just now."""
        return self.taken_at is not None and not self.off and not self._bypassed

    @property
    def judges_at(self) -> float:
        """When the hold of what was found is over: no call of an old leader lands any more."""
        return math.inf if self.taken_at is None else self.taken_at + self.hold

    @property
    def is_whole(self) -> bool:
        """Whether the next leader may rely on it: all that is begun is in it, and nothing that may be another's."""
        return self.is_kept and not self._behind and not self.doubted

    async def enter(self, name: str, entry: Entry, *, confirm: bool = False) -> bool:
        """Returns once the entry is durable and the term was seen to be ours; False: there is no journal for it.

        Each try of a call begins here. With `confirm`, at the first try of an entry that was found, and when nothing
        was heard of late, a write is awaited in any case. Raises Refusal where `--volume-journal=on` and there is no
        room.
        """
        self._ends_later.discard(name)
        if not confirm and self.is_kept and self._is_enough(name):
            return True
        entry = msgspec.structs.replace(
            entry, when=int(self.client.server_time()), uncertain=name in self._uncertain or name in self.inherited
        )
        try:
            return await self._entered(name, entry)
        except BaseException:
            self.drop(name)
            raise

    async def _entered(self, name: str, entry: Entry) -> bool:
        text = entries.encode(entry)
        while True:
            while not self.is_kept:
                if not self.required:
                    return False
                await self._written.wait()
            current = self._log
            current.enter(name, text, trio.current_time())
            self._changed.set()
            while current is self._log and self.is_kept and current.is_entering(name):
                await self._written.wait()
            if current is not self._log or not self.is_kept:
                current.withdraw(name)
            elif current.is_durable(name):
                self._known[name] = entry.when
                self.doubted.discard(name)
                return True
            elif not self.required:
                return False
            else:
                full = "the volume journal has no room for the claim's entry, and --volume-journal=on asks for one"
                raise Refusal(State.NO_CHANGE, full)

    async def confirm(self, name: str) -> bool:
        """Once a write with this entry, begun now, was answered: the term is still ours. False: there is no journal."""
        confirmed = (entry := self.entry(name)) is not None and await self.enter(name, entry, confirm=True)
        self.begin(name)
        return confirmed

    def _is_enough(self, name: str) -> bool:
        when = self._known.get(name)
        if when is None or not self._log.is_durable(name):
            return False
        fresh = self._sure_at() >= trio.current_time() - self.election.retry_period
        return fresh and self.client.server_time() - when < RENEWED

    def _sure_at(self) -> float:
        """When the last request was sent whose answer said that the term is ours."""
        return max(self._confirmed, self.renewed())

    def drop(self, name: str) -> None:
        """Who has entered it goes no further. An entry under which the driver was asked before stays."""
        self._log.withdraw(name)
        if name not in self.begun and name not in self.inherited:
            self._log.leave(name)
        self._changed.set()

    def begin(self, name: str) -> None:
        """A call is made now, if the lease lets it."""
        if self.may_begin():
            self.begun[name] = trio.current_time()

    def doubt(self, name: str) -> None:
        """A call ended without a certain answer: a later one that is final says nothing about the volume."""
        if name in self.begun:
            self._uncertain.add(name)

    def is_certain(self, name: str) -> bool:
        return name not in self._uncertain and name not in self.inherited

    def leave(self, name: str) -> None:
        """The volume's end is certain. What was found stays until its hold is over."""
        self.begun.pop(name, None)
        self._changed.set()
        if name in self.inherited and trio.current_time() < self.judges_at:
            self._ends_later.add(name)
            return
        for of_name in (self.inherited, self._known):
            of_name.pop(name, None)
        for names in (self.doubted, self._uncertain):
            names.discard(name)
        self._log.leave(name)

    def hand_over(self, name: str) -> bool:
        """Nobody tries any more: what may be there is left to recovery, as if it had been found. False: no entry."""
        if (entry := self.entry(name)) is None:
            return False
        if self.is_certain(name):
            self.leave(name)
        else:
            self.inherited[name] = entry
            self.found(name)
        return True

    def entry(self, name: str) -> Entry | None:
        text = self._log.text(name)
        return entries.understood(text, self.driver) if text is not None else None

    def holds(self, name: str) -> bool:
        """Whether it stands in the API server whatever becomes of this process."""
        return self.is_kept and self._log.is_durable(name)

    def begun_unconfirmed(self) -> list[str]:
        """Of a lost term: calls for these volumes were begun when another process may have led already."""
        return [name for name, begun in self.begun.items() if self.lost() and begun >= self._sure_at()]

    def rewrite(self) -> None:
        """A backup was restored: until all is written again, the next leader would find what was over long ago."""
        self._behind = True
        self._log.rewrite()
        self._changed.set()

    # ---- the task

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Says `started()` after the take-over, whether it read the journal or switched it off. Raises Fatal when
        another process leads."""
        await self._contained(self._take_over)
        task_status.started()
        while not self._ended:
            if self.off:
                await trio.sleep(ANOTHER_LOOK)
                await self._contained(self._take_over)
            else:
                await self._contained(self._write_next)

    async def _contained(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except KubeError as error:
            self._switch_off(error)
        except ForeignTermError as error:
            self.lost = lambda: True
            if self.election.enabled:
                raise Fatal(f"{error}: it leads now", 1) from error
            self._ended = True
            self._switch_off(error)

    async def finish(self) -> None:
        """At a stop, when `run` has ended: takes out what has left, without pauses. The caller bounds it."""
        if not self.is_kept or self.lost():
            return
        try:
            if self._log.pending is not None:
                await self._deliver(self._log.pending)
            while (write := self._log.choose(trio.current_time(), at_once=True)) is not None:
                if isinstance(write, Write):
                    await self._deliver(write)
        except (KubeError, ForeignTermError) as error:
            log.warning("What is over stays in the volume journal", err=str(error))

    async def _write_next(self) -> None:
        await self._wait_until_due()
        write = self._log.choose(trio.current_time())
        if isinstance(write, str):
            if not self._told_full:
                log.warning("The volume journal has no room for the entry of a volume", PV=write)
            self._told_full = True
            self._wake()
        elif write is not None:
            await self._deliver(write)
            await trio.sleep(write.pause)

    async def _wait_until_due(self) -> None:
        while True:
            now = trio.current_time()
            if now >= self.judges_at:
                while self._ends_later:
                    self.leave(self._ends_later.pop())
            due = self._log.next_due(now)
            if due <= now:
                await trio.lowlevel.checkpoint()  # tasks that are ready come in before the write begins
                return
            self._changed = trio.Event()
            with trio.move_on_at(min(due, self.judges_at) if self._ends_later else due):
                await self._changed.wait()

    def _wake(self) -> None:
        self._written.set()
        self._written = trio.Event()

    # ---- take-over

    async def _take_over(self) -> None:
        """Every object gets our term, 00 first, and the one above the highest is made: nobody who led before can write
        a journal any more."""
        taken, found = Log(self.driver), await self._leases.look_at_all(NUMBERS)
        inherited: dict[str, Entry] = {}
        highest = max((number for number, lease in found.items() if lease is not None), default=-1)
        wanted = {number: found[number] for number in range(min(highest + 2, NUMBERS))}
        for number, lease in sorted((await self._leases.claim_all(wanted)).items()):
            inherited |= taken.read(number, lease, trio.current_time())
            if not taken.is_open(number):
                text = "A part of the volume journal is not understood, it stays as it is"
                log.warning(text, lease=self._leases.name(number))
        if not self._leases.is_ours(await self._leases.look(0)):
            raise ForeignTermError
        self._log, self.off = taken, ""
        self._note_success()
        self.inherited = inherited
        self.doubted = set(inherited) if self.gap else set()
        self.taken_at = trio.current_time() if self.taken_at is None else self.taken_at
        log.info("Took over the volume journal", lease=self._leases.name(0), entries=len(inherited))
        self._wake()
        self.renew()
        for name in inherited:
            self.found(name)

    # ---- one write

    async def _deliver(self, write: Write) -> None:
        """Until it is answered. Raises KubeError for what is refused for good, and ForeignTermError."""
        pause, held = FIRST_PAUSE, self._log.objects.get(write.number)
        lease = held.lease if held is not None else None
        while True:
            begun = trio.current_time()
            try:
                lease = await self._leases.put(write.number, lease, write.packed)
                break
            except KubeError as error:
                pause = await self._pause(error, pause)
            lease = await self._leases.look(write.number)
            self._leases.check(lease)
            if lease is None:
                await self._make_again()
                lease = held.lease if held is not None else None
            elif annotation(lease, ENTRIES) == write.packed and self._leases.is_ours(lease):
                break
        self._log.answered(write, lease, trio.current_time())
        self._confirmed = max(self._confirmed, begun)
        self._note_success()
        self.size = len(list(self._log.names()))
        self.metrics.journal_written(self.size)
        self._wake()

    async def _make_again(self) -> None:
        """One of ours is gone: whether we lead is seen again before anything is made anew."""
        await self._renewed_again()
        for number, lease in (await self._leases.look_at_all(NUMBERS)).items():
            self._leases.check(lease)
            if (held := self._log.objects.get(number)) is not None:
                packed = annotation(held.lease, ENTRIES) if held.sealed else entries.pack(held.texts)
                held.lease = lease or await self._leases.claim(number, None, packed, check=True)

    async def _renewed_again(self) -> None:
        since = trio.current_time()
        self.renew()
        while self.election.enabled and self.renewed() < since:  # noqa: ASYNC110 - nobody says when it is
            await trio.sleep(FIRST_PAUSE)

    # ---- what goes wrong

    async def _pause(self, error: KubeError, seconds: float) -> float:
        """Waits before the same is asked again, and gives the next wait. Raises `error` if that would be no use."""
        if is_for_good(error):
            raise error
        now = trio.current_time()
        if error.code == 409:
            if not self.is_kept:
                await self._renewed_again()  # the other one may be who has taken it over after us
            await trio.sleep(seconds / 10)
            return min(2 * seconds, LONGEST_PAUSE)
        if self._failing_since is None:
            self._failing_since = now
            log.warning("The volume journal cannot be used just now, claims wait for it", err=str(error))
        leads = not self.election.enabled or self.renewed() > self._failing_since
        late = now - self._failing_since >= self.election.lease_duration
        if not self.required and leads and late and not self._bypassed:
            if not self.is_kept:
                raise error  # a take-over: there is another one later
            self._bypassed = self._behind = True
            log.error("The volume journal cannot be used: volumes are made without it meanwhile", err=str(error))
            self._wake()
        await trio.sleep(seconds)
        return min(2 * seconds, LONGEST_PAUSE)

    def _note_success(self) -> None:
        if self._failing_since is not None:
            log.info("The volume journal is used again")
        self._failing_since, self._bypassed = None, False
        self._behind = self._behind and not self._log.is_idle

    def _switch_off(self, error: Exception) -> None:
        if str(error) != self.off:
            namespace = self.election.namespace
            right = f"get, create and update on leases of API group coordination.k8s.io in namespace {namespace}"
            log.error(
                "No volume journal: a volume that is being made when this process dies may be lost with its claim",
                err=str(error),
                advice=advice(error, right=right, namespace=namespace),
                again="at the next start" if self._ended else f"in {ANOTHER_LOOK:g} s",
            )
        self.off, self.gap, self._failing_since = str(error), True, None
        self._log.pending = None
        self._wake()
