"""How old what is published is, and how soon a class may be asked for again as a whole (capacity.md 10 and 12)."""

from collections.abc import Collection

import msgspec
import trio

from csi_provisioner.capacity.objects import Pair


class Freshness(msgspec.Struct, eq=False):
    """`gap`: least seconds from one look at all pairs of a class to the next that failures may ask for."""

    gap: float
    _answered: dict[Pair, float] = msgspec.field(default_factory=dict)
    _looks: dict[str, float] = msgspec.field(default_factory=dict)

    def look(self, class_name: str) -> float | None:
        """A try has failed: after so many seconds all pairs are to be asked. None: they will be anyway."""
        now = trio.current_time()
        due = max(now, self._looks.get(class_name, now - self.gap) + self.gap)
        if self._looks.get(class_name, now) > now:
            return None
        self._looks[class_name] = due
        return due - now

    def answered(self, pair: Pair) -> None:
        self._answered[pair] = trio.current_time()

    def keep(self, pairs: Collection[Pair]) -> None:
        """These are wanted now; one that is new counts from here on."""
        now = trio.current_time()
        self._answered = {pair: self._answered.get(pair, now) for pair in pairs}
        names = {pair.class_name for pair in pairs}
        self._looks = {name: at for name, at in self._looks.items() if name in names}

    def age(self, pairs: Collection[Pair]) -> float:
        """Seconds since the driver said what the oldest of them says."""
        self.keep(pairs)
        return trio.current_time() - min(self._answered.values(), default=trio.current_time())
