"""The volume journal as data: which entries stand in which Lease, what enters and leaves, and what to write next.

Design.md 6. Pure: `writer` does the requests and hands in what was answered. A volume's entry is in before the
driver is first asked for it, and out when its end is certain; everybody who comes while a write is under way is in the
next one.
"""

import math
from collections.abc import Iterable, Mapping

import msgspec

from csi_provisioner.planning import entries

from .journal_leases import ENTRIES, Object, annotation

NUMBERS = 8
"""Objects 00 to 07: about 10,000 volumes in progress at once."""
COMPANY = 5.0
"""Seconds: what only leaves waits so long for something that enters, and shares its write."""
SETTLED = 60.0
"""Seconds: an entry that is older moves out of 00, which is written with every new one and has to stay small."""
MOVED_AT_ONCE = 50
RENEWED = 300.0
"""Seconds: the entry of a volume that is still tried says so again, since what is old is not believed (`recovery`)."""
BYTES_A_SECOND = 128 * 1024


class Held(msgspec.Struct):
    """One Lease as the last answered request left it. A sealed one is not understood as a whole: only its term is ours
    to write."""

    lease: Object
    texts: dict[str, bytes]
    since: dict[str, float]
    sealed: bool = False
    closed: bool = False
    """Holds an entry of another version or driver: nothing is added."""


class Write(msgspec.Struct, frozen=True):
    """What object `number` is to hold."""

    number: int
    texts: Mapping[str, bytes]
    packed: str

    @property
    def pause(self) -> float:
        """Seconds after it: large Leases at full speed would fill etcd in minutes."""
        return len(self.packed) / BYTES_A_SECOND


class Log:
    """`now` is any clock of seconds. Volume names are the keys."""

    def __init__(self, driver: str) -> None:
        self.objects: dict[int, Held] = {}
        self.pending: Write | None = None
        self._driver = driver
        self._entering: dict[str, bytes] = {}  # in the order in which they came
        self._leaving: set[str] = set()
        self._where: dict[str, int] = {}
        self._stale: set[tuple[int, str]] = set()  # copies that a move left behind
        self._outdated: set[int] = set()  # objects that may stand there as they were long ago
        self._company_until = 0.0

    # ---- what others ask

    def enter(self, name: str, text: bytes, now: float) -> None:
        self._leaving.discard(name)
        self._entering[name] = text
        self._company_until = now + COMPANY

    def leave(self, name: str) -> None:
        """Its end is certain. Written with the next entry that enters, or a little later by itself."""
        self._entering.pop(name, None)
        if name in self._where or (self.pending is not None and name in self.pending.texts):
            self._leaving.add(name)

    def withdraw(self, name: str) -> None:
        """Whoever waited for it is gone, and nothing was asked of the driver. What stood there before stays."""
        if self._entering.pop(name, None) and name not in self._where and self.pending and name in self.pending.texts:
            self._leaving.add(name)

    def is_durable(self, name: str) -> bool:
        """The last answered write of its object holds it, and none is under way that leaves it out."""
        number = self._where.get(name)
        if number is None or name in self._leaving or name in self._entering:
            return False
        pending = self.pending
        return pending is None or pending.number != number or name in pending.texts

    def is_entering(self, name: str) -> bool:
        return name in self._entering

    @property
    def is_idle(self) -> bool:
        return not (self._entering or self._leaving or self._stale or self._outdated or self.pending)

    def names(self) -> Iterable[str]:
        return self._where.keys()

    def text(self, name: str) -> bytes | None:
        number = self._where.get(name)
        return self._entering.get(name) or (self.objects[number].texts[name] if number is not None else None)

    def rewrite(self) -> None:
        """A backup was restored: what stands there is of an earlier moment."""
        self._outdated = {number for number, held in self.objects.items() if not held.sealed}

    # ---- what to write

    def next_due(self, now: float) -> float:
        """When there is something to write, as things are."""
        if self._entering or self._outdated:
            return now
        if self._leaving or self._stale:
            return self._company_until
        first = self.objects.get(0)
        ages = first.since.values() if first is not None and self.is_open(0) else ()
        return max(self._company_until, min(ages) + SETTLED) if ages and self._target() is not None else math.inf

    def choose(self, now: float, *, at_once: bool = False) -> "Write | str | None":
        """The write to begin, which is then pending; the name of an entry that fits nowhere (and is no longer kept);
        None while nothing is due. `at_once`: what leaves waits for no company."""
        found: Write | str | None = None
        if self._outdated:
            found = self._write(self._outdated.pop())
        elif self._entering:
            found = self._with_entering()
        elif (self._leaving or self._stale) and (at_once or now >= self._company_until):
            found = self._write(self._number_to_clear())
        elif not at_once and self.next_due(now) <= now:
            found = self._move(now)
        if isinstance(found, Write):
            self.pending = found
        return found

    def answered(self, write: Write, lease: Object, now: float) -> None:
        """The write is in the API server, as `lease`."""
        number, before = write.number, self.objects.get(write.number)
        since = before.since if before is not None else {}
        self.objects[number] = Held(
            lease, dict(write.texts), {name: since.get(name, now) for name in write.texts}, closed=_closed(before)
        )
        for name in before.texts if before is not None else ():
            if name not in write.texts:
                self._stale.discard((number, name))
                if self._where.get(name) == number:
                    del self._where[name]
                    self._leaving.discard(name)
        for name, text in write.texts.items():
            if (old := self._where.get(name)) not in (None, number) and (number, name) not in self._stale:
                self._stale.add((old, name))  # moved: it goes out of where it was
            if (number, name) not in self._stale:
                self._where[name] = number
            if self._entering.get(name) == text:
                del self._entering[name]
        self.pending = None

    def _with_entering(self) -> "Write | str":
        first = next(iter(self._entering))
        numbers = [self._where[first]] if first in self._where else range(NUMBERS)
        for number in numbers:
            if (first not in self._where and not self.is_open(number)) or (number, first) in self._stale:
                continue
            write = self._write(number, self._joining(number))
            if write is not None:
                return write
        del self._entering[first]
        return first

    def is_open(self, number: int) -> bool:
        """May something be added to it? To one that is still to be made, too."""
        held = self.objects.get(number)
        return held is None or not (held.sealed or held.closed)

    def _joining(self, number: int) -> list[str]:
        """Not an entry whose copy here is about to go, which a move has left behind."""
        return [
            name
            for name in self._entering
            if self._where.get(name, number) == number and (number, name) not in self._stale
        ]

    def _write(self, number: int, joining: Iterable[str] = ()) -> Write | None:
        """As many of `joining` as there is room for; None if there is none for the first of them."""
        held = self.objects.get(number)
        kept = {
            name: text
            for name, text in (held.texts if held is not None else {}).items()
            if (number, name) not in self._stale and not (name in self._leaving and self._where.get(name) == number)
        }
        names = list(joining)
        while True:
            texts = kept | {name: self._entering[name] for name in names}
            packed = entries.pack(texts)
            if not joining or entries.fits(texts, packed):
                return Write(number, texts, packed)
            if len(names) == 1:
                return None
            names = names[: len(names) // 2]

    def _number_to_clear(self) -> int:
        return min([number for number, _ in self._stale] + [self._where[name] for name in self._leaving])

    def _target(self) -> int | None:
        """The fullest object but 00 that can take some more."""
        open_ones = [
            (sum(map(len, held.texts.values())), -number)
            for number, held in self.objects.items()
            if number and self.is_open(number)
        ]
        roomy = [pair for pair in open_ones if pair[0] < entries.MOST_STORED]
        return -max(roomy)[1] if roomy else None

    def _move(self, now: float) -> Write | None:
        """Old entries go in at the target first; the next write of 00 leaves them out."""
        target, first = self._target(), self.objects[0]
        assert target is not None
        old = sorted((since, name) for name, since in first.since.items() if since + SETTLED <= now)
        names = [name for _, name in old[:MOVED_AT_ONCE] if self._where.get(name) == 0 and (0, name) not in self._stale]
        while names:
            texts = self.objects[target].texts | {name: first.texts[name] for name in names}
            packed = entries.pack(texts)
            if entries.fits(texts, packed):
                return Write(target, texts, packed)
            names = names[: len(names) // 2]
        for _, name in old:
            first.since[name] = now  # no room anywhere: looked at again in a minute
        return None

    # ---- what was read at the take-over

    def read(self, number: int, lease: Object, now: float) -> "dict[str, entries.Entry]":
        """Takes one object as it stands; the entries that are understood, by volume name."""
        try:
            texts = entries.unpack(annotation(lease, ENTRIES) or "{}")
        except entries.UnreadableError:
            self.objects[number] = Held(lease, {}, {}, sealed=True)
            return {}
        found = {name: entries.understood(text, self._driver) for name, text in texts.items()}
        held = Held(lease, texts, dict.fromkeys(texts, now), closed=None in found.values())
        self.objects[number] = held
        for name in texts:
            if name in self._where:  # a move that did not come to its end
                self._stale.add((number, name))
            else:
                self._where[name] = number
        return {name: entry for name, entry in found.items() if entry is not None}


def _closed(held: Held | None) -> bool:
    return held is not None and held.closed
