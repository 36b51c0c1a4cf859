"""The bound on calls side by side, and who gets a free worker: waiting calls are in lanes (design.md 7)."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

import msgspec
import trio

from csi_provisioner.model.outcome import TryError
from csi_provisioner.model.state import Lane, LaneState
from csi_provisioner.planning.wellknown import CLAIM_KIND, SNAPSHOT_KIND

from .adaptive import Adaptive
from .bounds import Bounds, StoppedError
from .lanes import Lanes, Turn

SOURCES = ("", SNAPSHOT_KIND, CLAIM_KIND)

QUICK = 1.0
"""A lane whose last call ended well within so many seconds may use all of the workers."""
RESERVED = 8
"""One worker in so many is the reserve."""
# Workers that are handed out before the first of their calls begins
TOGETHER = 8
# Lanes that are remembered while nothing of them runs: more than any cluster has classes of one driver
REMEMBERED = 500


class _Record(msgspec.Struct, eq=False):
    """What is known of a lane, also while nothing of it waits or runs."""

    adaptive: Adaptive | None
    quick: bool = False
    waited: float = 0.0


class _Waiting(msgspec.Struct, eq=False):
    since: float
    granted: trio.Event = msgspec.field(default_factory=trio.Event)
    turn: Turn | None = None
    round: int = 0


class Workers:
    """`count` of them. `several`: can there be two lanes? `fixed` bounds lanes of which nobody else knows. `limit`: the
    seconds that a call has, if each lane's bound is to be found by what its calls take."""

    def __init__(
        self,
        count: int,
        *,
        several: Callable[[], bool] = lambda: False,
        fixed: Mapping[Lane, int] | None = None,
        bounds: Bounds | None = None,
        limit: float | None = None,
    ) -> None:
        self.count = count
        self.several = several
        self._fixed = fixed or {}
        self._bounds = bounds or Bounds({})
        self._bounds.changed.append(self._class_changed)
        self._limit = limit
        self._lanes = Lanes(
            count, reserve=reserve(count, count // RESERVED), several=several, room=self._has_room, is_quick=self.quick
        )
        self._waiting: dict[str, _Waiting] = {}
        self._records: dict[Lane, _Record] = {}
        self._numbers = 0
        self._handed = 0  # workers, whose calls have not begun
        self.changed: Callable[[Lane], None] = lambda lane: None
        """Told when what a lane may have has changed."""

    @property
    def is_short(self) -> bool:
        """A call waits whose lane has room, and no worker is free."""
        return self._lanes.is_short

    def tasks(self) -> Lanes:
        """For the loop whose tasks make the calls: as many tasks again, and half, may get ready, or write down what was
        made. A lane that may have few calls has few tasks, and those beside the slots keep a namespace from waiting for
        the tasks of another one."""
        count = self.count
        return Lanes(
            5 * count // 2,
            reserve=reserve(count, count),
            guests=max(2, count // 4) if count else 0,
            each=max(2, count // 8),
            several=self.several,
            room=self._has_room_for_task,
            is_quick=self.quick,
        )

    def quick(self, lane: Lane) -> bool:
        record = self._records.get(lane)
        return record is not None and record.quick

    def bound(self, lane: Lane) -> int | None:
        """The most calls of the lane side by side; None: only the workers bound it."""
        found = self._fixed.get(lane)
        if found is not None:
            return found
        bound = self._bounds.of(lane.class_)
        if self._limit is None or (adaptive := self._record(lane).adaptive) is None:
            return bound
        return adaptive.bound if bound is None else min(bound, adaptive.bound)

    def states(self, tasks: Lanes) -> Iterator[LaneState]:
        """Of the lanes that have something; `tasks` has what is before the workers."""
        found: dict[Lane, list[int]] = {}
        for lane, waiting, running in self._lanes.counts():
            found[lane] = [waiting, running]
        for lane, due, _ in tasks.counts():
            found.setdefault(lane, [0, 0])[0] += due
        for lane, (waiting, running) in found.items():
            record = self._record(lane)
            cuts = record.adaptive.cuts if record.adaptive is not None else None
            yield LaneState(lane, running, waiting, self.bound(lane), cuts, record.waited)

    def check(self, lane: Lane) -> None:
        """Raises StoppedError."""
        if self.bound(lane) == 0:
            raise StoppedError(lane.class_)

    def _has_room(self, lane: Lane, running: int) -> bool:
        bound = self.bound(lane)
        return bound is None or (running < bound and (lane in self._fixed or self._bounds.has_room(lane.class_)))

    def _has_room_for_task(self, lane: Lane, running: int) -> bool:
        # A task says on its object that a class has no calls at all.
        return not (bound := self.bound(lane)) or running < 2 * bound

    @asynccontextmanager
    async def call(self, lane: Lane, namespace: str = "", since: float | None = None) -> AsyncIterator[None]:
        """Inside, a call to the driver may be made. `since`: when it was due; of a namespace the oldest goes first.

        Raises StoppedError.
        """
        turn, round_ = await self._turn(lane, namespace, since)
        begun, well, timed_out = trio.current_time(), False, False
        try:
            yield
            well = True
        except TryError as error:
            timed_out = error.timed_out
            raise
        finally:
            self._ended(turn, round_, begun, well=well, timed_out=timed_out)

    async def _turn(self, lane: Lane, namespace: str, since: float | None) -> tuple[Turn, int]:
        self.check(lane)
        now = trio.current_time()
        turn = self._lanes.take(lane, namespace, now)
        if turn is not None:
            # Nobody waits: the usual case of a quick driver, in which a call must cost next to nothing.
            round_ = self._begin(lane, now if since is None else since)
            try:
                await trio.lowlevel.checkpoint_if_cancelled()
            except trio.Cancelled:
                self._release(turn)
                raise
            return turn, round_
        self._numbers += 1
        key = str(self._numbers)
        mine = self._waiting[key] = _Waiting(now if since is None else since)
        self._lanes.add(key, lane, namespace, mine.since)
        self._hand_out()
        try:
            # Who is handed a worker has it, also if it is cancelled just then.
            await mine.granted.wait()
        except trio.Cancelled:
            if mine.turn is not None:
                self._handed -= 1
                self._release(mine.turn)
            elif key in self._waiting:
                del self._waiting[key]
                self._lanes.discard(key)
            raise
        if mine.turn is None:
            raise StoppedError(lane.class_)
        self._handed -= 1
        if not self._handed:
            self._hand_out()
        return mine.turn, mine.round

    def _hand_out(self) -> None:
        # A few at a time: of tasks that are woken together any may run first, and turns have an order.
        while self._handed < TOGETHER and (turn := self._lanes.pick()) is not None:
            self._handed += 1
            waiting = self._waiting.pop(turn.key)
            waiting.turn = turn
            waiting.granted.set()
            waiting.round = self._begin(turn.lane, waiting.since)

    def _begin(self, lane: Lane, since: float) -> int:
        record = self._record(lane)
        record.waited += trio.current_time() - since
        self._bounds.begin(lane.class_)
        return 0 if record.adaptive is None else record.adaptive.begin(self._lanes.running(lane))

    def _record(self, lane: Lane) -> _Record:
        record = self._records.get(lane)
        if record is None:
            if len(self._records) >= REMEMBERED:
                self._records.clear()
            adapts = self._limit is not None and lane not in self._fixed
            record = self._records[lane] = _Record(Adaptive(self._limit or 0.0) if adapts else None)
        return record

    def _ended(self, turn: Turn, round_: int, begun: float, *, well: bool, timed_out: bool) -> None:
        record, now = self._record(turn.lane), trio.current_time()
        quick, record.quick = record.quick, well and now - begun < QUICK
        changed = quick != record.quick
        if record.adaptive is not None and well:
            changed |= record.adaptive.answered(round_, now - begun)
        elif record.adaptive is not None and timed_out:
            changed |= record.adaptive.timed_out(begun, now)
        self._release(turn)
        if changed:
            self._changed(turn.lane)

    def _release(self, turn: Turn) -> None:
        self._lanes.release(turn)
        self._bounds.end(turn.lane.class_, self._class_changed)
        self._hand_out()

    def _class_changed(self, class_: str) -> None:
        lanes = [Lane(class_, source) for source in SOURCES]
        if self._bounds.of(class_) == 0:
            for key in [key for lane in lanes for key in self._lanes.waiting(lane)]:
                self._lanes.discard(key)
                self._waiting.pop(key).granted.set()
        self._changed(*lanes)

    def _changed(self, *lanes: Lane) -> None:
        for lane in lanes:  # all, before one of them takes what room there is
            self._lanes.rank(lane)
        self._hand_out()
        for lane in lanes:
            self.changed(lane)


def reserve(count: int, share: int) -> int:
    """At least one, but none where a single worker would be all there is."""
    return max(1, share) if count > 1 else 0
