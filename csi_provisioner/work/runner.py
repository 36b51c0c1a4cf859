"""The loop: keys that are due get one task each while workers are free, and its Outcome goes back.

Nothing here knows what a key names. A key that is woken while its task runs is worked on once more afterwards; a key
whose id another loop is working on waits for that (`Exclusive`). Retries are due times in the schedule, never sleeping
workers.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import trio

from csi_provisioner.logs import log
from csi_provisioner.metrics import QueueMetrics
from csi_provisioner.model.outcome import Attempt, Done, GiveUp, Outcome, Retry, RetryAt
from csi_provisioner.model.state import Failure, KeyState, QueueState, Tried
from csi_provisioner.traces import traces

from .backoff import Backoff
from .exclusive import Exclusive
from .schedule import Schedule
from .workers import Pool, Workers

# Repeats with a delay below this (in seconds) are logged at V(3) only: a thousand volumes that the API server does not
# take would else be ten thousand lines in three seconds.
NEWS = 1.0
# Failures that are remembered for people.
FAILURES = 10

Reconcile = Callable[[str, Attempt], Awaitable[Outcome]]


@dataclass(eq=False)
class Loop:
    """Works on keys with at most `workers` tasks, or as many as a pool gives. `wake` may be called at any time, also
    before `run`. What `about` tells of a key is in every line of its task, with the id of the try."""

    name: str
    reconcile: Reconcile
    workers: int | Pool
    backoff: Backoff
    exclusive: Exclusive
    metrics: QueueMetrics
    id_of: Callable[[str], str] = lambda key: key
    about: Callable[[str], Mapping[str, object]] = lambda key: {}
    running: dict[str, float] = field(init=False, default_factory=dict)
    """Key -> when its task started."""

    def __post_init__(self) -> None:
        self._pool: Pool = Workers(self.workers) if isinstance(self.workers, int) else self.workers
        self._ids: dict[str, str] = {}  # key -> the id under which it is worked on
        self._schedule = Schedule()
        self._counted: set[str] = set()  # keys that wait for a worker, also by way of `exclusive`
        self._last: dict[str, tuple[float, str, str]] = {}  # of keys that have failed: when, its class, its text
        self._failures: deque[tuple[float, str, str]] = deque(maxlen=FAILURES)
        self.taken = 0
        """Keys that a worker was found for, ever."""
        self.runs = False
        self._changed = trio.Event()
        self._paused = False
        self._accepting = trio.CancelScope()

    @property
    def is_behind(self) -> bool:
        """Something is due and waits for a free worker."""
        due = self._schedule.next_due()
        return due is not None and due <= trio.current_time()

    @property
    def may_take(self) -> bool:
        """A key is due, and nothing holds it back: neither that caches are not complete, so that `run` has not begun,
        nor a pause, nor a stop, nor that no worker is free."""
        held = self._paused or self._accepting.cancel_called or not self._pool.is_free
        return self.runs and self.is_behind and not held

    def state(self, stalled: float) -> QueueState:
        now, due = trio.current_time(), self._schedule.next_due()
        oldest = max(0.0, now - due) if due is not None else 0.0
        return QueueState(self.name, self._depth(), len(self.running), oldest, stalled)

    def failures(self) -> list[Failure]:
        """The last few, the newest first."""
        now = trio.current_time()
        return [Failure(self.name, key, error, now - at) for at, key, error in reversed(self._failures)]

    def look(self, key: str) -> KeyState:
        """What is known of one key."""
        now, due, started, last = trio.current_time(), self._schedule.due(key), self.running.get(key), None
        if key in self._last:
            at, kind, text = self._last[key]
            last = Tried(kind, text, now - at)
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

    def attempt(self, key: str) -> Attempt:
        failures = self.backoff.failures(key)
        return Attempt(failures + 1, self.backoff.delay(failures), not self.backoff.losses(key))

    def wake(self, key: str, after: float = 0.0, *, floor: float = 0.0, first: bool = False) -> None:
        """Have the key worked on `after` seconds from now, or earlier if it was due earlier, but not within `floor`.
        `first`: before all other keys that wait."""
        now = trio.current_time()
        if floor:
            self._schedule.hold(key, now + floor)
        if self._schedule.add(key, now + after, first=first):
            if self._schedule.is_due(key, now):
                self._count(key)
            self._changed.set()

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
        free = self._pool
        with self.metrics.watch(self._depth, self._ages):
            self.runs = True
            async with trio.open_nursery() as nursery:
                task_status.started()
                with self._accepting:
                    while True:
                        await self._until_due()
                        # A key leaves the schedule only when a worker is free, so merging goes on until then.
                        await free.acquire()
                        # Nothing waits between here and the start of the task: no key is lost to a stop.
                        taken = None if self._paused else self._take()
                        if taken is None:
                            free.release()
                        else:
                            nursery.start_soon(self._work, *taken, free, name=f"{self.name} {taken[0]}")

    async def _until_due(self) -> None:
        while True:
            due = None if self._paused else self._schedule.next_due()
            if due is not None and due <= trio.current_time():
                return
            # Paused, or nothing is due yet: whatever changes that sets the event.
            with trio.move_on_at(math.inf if due is None else due):
                await self._changed.wait()
            self._changed = trio.Event()

    def _take(self) -> tuple[str, str] | None:
        """The key that is due, and the id it claims, fixed now: the cache may have forgotten it when the task ends."""
        popped = self._schedule.pop(trio.current_time())
        if popped is None:
            return None
        key, due = popped
        self.taken += 1
        self._count(key)
        # Reuse the id the running task entered with: the cache may no longer know the claim.
        what = self._ids.get(key) or self.id_of(key)
        # The key is woken again when the other task has left the id; it stays counted as waiting.
        if not self.exclusive.enter(what, (self.name, key), lambda: self.wake(key)):
            return None
        self._ids[key] = what
        self._counted.discard(key)
        self.metrics.got(trio.current_time() - due)
        return key, what

    def _count(self, key: str) -> None:
        """Once, from when the key is in the queue (`_depth`) until a worker has it: what was added was taken."""
        if key not in self._counted:
            self._counted.add(key)
            self.metrics.added()

    async def _work(self, key: str, what: str, free: Pool) -> None:
        about = self.about(key)
        with traces.tried(self.name, about) as id_:
            log.about(**about, **{"try": id_})
            started = self.running[key] = trio.current_time()
            try:
                outcome = await self._contained(key)
            finally:
                del self.running[key], self._ids[key]
                self.metrics.finished(trio.current_time() - started)
                # Whoever waits for the id is only put into the schedule here, so the outcome is acted on before it
                # runs.
                self.exclusive.leave(what)
                free.release()
            self._act_on(key, outcome)

    def _depth(self) -> int:
        """What waits for a worker. What waits for its time is not in the queue: alerts on its length mean a backlog."""
        return self._schedule.count_due(trio.current_time())

    def _ages(self) -> list[float]:
        now = trio.current_time()
        return [now - started for started in self.running.values()]

    async def _contained(self, key: str) -> Outcome:
        try:
            return await self.reconcile(key, self.attempt(key))
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
            case RetryAt(due=due, reason=reason, kind=kind):
                delay = max(0.0, due - trio.current_time())
                # It counts, though the time is not taken from the back-off: the next event says which try it was.
                if outcome.failed:
                    self.backoff.next(key)
                    self._failed(key, delay, reason, kind)
                else:
                    log.v(4, "Waits", queue=self.name, key=key, reason=reason)
                self.wake(key, delay)
            case Retry(reason=reason, lost=True) if not self.backoff.losses(key):
                # The connection took all running calls with it, whoever is to blame: the first loss is excused.
                self.backoff.excuse(key)
                log.v(3, "Lost with the driver's connection, asked again", queue=self.name, key=key, error=reason)
                self.wake(key)
            case Retry(reason=reason, floor=floor, lost=lost, kind=kind):
                # What the API server asks for is no reason to come sooner than the back-off.
                delay = max(self.backoff.next(key, lost=lost), floor)
                self._failed(key, delay, reason, kind)
                self.wake(key, delay, floor=floor)

    def _failed(self, key: str, delay: float, error: str, kind: str) -> None:
        traces.failed(error)
        failures = self.backoff.failures(key)
        self._last[key] = trio.current_time(), kind, error
        self._failures.append((trio.current_time(), key, error))
        keys = {"queue": self.name, "key": key, "failures": failures, "after": f"{delay:g}s", "err": error}
        if failures > 1 and delay < NEWS:
            log.v(3, "Failed, will be tried again", **keys)
        else:
            # Only the first failure is news: one that goes on for a day must not look like a thousand errors.
            tell = log.error if failures == 1 else log.warning
            tell("Failed, will be tried again", **keys)
        self.metrics.retried()
