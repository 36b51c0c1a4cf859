"""The bound on calls side by side, and who gets a free worker: waiting calls are in lanes (design.md 7)."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from csi_provisioner.model.state import Lane

from .lanes import Lanes, Turn

QUICK = 1.0
"""A lane whose last call ended well within so many seconds may use all of the workers."""
RESERVED = 8
"""One worker in so many is the reserve."""
# Lanes that are remembered while nothing of them runs: more than any cluster has classes of one driver
REMEMBERED = 500


@dataclass(slots=True, eq=False)
class _Record:
    """What is known of a lane, also while nothing of it waits or runs."""

    quick: bool = False
    waited: float = 0.0


@dataclass(slots=True, eq=False)
class _Waiting:
    since: float
    granted: trio.Event = field(default_factory=trio.Event)
    turn: Turn | None = None


class Workers:
    """`count` of them. `several`: can there be two lanes? `fixed` bounds lanes of which nobody else knows."""

    def __init__(
        self, count: int, *, several: Callable[[], bool] = lambda: False, fixed: dict[Lane, int] | None = None
    ) -> None:
        self.count = count
        self.several = several
        self._fixed = fixed or {}
        self._lanes = Lanes(
            count, reserve=reserve(count, count // RESERVED), several=several, room=self._has_room, is_quick=self.quick
        )
        self._waiting: dict[str, _Waiting] = {}
        self._records: dict[Lane, _Record] = {}
        self._numbers = 0
        self._handing = False
        self.changed: Callable[[Lane], None] = lambda lane: None
        """Told when what a lane may have has changed."""

    @property
    def is_short(self) -> bool:
        """A call waits whose lane has room, and no worker is free."""
        return self._lanes.is_short

    def tasks(self) -> Lanes:
        """For the loop whose tasks make the calls: as many tasks again may get ready, or write down what was made. A
        lane that may have few calls has few tasks, and those beside the slots keep a namespace from waiting for the
        tasks of another one."""
        count, slots = self.count, 2 * self.count
        return Lanes(
            slots,
            reserve=reserve(count, count // 2),
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
        return self._fixed.get(lane)

    def _has_room(self, lane: Lane, running: int) -> bool:
        bound = self.bound(lane)
        return bound is None or running < bound

    def _has_room_for_task(self, lane: Lane, running: int) -> bool:
        bound = self.bound(lane)
        return bound is None or running < 2 * bound

    @asynccontextmanager
    async def call(self, lane: Lane, namespace: str = "", since: float | None = None) -> AsyncIterator[None]:
        """Inside, a call to the driver may be made. `since`: when it was due; of a namespace the oldest goes first."""
        turn = await self._turn(lane, namespace, since)
        begun, well = trio.current_time(), False
        try:
            yield
            well = True
        finally:
            self._ended(turn, trio.current_time() - begun, well=well)

    async def _turn(self, lane: Lane, namespace: str, since: float | None) -> Turn:
        now = trio.current_time()
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
                self._handing = False
                self._release(mine.turn)
            else:
                del self._waiting[key]
                self._lanes.discard(key)
            raise
        assert mine.turn is not None
        self._handing = False
        self._hand_out()
        return mine.turn

    def _hand_out(self) -> None:
        # One after the other: of tasks that are woken together any may run first, and turns have an order.
        if self._handing or (turn := self._lanes.pick()) is None:
            return
        self._handing = True
        waiting = self._waiting.pop(turn.key)
        waiting.turn = turn
        waiting.granted.set()
        self._record(turn.lane).waited += trio.current_time() - waiting.since

    def _record(self, lane: Lane) -> _Record:
        record = self._records.get(lane)
        if record is None:
            if len(self._records) >= REMEMBERED:
                self._records.clear()
            record = self._records[lane] = _Record()
        return record

    def _ended(self, turn: Turn, seconds: float, *, well: bool) -> None:
        record = self._record(turn.lane)
        quick, record.quick = record.quick, well and seconds < QUICK
        self._release(turn)
        if quick != record.quick:
            self._changed(turn.lane)

    def _release(self, turn: Turn) -> None:
        self._lanes.release(turn)
        self._hand_out()

    def _changed(self, lane: Lane) -> None:
        self._lanes.rank(lane)
        self._hand_out()
        self.changed(lane)


def reserve(count: int, share: int) -> int:
    """At least one, but none where a single worker would be all there is."""
    return max(1, share) if count > 1 else 0
