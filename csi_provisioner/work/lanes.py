"""Who is next: due keys in lanes, so that no class, kind of source or namespace keeps the others waiting (design.md 7).

A free slot goes to the lane with the fewest running, then to the one served longest ago; within it to the namespace
served longest ago, there to the key that is due longest. The last slots are a reserve, which a lane enters only while
it has few, or while its calls are quick. Pure, and O(log lanes) a turn: no clock, and nothing waits.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from csi_provisioner.model.state import Lane

from .ranking import Ranking


class Turn(NamedTuple):
    """A key with the lane it is in; `guest`: it was handed out beside the slots."""

    key: str
    lane: Lane
    namespace: str
    due: float
    guest: bool = False


class _Space(msgspec.Struct, eq=False):
    """A namespace in a lane. `served`: the number of its last turn, or of the last one before it came."""

    served: int
    keys: Ranking[str] = msgspec.field(default_factory=Ranking)
    running: int = 0


class _Line(msgspec.Struct, eq=False):
    lane: Lane
    served: int
    running: int = 0
    spaces: dict[str, _Space] = msgspec.field(default_factory=dict)
    turns: Ranking[str] = msgspec.field(default_factory=Ranking)  # the namespaces that have a key
    excluded: list[str] = msgspec.field(default_factory=list)  # those that would be guests, had the lane room


class Lanes(msgspec.Struct, eq=False, dict=True):
    """`reserve` is of the `slots`, and there only while there can be `several` lanes. `guests` are slots besides, for
    namespaces that have fewer than `each` of them. `room`: may a lane that has so many running have one more?"""

    slots: int
    reserve: int = 0
    guests: int = 0
    each: int = 0
    several: Callable[[], bool] = lambda: True
    room: Callable[[Lane, int], bool] = lambda lane, running: True
    is_quick: Callable[[Lane], bool] = lambda lane: False

    def __post_init__(self) -> None:
        self._lines: dict[Lane, _Line] = {}
        self._filed: dict[str, Turn] = {}
        self._ranked, self._quick = Ranking[Lane](), Ranking[Lane]()  # lanes that have a key, and room
        self._entitled: dict[tuple[Lane, str], None] = {}  # to a slot of the guests, in their order
        self._running = self._as_guests = 0
        self._turns = 0

    def __contains__(self, key: str) -> bool:
        return key in self._filed

    def __len__(self) -> int:
        """How many keys wait."""
        return len(self._filed)

    @property
    def is_short(self) -> bool:
        """A key waits whose lane has room, and no slot is free."""
        return self._running >= self.slots and self._head(self._ranked) is not None

    @property
    def oldest(self) -> float | None:
        return min((turn.due for turn in self._filed.values()), default=None)

    def due(self, key: str) -> float | None:
        """None: it does not wait."""
        return self._filed[key].due if key in self._filed else None

    def running(self, lane: Lane) -> int:
        return self._lines[lane].running if lane in self._lines else 0

    def counts(self) -> Iterator[tuple[Lane, int, int]]:
        """Of each lane how many wait, and how many run."""
        for lane, line in self._lines.items():
            yield lane, sum(len(space.keys) for space in line.spaces.values()), line.running

    def waiting(self, lane: Lane | None = None) -> list[str]:
        """The keys that wait, all or those of one lane."""
        if lane is None:
            return list(self._filed)
        line = self._lines.get(lane)
        return [key for space in line.spaces.values() for key in space.keys] if line is not None else []

    def add(self, key: str, lane: Lane, namespace: str, due: float, *, first: bool = False) -> None:
        """`first`: before all that waits in its namespace of the lane by now."""
        known = self._filed.get(key)
        if known is not None:
            if known[1:3] == (lane, namespace):
                return
            self.discard(key)
            due = min(due, known.due)
        line, space = self._place(lane, namespace)
        ahead = space.keys.first()
        if first and ahead is not None:
            due = min(due, self._filed[ahead].due)
        self._filed[key] = Turn(key, lane, namespace, due)
        space.keys.put(key, (due, not first))
        self._settle(line, namespace)

    def _place(self, lane: Lane, namespace: str) -> tuple[_Line, _Space]:
        line = self._lines.get(lane)
        if line is None:
            # Behind those that were served before it came: who comes again and again must not go first each time.
            line = self._lines[lane] = _Line(lane, self._turns)
        space = line.spaces.get(namespace)
        if space is None:
            space = line.spaces[namespace] = _Space(self._turns)
        return line, space

    def take(self, lane: Lane, namespace: str, due: float) -> Turn | None:
        """A turn at once, where nobody waits and the lane has room beside the reserve."""
        free = self.slots - self._running
        if self._filed or free <= (self.reserve if self.several() else 0) or not self.room(lane, self.running(lane)):
            return None
        line, space = self._place(lane, namespace)
        turn = Turn("", lane, namespace, due)
        self._serve(turn, line, space)
        return turn

    def _serve(self, turn: Turn, line: _Line, space: _Space) -> None:
        self._turns += 1
        line.running, line.served = line.running + 1, self._turns
        space.running, space.served = space.running + 1, self._turns
        self._count(turn, 1)

    def discard(self, key: str) -> Turn | None:
        """The key does not wait any more."""
        turn = self._filed.pop(key, None)
        if turn is not None:
            line = self._lines[turn.lane]
            line.spaces[turn.namespace].keys.discard(key)
            self._settle(line, turn.namespace)
        return turn

    def next(self) -> Turn | None:
        """Whose turn it is; None: nobody waits who may have a slot."""
        free, lane = self.slots - self._running, self._head(self._ranked)
        if lane is not None and free <= (self.reserve if self.several() else 0):
            share = max(1, self.reserve // len(self._lines))
            if free <= 0:
                lane = None
            elif self._lines[lane].running >= share:
                lane = self._head(self._quick)
        if lane is None:
            return self._guest()
        namespace = self._lines[lane].turns.first()
        assert namespace is not None
        return self._first(lane, namespace)

    def _head(self, ranking: Ranking[Lane]) -> Lane | None:
        # Calls of other lanes may have taken the room since.
        while (lane := ranking.first()) is not None and not self.room(lane, self._lines[lane].running):
            self._rank(self._lines[lane])
        return lane

    def _guest(self) -> Turn | None:
        while self._entitled and self._as_guests < self.guests:
            lane, namespace = group = next(iter(self._entitled))
            line = self._lines.get(lane)
            if line is not None and namespace in line.turns:
                if self.room(lane, line.running):
                    return self._first(lane, namespace)._replace(guest=True)
                line.excluded.append(namespace)
            del self._entitled[group]
        return None

    def _first(self, lane: Lane, namespace: str) -> Turn:
        key = self._lines[lane].spaces[namespace].keys.first()
        assert key is not None
        return self._filed[key]

    def pick(self) -> Turn | None:
        """Take the next turn: it has a slot until it is released."""
        turn = self.next()
        if turn is None:
            return None
        line = self._lines[turn.lane]
        self._serve(turn, line, line.spaces[turn.namespace])
        self._entitled.pop((turn.lane, turn.namespace), None)
        self.discard(turn.key)
        return turn

    def release(self, turn: Turn) -> None:
        line = self._lines[turn.lane]
        line.running -= 1
        line.spaces[turn.namespace].running -= 1
        self._count(turn, -1)
        self._settle(line, turn.namespace)

    def _count(self, turn: Turn, more: int) -> None:
        if turn.guest:
            self._as_guests += more
        else:
            self._running += more

    def rank(self, lane: Lane) -> None:
        """The lane's room, or whether it is quick, has changed."""
        line = self._lines.get(lane)
        if line is not None:
            self._rank(line)

    def _settle(self, line: _Line, namespace: str) -> None:
        """After a change of a namespace's keys or of what it has running. What has neither is forgotten."""
        space = line.spaces[namespace]
        if space.keys:
            if line.turns.rank(namespace) != space.served:
                line.turns.put(namespace, space.served)
            if space.running < self.each:
                self._entitled.setdefault((line.lane, namespace))
        else:
            line.turns.discard(namespace)
            if not space.running:
                del line.spaces[namespace]
        if line.spaces:
            self._rank(line)
        else:
            del self._lines[line.lane]
            self._ranked.discard(line.lane)
            self._quick.discard(line.lane)

    def _rank(self, line: _Line) -> None:
        has_room = len(line.turns) > 0 and self.room(line.lane, line.running)
        if has_room and line.excluded:
            self._entitled |= dict.fromkeys((line.lane, namespace) for namespace in line.excluded)
            line.excluded.clear()
        rank = (line.running, line.served)
        for ranking, belongs in (
            (self._ranked, has_room),
            (self._quick, has_room and self.is_quick(line.lane)),
        ):
            if not belongs:
                ranking.discard(line.lane)
            elif ranking.rank(line.lane) != rank:
                ranking.put(line.lane, rank)
