"""A data structure about time: keys and when they are due. It is handed `now`, so it needs no clock of its own.

The same key twice is one entry, at the earlier time (as in kube-rs and controller-runtime). Keys, never objects: what
woke a key up is not remembered.
"""

from collections.abc import Callable

from .ranking import Ranking


class Schedule:
    """Waiting keys, each with one due time in seconds."""

    def __init__(self) -> None:
        self._ranking = Ranking[str]()
        self._floors: dict[str, float] = {}

    def add(self, key: str, due: float) -> bool:
        """False if the key already waits for that time or an earlier one."""
        due = max(due, self._floors.get(key, due))
        known = self._ranking.rank(key)
        if known is not None and known <= due:
            return False
        self._ranking.put(key, due)
        return True

    def due(self, key: str) -> float | None:
        due: float | None = self._ranking.rank(key)
        return due

    def is_due(self, key: str, now: float) -> bool:
        due = self.due(key)
        return due is not None and due <= now

    def hold(self, key: str, until: float) -> None:
        """However often it is added, the key is not due before; ends when it is taken."""
        self._floors[key] = until
        known = self._ranking.rank(key)
        if known is not None and known < until:
            # `add` moves a key to an earlier time only.
            self._ranking.put(key, until)

    def pop(self, now: float) -> tuple[str, float] | None:
        """The key that is due longest, with its due time; it no longer waits."""
        key = self._ranking.first()
        if key is None or (due := self._ranking.rank(key)) > now:
            return None
        self._ranking.discard(key)
        self._floors.pop(key, None)
        return key, due

    def take(self, key: str, now: float) -> bool:
        """The key does not wait for its time any more; False: it is held."""
        if self._floors.get(key, now) > now:
            return False
        self._ranking.discard(key)
        self._floors.pop(key, None)
        return True

    def postpone(self, due: Callable[[str], float]) -> None:
        """Every waiting key is due anew, at the time that `due` gives for it."""
        waiting, self._ranking = list(self._ranking), Ranking()
        for key in waiting:
            self.add(key, due(key))

    def count_due(self, now: float) -> int:
        return sum(due <= now for due in self._ranking.ranks())

    def next_due(self) -> float | None:
        key = self._ranking.first()
        return None if key is None else self.due(key)
