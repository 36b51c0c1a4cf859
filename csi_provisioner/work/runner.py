"""The loop: keys that are due get one task each while there is room, and its Outcome goes back.

Nothing here knows what a key names; whose turn it is, is for `lanes` to say. A key that is woken while its task runs is
worked on once more afterwards; a key whose id another loop is working on waits for that (`Exclusive`). Retries are due
times in the schedule, never sleeping workers.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec
import trio

from csi_provisioner.logs import log
from csi_provisioner.metrics import QueueMetrics
from csi_provisioner.model.outcome import Attempt, Done, GiveUp, Outcome, Retry, RetryAt
from csi_provisioner.model.state import Failure, KeyState, Lane, LaneState, QueueState, Tried
from csi_provisioner.traces import traces

from .backoff import Backoff
from .exclusive import Exclusive
from .lanes import Lanes, Turn
from .schedule import Schedule

# Repeats of one class of failure with a delay below this (in seconds) are logged at V(3) only: 300 claims that wait for
# the same thing would else be thousands of lines in a minute.
NEWS = 16.0
# Letters of the last failure that are kept of each key: a driver's text can be 16 KiB, of 100,000 claims.
TOLD = 1000
# Failures that are remembered for people.
FAILURES = 10

# Tasks that begin before others get their turn: what the first of a backlog have to wait for, such as a write that they
# share, is under way while the rest gets ready.
STARTED_AT_ONCE = 4

# Keys that are put into their lanes before others get their turn. Few at first: what the first tasks wait for can
# begin. Then each turn doubles what is filed, by this many at most: workers are idle until all is filed.
FILED_AT_FIRST, FILED_AT_ONCE = 50, 1000

# The lane of a loop that has no others
ONE = Lane()

Reconcile = Callable[[str, Attempt], Awaitable[Outcome]]


class Loop(msgspec.Struct, eq=False, dict=True):
    """Works on keys with at most `workers` tasks, or as its lanes give them. `wake` may be called at any time, also
    before `run`. What `about` tells of a key is in every line of its task, with the id of the try; `place` gives its
    lane and namespace."""

    name: str
    reconcile: Reconcile
    workers: int | Lanes
    backoff: Backoff
    exclusive: Exclusive
    metrics: QueueMetrics
    id_of: Callable[[str], str] = lambda key: key
    about: Callable[[str], Mapping[str, object]] = lambda key: {}
    place: Callable[[str], tuple[Lane, str]] = lambda key: (ONE, "")
    lane_states: Callable[[], Iterable[LaneState]] = lambda: ()
    running: dict[str, float] = msgspec.field(default_factory=dict)
    """Key -> when its task started."""

    def __post_init__(self) -> None:
        self.lanes = Lanes(self.workers) if isinstance(self.workers, int) else self.workers  # what is due
        self._ids: dict[str, str] = {}  # key -> the id under which it is worked on
        self._schedule = Schedule()  # what waits for its time
        self._counted: set[str] = set()  # keys that wait for a worker, also by way of `exclusive`
        self._last: dict[str, tuple[float, Tried]] = {}  # of keys that have failed, and when
        self._failures: deque[tuple[float, str, str]] = deque(maxlen=FAILURES)
        self.taken = 0
        """Keys that a worker was found for, ever."""
        self.runs = False
        self._changed = trio.Event()
        self._paused = False
        self._accepting = trio.CancelScope()

    @property
    def is_behind(self) -> bool:
        """Something is due, its lane has room, and it waits for another task to end."""
        self._collect()
        return self.lanes.is_short

    @property
    def may_take(self) -> bool:
        """A key is due, and nothing holds it back: neither that caches are not complete, so that `run` has not begun,
        nor a pause, nor a stop, nor that its lane has no room."""
        self._collect()
        return self.runs and not self._paused and not self._accepting.cancel_called and self.lanes.next() is not None

    def state(self, stalled: float) -> QueueState:
        self._collect()
        now, due = trio.current_time(), self.lanes.oldest
        oldest = max(0.0, now - due) if due is not None else 0.0
        return QueueState(self.name, self._depth(), len(self.running), oldest, stalled, tuple(self.lane_states()))

    def failures(self) -> list[Failure]:
        """The last few, the newest first."""
        now = trio.current_time()
        return [Failure(self.name, key, error, now - at) for at, key, error in reversed(self._failures)]

    def look(self, key: str) -> KeyState:
        """What is known of one key."""
        now, due, started, last = trio.current_time(), self._due(key), self.running.get(key), None
        if key in self._last:
            at, tried = self._last[key]
            last = msgspec.structs.replace(tried, ago=now - at)
        return KeyState(
            due - now if due is not None else None,
            now - started if started is not None else None,
            self.backoff.failures(key),
            last,
        )

    def forget(self, key: str) -> None:
        """Its failures count no more."""
        self.backoff.forget(key)
        self._last.pop(key, None)

    def _due(self, key: str) -> float | None:
        due = self.lanes.due(key)
        return self._schedule.due(key) if due is None else due

    def attempt(self, key: str, lane: Lane = ONE, since: float = 0.0) -> Attempt:
        failures = self.backoff.failures(key)
        return Attempt(failures + 1, self.backoff.delay(failures), not self.backoff.losses(key), lane, since)

    def wake(self, key: str, after: float = 0.0, *, floor: float = 0.0, first: bool = False) -> None:
        """Have the key worked on `after` seconds from now, or earlier if it was due earlier, but not within `floor`.
        `first`: before all other keys of its lane and namespace, unless it is held."""
        now = trio.current_time()
        if floor:
            self._schedule.hold(key, now + floor)
            if self.lanes.discard(key) is not None:
                self._schedule.add(key, now + floor)
        if first and self._schedule.take(key, now):
            self.lanes.discard(key)
            self._count(key)
            self._file(key, now, first=True)
            self._changed.set()
        elif key in self.lanes:
            self._file(key, now)  # it is due already, and may be in another lane by now
        elif self._schedule.add(key, now + after):
            if self._schedule.is_due(key, now):
                self._count(key)
            self._changed.set()

    def ranked(self, lane: Lane) -> None:
        """What the lane may have has changed."""
        self.lanes.rank(lane)
        self._changed.set()

    def _file(self, key: str, due: float, *, first: bool = False) -> None:
        lane, namespace = self.place(key)
        self.lanes.add(key, lane, namespace, due, first=first)

    def _collect(self) -> bool:
        """Some of what is due by now, into its lane; whether that was all."""
        now = trio.current_time()
        for _ in range(min(FILED_AT_ONCE, max(FILED_AT_FIRST, len(self.lanes)))):
            if (popped := self._schedule.pop(now)) is None:
                return True
            self._file(*popped)
        return False

    def pause(self) -> None:
        """Start nothing new; what runs goes on. Due times pass meanwhile."""
        self._paused = True

    def resume(self, spread: Callable[[], float] | None = None) -> None:
        """Go on, and with `spread` let everything that waits be due after `spread()` seconds (jitter against a
        stampede). What lost its connection twice in a row begins its back-off anew instead: it may be what the driver
        does not survive, and the others go first."""
        self._paused = False
        if spread is not None:
            now = trio.current_time()
            for key in self.lanes.waiting():
                self.lanes.discard(key)
                self._schedule.add(key, now)
            self._schedule.postpone(lambda key: now + self._held_back(key, spread()))
        self._changed.set()

    def _held_back(self, key: str, spread: float) -> float:
        if self.backoff.losses(key) < 2:
            return spread
        failures = self.backoff.failures(key)
        delay = self.backoff.delay(failures - 1)
        # The jitter grows, so that keys that were lost together part: else the one that kills the driver would take the
        # others along for ever.
        return delay + min(delay, spread * failures)

    def stop(self) -> None:
        """Take no new keys; `run` returns when the tasks that run have ended."""
        self._accepting.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Works until `stop`, then until the running tasks are over; a cancellation ends those too."""
        with self.metrics.watch(self._depth, self._ages):
            self.runs = True
            async with trio.open_nursery() as nursery:
                task_status.started()
                with self._accepting:
                    while True:
                        # After a stop nothing is taken, and whoever wakes a key at the moment at which it is due wakes
                        # it once.
                        await trio.lowlevel.checkpoint()
                        if not self._start_some(nursery):
                            await self._until_changed()

    def _start_some(self, nursery: trio.Nursery) -> bool:
        """A task for each key whose turn it is, and whether there may be more: a key leaves its lane only then, so
        merging goes on until there is room. Nothing waits in here: no key is lost to a stop."""
        if self._paused:
            return False
        is_all = self._collect()
        # Of a large backlog a few begin at once. Whose turn it is then is known when all of it is in its lanes.
        if not is_all and self.running:
            return True
        for _ in range(STARTED_AT_ONCE):
            turn = self.lanes.pick()
            if turn is None:
                return not is_all
            what = self._enter(turn)
            if what is not None:
                nursery.start_soon(self._work, turn, what, name=f"{self.name} {turn.key}")
        return True

    async def _until_changed(self) -> None:
        """Paused, or nothing is due that has room: whatever changes that sets the event."""
        due = None if self._paused else self._schedule.next_due()
        if due is None:  # usual in a backlog, of which each end of a task comes by here
            await self._changed.wait()
        else:
            with trio.move_on_at(due):
                await self._changed.wait()
        self._changed = trio.Event()

    def _enter(self, turn: Turn) -> str | None:
        """The id that the key claims, fixed now: the cache may have forgotten it when the task ends."""
        key = turn.key
        self.taken += 1
        self._count(key)
        # Reuse the id the running task entered with: the cache may no longer know the claim.
        what = self._ids.get(key) or self.id_of(key)
        # The key is woken again when the other task has left the id; it stays counted as waiting.
        if not self.exclusive.enter(what, (self.name, key), lambda: self.wake(key)):
            self.lanes.release(turn)
            return None
        self._ids[key] = what
        self._counted.discard(key)
        self.metrics.got(trio.current_time() - turn.due)
        return what

    def _count(self, key: str) -> None:
        """Once, from when the key is in the queue (`_depth`) until a worker has it: what was added was taken."""
        if key not in self._counted:
            self._counted.add(key)
            self.metrics.added()

    async def _work(self, turn: Turn, what: str) -> None:
        key = turn.key
        about = self.about(key)
        with traces.tried(self.name, about) as id_:
            log.about(**about, **{"try": id_})
            started = self.running[key] = trio.current_time()
            try:
                outcome = await self._contained(turn)
            finally:
                del self.running[key], self._ids[key]
                self.metrics.finished(trio.current_time() - started)
                # Whoever waits for the id is only put into the schedule here, so the outcome is acted on before it
                # runs.
                self.exclusive.leave(what)
                self.lanes.release(turn)
                self._changed.set()
            self._act_on(key, outcome)

    def _depth(self) -> int:
        """What waits for a worker. What waits for its time is not in the queue: alerts on its length mean a backlog."""
        return len(self.lanes) + self._schedule.count_due(trio.current_time())

    def _ages(self) -> list[float]:
        now = trio.current_time()
        return [now - started for started in self.running.values()]

    async def _contained(self, turn: Turn) -> Outcome:
        key = turn.key
        try:
            return await self.reconcile(key, self.attempt(key, turn.lane, turn.due))
        # A defect in one reconciler must not end the process or stop the other keys.
        except Exception as error:
            log.exception("Unexpected error, will be tried again", queue=self.name, key=key)
            return Retry(f"unexpected error: {error!r}", kind="unexpected")

    def _act_on(self, key: str, outcome: Outcome) -> None:
        match outcome:
            case Done():
                self.forget(key)
            case GiveUp(reason=reason):
                self.forget(key)
                log.v(4, "Given up until something changes", queue=self.name, key=key, reason=reason)
            case RetryAt(due=due, reason=reason):
                delay = max(0.0, due - trio.current_time())
                # It counts, though the time is not taken from the back-off: the next event says which try it was.
                if outcome.failed:
                    self.backoff.next(key)
                    self._failed(key, delay, outcome)
                else:
                    log.v(4, "Waits", queue=self.name, key=key, reason=reason)
                self.wake(key, delay)
            case Retry(reason=reason, lost=True) if not self.backoff.losses(key):
                # The connection took all running calls with it, whoever is to blame: the first loss is excused.
                self.backoff.excuse(key)
                log.v(3, "Lost with the driver's connection, asked again", queue=self.name, key=key, error=reason)
                self.wake(key)
            case Retry(reason=reason, floor=floor, lost=lost):
                # What the API server asks for is no reason to come sooner than the back-off.
                delay = max(self.backoff.next(key, lost=lost), floor)
                self._failed(key, delay, outcome)
                self.wake(key, delay, floor=floor)

    def _failed(self, key: str, delay: float, outcome: Retry | RetryAt) -> None:
        error = outcome.reason
        traces.failed(error)
        failures, last = self.backoff.failures(key), self._last.get(key)
        self._last[key] = trio.current_time(), Tried(outcome.kind, error[:TOLD], 0.0, outcome.step)
        self._failures.append((trio.current_time(), key, error))
        keys = {"queue": self.name, "key": key, "failures": failures, "after": f"{delay:g}s", "err": error}
        if failures > 1 and last is not None and last[1].kind == outcome.kind and delay < NEWS:
            log.v(3, "Failed, will be tried again", **keys)
        else:
            # Only the first failure is news: one that goes on for a day must not look like a thousand errors.
            tell = log.error if failures == 1 else log.warning
            tell("Failed, will be tried again", **keys)
        self.metrics.retried()
