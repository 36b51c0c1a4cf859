"""One claim, one task: at most one task in the process works on what an id names (design.md 3, rule 1)."""

from collections.abc import Callable


class Exclusive:
    """Who is being worked on, across all loops. Whoever comes meanwhile is woken when the id is free again."""

    def __init__(self) -> None:
        self._busy: dict[str, dict[object, Callable[[], None]]] = {}

    def enter(self, what: str, token: object, wake: Callable[[], None]) -> bool:
        """False if the id is taken; `wake` is then called once it is left, once per `token` however often it asked."""
        waiting = self._busy.get(what)
        if waiting is None:
            self._busy[what] = {}
            return True
        waiting[token] = wake
        return False

    def leave(self, what: str) -> None:
        # All of them: the one that is handed out first takes the id, and the others wait for it again.
        for wake in self._busy.pop(what).values():
            wake()
