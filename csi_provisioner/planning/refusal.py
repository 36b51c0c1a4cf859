"""How planning says no: `Refusal` and `Ignored`, and `Problem` for a no that is found early and said later.

The states are those of provision.md 3.2. Deletion knows no states (delete.md 7); its refusals carry `FINISHED`.
"""

from typing import TypeVar

import msgspec

from csi_provisioner.model.outcome import State

T = TypeVar("T")


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not a fault
    """This try cannot go on. `message` is for events and logs; `detail` is a reason that only the log may have."""

    def __init__(self, state: State, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.state = state
        self.message = message
        self.detail = detail


class Ignored(Exception):  # noqa: N818 - likewise
    """Not ours to do. `event` is the text of the one Normal event that some cases call for, `reason` is for the log."""

    def __init__(self, state: State, reason: str, event: str | None = None) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason
        self.event = event


class Problem(msgspec.Struct, frozen=True):
    """A refusal kept as data: read from a class once, raised for each claim when its step comes."""

    state: State
    message: str


def settled(value: T | Problem) -> T:
    if isinstance(value, Problem):
        raise Refusal(value.state, value.message)
    return value
