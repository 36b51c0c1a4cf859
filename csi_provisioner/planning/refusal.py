"""How planning says no. The states are those of provision.md 3.2; deletion knows none (delete.md 7), its refusals carry
`FINISHED`."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from csi_provisioner.model.outcome import State, TryError

T = TypeVar("T")

_SHOWN = 5  # so many of a long list: an event holds 1,024 characters


class Refusal(TryError):  # noqa: N818 - a refusal is an answer, not a fault
    """This try cannot go on. `message` is for events and logs."""

    def __init__(self, state: State, message: str, detail: str = "", step: str = "") -> None:
        super().__init__(message)
        self.state = state
        self.message = message
        self.detail = detail
        self.step = step


def not_ours(reason: str, event: str = "", step: str = "") -> Refusal:
    """No failure: there is nothing for us to do."""
    refusal = Refusal(State.FINISHED, reason, step=step)
    refusal.ignored, refusal.event = True, event
    return refusal


def accepted(value: T | Refusal) -> T:
    """The value, unless a refusal was kept in its place: what is wrong with a class is found once, and said for each
    claim when its step comes."""
    if isinstance(value, Refusal):
        # A new one, because an exception that is raised again and again keeps all frames it has passed through.
        # The kept one belongs to the class and is raised for many claims at once.
        raise Refusal(value.state, value.message)
    return value


def some(words: Sequence[T], text: Callable[[T], str] = str) -> str:
    """The first few of a list for people, and how many more there are."""
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(text(word) for word in words[:_SHOWN]) + more
