"""Keys by rank, the lowest first, each key once; equal ranks are first come, first served. A heap, O(log keys)."""

import heapq
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

K = TypeVar("K")

# So many stale entries are not worth making the heap anew.
SPARE = 100


class Ranking(Generic[K]):
    def __init__(self) -> None:
        self._entries: dict[K, tuple[Any, int, K]] = {}
        self._heap: list[tuple[Any, int, K]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def put(self, key: K, rank: Any) -> None:
        """Anew where the key has a rank already."""
        self._order += 1
        entry = self._entries[key] = rank, self._order, key
        heapq.heappush(self._heap, entry)
        # Keys that are moved again and again would fill the heap with stale entries.
        if len(self._heap) > 2 * len(self._entries) + SPARE:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def discard(self, key: K) -> None:
        self._entries.pop(key, None)

    def rank(self, key: K) -> Any:
        """None: the key has none."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def ranks(self) -> list[Any]:
        return [rank for rank, _, _ in self._entries.values()]

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def first(self) -> K | None:
        # A key that was moved leaves its old entry behind in the heap, where it is skipped.
        while self._heap and self._entries.get(self._heap[0][2]) is not self._heap[0]:
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None
