"""What became of one try at one key: the only answer a reconciler gives, and what may end a try early.

`State` is provision.md 3.2; `Outcome` is what `work/` acts on.
"""

from enum import Enum

import msgspec

from .state import Lane


# What counts is whether the driver may still make a volume that no PersistentVolume names yet.
class State(Enum):
    """What is known about the volume after a failed try (provision.md 3.2)."""

    FINISHED = "finished"
    """Nothing runs in the driver for this claim."""
    IN_BACKGROUND = "in background"
    """The driver may still be making the volume: keep asking, even when the claim is deleted."""
    NO_CHANGE = "no change"
    """This try said nothing about an earlier one."""
    RESCHEDULE = "reschedule"
    """Finished, and the scheduler must choose another node."""


class Attempt(msgspec.Struct, frozen=True):
    """Which try of its key this is, and what follows if it fails."""

    number: int = 1
    delay: float = 0.0
    """Seconds until the next one."""
    excused: bool = True
    """A call that is lost now with the driver's connection is no try."""
    lane: Lane = Lane()
    """In which its call waits for a worker: fixed when the key was handed out."""
    since: float = 0.0
    """When the key was due."""


class Done(msgspec.Struct, frozen=True):
    """Nothing left to do until something changes; the key's failure count is forgotten. `ignored`: it was not ours to
    do, which the metrics of claims and of volumes count in different ways (quirk Q7)."""

    ignored: bool = False
    state: State = State.FINISHED


class Retry(msgspec.Struct, frozen=True):
    """Failed: try again after the key's exponential delay, and not within `floor` seconds, whatever wakes the key: the
    server has asked for that. `reason` is for the log, without secrets.

    `lost`: the connection to the driver ended before its answer. That is no try and counts for nothing, unless it
    happened to the key's last call as well.
    """

    reason: str
    floor: float = 0.0
    lost: bool = False
    state: State = State.NO_CHANGE
    step: str = ""
    kind: str = ""
    """The class of failure, see `TryError`."""


class RetryAt(msgspec.Struct, frozen=True):
    """Try again at `due` (seconds on the clock of `trio.current_time`), not earlier or later by any failure count;
    `failed` says that this was a try, and counts as one."""

    due: float
    reason: str
    failed: bool = False
    state: State = State.NO_CHANGE
    step: str = ""
    kind: str = ""


class GiveUp(msgspec.Struct, frozen=True):
    """Failed, and another try would be of no use until somebody else has changed something, which wakes the key."""

    reason: str
    state: State = State.FINISHED


# Nothing else flows back from a reconciler, and no exception says how a try ended.
Outcome = Done | Retry | RetryAt | GiveUp
DONE = Done()


class TryError(Exception):
    """Ends a try: planning raises `Refusal`, the API client `KubeError`, the driver's channel `CallError`.

    The text is for people. What only some of them can say has its default here.
    """

    state = State.NO_CHANGE
    # All of planning's refusals are one class: their texts name objects, and repeats are to be merged.
    kind = "refused"
    """The class of failure by which events that repeat are merged."""
    detail = ""
    """For the log only: a claim's author must not learn of it."""
    ignored = False
    """It is not ours to do. `event` is the text of the one Normal event that some cases call for."""
    event = ""
    infeasible = False
    """The same request will be refused again: it is repeated slowly (provision.md 6)."""
    lost = False
    timed_out = False
    """It was a call to the driver that had no answer within its time."""
    retry_after: float | None = None
    step = ""
    """At which step of a claim it ended (planning/steps)."""

    def _cause(self) -> "TryError | None":
        # `raise ... from` names the cause; without it, it is the error that was being handled.
        cause = self.__cause__ or self.__context__
        return cause if isinstance(cause, TryError) else None

    @property
    def floor(self) -> float:
        """Seconds that the API server wants to be left alone, also where this was made of its answer."""
        cause = self._cause()
        return self.retry_after or (cause.floor if cause is not None else 0.0)

    @property
    def unavailable(self) -> bool:
        """The API server could just not be asked."""
        cause = self._cause()
        return cause is not None and cause.unavailable


def after(error: TryError, said: str = "", *, due: float | None = None, give_up: bool = False) -> Outcome:
    """The outcome of a try that `error` has ended. `said` is the text for the log if the error's own does not name the
    object, `due` the time of the next try if it does not follow from the number of failures."""
    said = (said or str(error)) + (f" ({error.detail})" if error.detail else "")
    # First, because what is not ours is no failure, whatever else its text says.
    if error.ignored:
        return Done(ignored=True, state=error.state)
    if give_up:
        return GiveUp(said, error.state)
    # A failure all the same, so it counts as a try.
    if due is not None:
        return RetryAt(due, said, failed=True, state=error.state, step=error.step, kind=error.kind)
    return Retry(said, error.floor, error.lost, error.state, error.step, error.kind)
