"""How many calls of a class may run side by side, creations and deletions of all its lanes together (design.md 7)."""

from collections import Counter
from collections.abc import Callable, Mapping


class StoppedError(Exception):
    """The class may have no calls now. The text is for people."""

    def __init__(self, class_: str) -> None:
        super().__init__(
            f"StorageClass {class_!r} may have no calls to the driver now: --class-workers or its annotation "
            "csi-provisioner.io/max-concurrent-calls is 0; it goes on once that is changed"
        )


class Bounds:
    """`given` by the flag, and by the annotations of classes; the smaller wins. Those in `changed` are told of a class
    that may have other calls than before. One that does not exist (any more) cannot be told to go on: 0 bounds it
    not."""

    def __init__(self, given: Mapping[str, int], exists: Callable[[str], bool] = lambda class_: True) -> None:
        self._given = given
        self._exists = exists
        self._annotated: dict[str, int] = {}
        self._running = Counter[str]()
        self.changed: list[Callable[[str], None]] = []

    def of(self, class_: str) -> int | None:
        if not self._given and not self._annotated:
            return None
        bounds = [bounds[class_] for bounds in (self._given, self._annotated) if class_ in bounds]
        if 0 in bounds and not self._exists(class_):
            bounds = [bound for bound in bounds if bound]
        return min(bounds, default=None)

    def annotate(self, class_: str, bound: int | None) -> None:
        before = self.of(class_)
        if bound is None:
            self._annotated.pop(class_, None)
        else:
            self._annotated[class_] = bound
        if self.of(class_) != before:
            self._tell(class_)

    def came_or_went(self, class_: str) -> None:
        if 0 in (self._given.get(class_), self._annotated.get(class_)):
            self._tell(class_)

    def has_room(self, class_: str) -> bool:
        bound = self.of(class_)
        return bound is None or self._running[class_] < bound

    def begin(self, class_: str) -> None:
        self._running[class_] += 1

    def end(self, class_: str, mine: Callable[[str], None]) -> None:
        """`mine`: whose call it was; the others may have the room before."""
        self._running[class_] -= 1
        if not self._running[class_]:
            del self._running[class_]
        if self.of(class_) is not None:
            self._tell(class_, mine)

    def _tell(self, class_: str, last: Callable[[str], None] | None = None) -> None:
        for tell in sorted(self.changed, key=lambda tell: tell == last):
            tell(class_)
