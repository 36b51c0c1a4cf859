"""Objects of a store by something that several of them share, so that nobody walks all of them to find a few."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Index(Generic[T]):
    """Fed by `saw`, a handler of the store. `group_of` tells where an object belongs; None: nobody looks for it."""

    def __init__(self, group_of: Callable[[T], str | None]) -> None:
        self._group_of = group_of
        self._groups: dict[str, dict[str, T]] = {}

    def of(self, group: str) -> Iterable[T]:
        return self._groups.get(group, {}).values()

    def saw(self, key: str, old: T | None, new: T | None) -> None:
        group = None if old is None else self._group_of(old)
        if group in self._groups:
            self._groups[group].pop(key, None)
            if not self._groups[group]:
                del self._groups[group]
        group = None if new is None else self._group_of(new)
        if new is not None and group is not None:
            self._groups.setdefault(group, {})[key] = new
