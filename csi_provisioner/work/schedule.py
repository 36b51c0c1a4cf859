"""A data structure about time: keys and when they are due. It is handed `now`, so it needs no clock of its own.

The same key twice is one entry, at the earlier time (as in kube-rs and controller-runtime). Keys, never objects: what
woke a key up is not remembered.
"""

import heapq
from collections.abc import Callable


class Schedule:
    """Waiting keys, each with one due time in seconds."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._floors: dict[str, float] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = 0  # first come, first served among equal times

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: str) -> bool:
        return key in self._due

    def add(self, key: str, due: float) -> bool:
        """False if the key already waits for that time or an earlier one."""
        due = max(due, self._floors.get(key, due))
        known = self._due.get(key)
        if known is not None and known <= due:
            return False
        self._due[key] = due
        self._order += 1
        heapq.heappush(self._heap, (due, self._order, key))
        return True

    def hold(self, key: str, until: float) -> None:
        """However often it is added, the key is not due before; ends when it is taken."""
        self._floors[key] = until
        if self._due.get(key, until) < until:
            del self._due[key]
            self.add(key, until)

    def pop(self, now: float) -> tuple[str, float] | None:
        """The key that is due longest, with its due time; it no longer waits."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._floors.pop(key, None)
        return key, due

    def postpone(self, due: Callable[[], float]) -> None:
        """Every waiting key is due anew, at the time that `due` gives for it."""
        waiting = list(self._due)
        self._due.clear()
        self._heap.clear()
        for key in waiting:
            self.add(key, due())

    def count_due(self, now: float) -> int:
        return sum(due <= now for due in self._due.values())

    def next_due(self) -> float | None:
        # an entry that was moved to an earlier time leaves its later self behind in the heap
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
