"""What became of one try at one key: the only answer a reconciler gives, and the state a failed provisioning leaves.

`State` is provision.md 3.2; `Outcome` is what `work/` acts on.
"""

from enum import Enum

import msgspec


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


class Done(msgspec.Struct, frozen=True):
    """Nothing left to do until something changes; the key's failure count is forgotten."""


class Retry(msgspec.Struct, frozen=True):
    """Failed: try again after the key's exponential delay, and not within `floor` seconds, whatever wakes the key: the
    server has asked for that. `error` is for the log, without secrets.

    `lost`: the connection to the driver ended before its answer. That is no try and counts for nothing, unless it
    happened to the key's last call as well.
    """

    error: str
    floor: float = 0.0
    lost: bool = False


class RetryAt(msgspec.Struct, frozen=True):
    """Try again at `due` (seconds on the clock of `trio.current_time`), not earlier or later by any failure count;
    `failed` says that this was a try, and counts as one."""

    due: float
    reason: str
    failed: bool = False


Outcome = Done | Retry | RetryAt
DONE = Done()
