"""A data structure about time: keys and when they are due. It is handed `now`, so it needs no clock of its own.

The same key twice is one entry, at the earlier time (as in kube-rs and controller-runtime). Keys, never objects: what
woke a key up is not remembered.
"""

import heapq
from collections.abc import Callable

Entry = tuple[float, int, str]

# So many stale entries are not worth making the heap anew.
SPARE = 100
# Of equal times what is to go first: more than keys are ever added.
FIRST = -(1 << 62)


class Schedule:
    """Waiting keys, each with one due time in seconds."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._floors: dict[str, float] = {}
        self._heap: list[Entry] = []
        # Makes equal times first come, first served.
        self._order = 0

    def add(self, key: str, due: float, *, first: bool = False) -> bool:
        """False if the key already waits for that time or an earlier one. `first`: before all that waits by now, unless
        it is held."""
        if first:
            due = min(due, self.next_due() or due)
        due = max(due, self._floors.get(key, due))
        self._order += 1
        entry = due, self._order + first * FIRST, key
        if key in self._entries and self._entries[key] < entry:
            return False
        self._entries[key] = entry
        heapq.heappush(self._heap, entry)
        # Keys that are moved again and again would fill the heap with stale entries.
        if len(self._heap) > 2 * len(self._entries) + SPARE:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)
        return True

    def due(self, key: str) -> float | None:
        return self._entries[key][0] if key in self._entries else None

    def is_due(self, key: str, now: float) -> bool:
        return key in self._entries and self._entries[key][0] <= now

    def hold(self, key: str, until: float) -> None:
        """However often it is added, the key is not due before; ends when it is taken."""
        self._floors[key] = until
        if key in self._entries and self._entries[key][0] < until:
            # `add` moves a key to an earlier time only.
            del self._entries[key]
            self.add(key, until)

    def pop(self, now: float) -> tuple[str, float] | None:
        """The key that is due longest, with its due time; it no longer waits."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._entries[key]
        self._floors.pop(key, None)
        return key, due

    def postpone(self, due: Callable[[str], float]) -> None:
        """Every waiting key is due anew, at the time that `due` gives for it."""
        waiting = list(self._entries)
        self._entries.clear()
        self._heap.clear()
        for key in waiting:
            self.add(key, due(key))

    def count_due(self, now: float) -> int:
        return sum(due <= now for due, _, _ in self._entries.values())

    def next_due(self) -> float | None:
        # A key that was moved leaves its old entry behind in the heap, where it is skipped.
        while self._heap and self._entries.get(self._heap[0][2]) is not self._heap[0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
