"""What the process knows of itself at one moment. Made in one place (`supervisor`), read by health checks, pages and
metrics. Times are seconds.
"""

from typing import NamedTuple

import msgspec


class Lane(NamedTuple):
    """What shares its turns at the workers: items of one class and one kind of source."""

    class_: str = ""
    source: str = ""


class LaneState(msgspec.Struct, frozen=True):
    lane: Lane
    calls: int = 0
    """To the driver, that run."""
    waiting: int = 0
    bound: int | None = None
    """The most calls side by side; None: as many as there are workers."""
    cuts: int | None = None
    """How often calls without an answer have lowered the bound; None: it does not adapt."""
    waited: float = 0.0
    """Seconds that its calls have waited, all together."""


class DriverState(msgspec.Struct, frozen=True):
    name: str = ""
    ready: bool = False
    away: float | None = None
    """For how long it has not answered; None: it answers, or was never met."""
    version: str = ""
    plugin: tuple[str, ...] = ()
    """Capabilities, by their names in the proto."""
    controller: tuple[str, ...] = ()
    topology: bool = False
    """Volumes have one: the driver has it, and its gate is on."""


class LeadershipState(msgspec.Struct, frozen=True):
    sought: bool = False
    """Without an election every process works."""
    leads: bool = False
    """The lease is held here; without an election: work has begun."""
    trouble: str = ""
    """What the election's own health check says."""
    identity: str = ""
    """Who we are in the Lease."""
    lease: str = ""
    """NAMESPACE/NAME."""
    holder: str = ""
    """Who is in it, as far as it was seen."""
    since: float | None = None
    """For how long that one has held it; without an election: for how long the work has gone on."""


class QueueState(msgspec.Struct, frozen=True):
    name: str
    due: int = 0
    """Keys that wait for a worker."""
    running: int = 0
    oldest: float = 0.0
    """How long the oldest of the due keys has been due."""
    stalled: float = 0.0
    """For how long it has taken nothing, although a key is due and nothing holds it back."""
    lanes: tuple[LaneState, ...] = ()
    """Those that have something, where its calls are in lanes."""


class RightsState(msgspec.Struct, frozen=True):
    known: bool = False
    missing: tuple[str, ...] = ()
    """Without these nothing works."""
    lacking: tuple[str, ...] = ()
    """Without these something does not work."""


class Tried(msgspec.Struct, frozen=True):
    """The last failure. `kind` is its class, by which repeats are merged: `refused` by planning, a gRPC code, an HTTP
    status of the API server."""

    kind: str
    text: str
    ago: float
    step: str = ""
    """Of `planning/steps`."""


class KeyState(msgspec.Struct, frozen=True):
    """One key of a queue."""

    due: float | None = None
    """Seconds until the next try, 0 or less: it waits for a worker since then. None: not in the queue."""
    running: float | None = None
    """Age of the try that runs."""
    tries: int = 0
    """Failures in a row."""
    last: Tried | None = None


class Failure(msgspec.Struct, frozen=True):
    queue: str
    key: str
    error: str
    ago: float


class Task(msgspec.Struct, frozen=True):
    """What is worked on. `name` is for people: NAMESPACE/NAME of a claim, the name of a volume."""

    queue: str
    name: str
    age: float
    calling: float | None = None
    """Age of the CreateVolume call that is in flight."""


class WaitingClaim(msgspec.Struct, frozen=True):
    """`reason`: of `planning/steps`; `age`: how long it has waited for nobody but us and the driver."""

    name: str
    class_: str
    reason: str
    age: float
    work: KeyState = KeyState()


class Published(msgspec.Struct, frozen=True):
    """One CSIStorageCapacity object. `segment`: its labels, as KEY=VALUE."""

    segment: str
    class_: str
    bytes: int = 0


class JournalState(msgspec.Struct, frozen=True):
    kept: bool = False
    off: str = ""
    """Why there is none just now."""
    entries: int = 0
    inherited: int = 0
    """Of those: begun by an earlier leader, whose end is still being found out."""


class Rate(msgspec.Struct, frozen=True):
    """How many there were in each of the last minutes, the last one now; less than an hour of them after a start."""

    what: str
    minutes: tuple[int, ...] = ()


class Details(msgspec.Struct, frozen=True):
    """What only people look at, made only when they do."""

    tasks: tuple[Task, ...] = ()
    """The longest first; not all of them."""
    waiting: tuple[WaitingClaim, ...] = ()
    """The oldest first; not all of them."""
    capacity: tuple[Published, ...] = ()
    published: int = 0
    """How many there are of those in all."""
    objects: tuple[tuple[str, int], ...] = ()
    """Kinds that are watched, and how many of each are in the cache."""
    journal: JournalState | None = None
    suspects: int = 0
    """Volumes of which this process said that they may have no owner."""
    rates: tuple[Rate, ...] = ()


class PendingState(msgspec.Struct, frozen=True):
    """Claims of ours without a bound volume. `class_`: "" where no such StorageClass exists."""

    class_: str
    reason: str
    """Of `planning/steps`."""
    count: int = 0
    oldest: float = 0.0
    """How long the oldest of them has waited for nobody but us and the driver."""


class State(msgspec.Struct, frozen=True):
    driver: DriverState = DriverState()
    leadership: LeadershipState = LeadershipState()
    unsynced: tuple[str, ...] = ()
    """Kinds whose first list is not complete."""
    queues: tuple[QueueState, ...] = ()
    failures: tuple[Failure, ...] = ()
    """The newest first."""
    rights: RightsState = RightsState()
    pending: tuple[PendingState, ...] = ()
    lags: tuple[tuple[str, float], ...] = ()
    """Kinds that are watched, and how long nothing has been heard of each, not even that nothing has changed."""
    ended: tuple[str, ...] = ()
    """Tasks that should run for ever and do not."""
    begun: bool = True
    """A term runs here: not while a leader takes the volume journal over, nor while it gives the lease back."""
    up: float = 0.0
    details: Details | None = None
