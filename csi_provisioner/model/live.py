"""What a running provisioner answers to its own commands over its local socket (design.md 8): its settings, the driver,
who leads, and of one claim what only its memory has. All as of now; times are seconds, and ages where not said.

Fields are only added, and what an older version does not send has its default.
"""

import msgspec

from .state import DriverState, KeyState, LaneState, LeadershipState

VERSION = 1


class InJournal(msgspec.Struct, frozen=True):
    """The entry in the volume journal. `durable`: it is written; `uncertain`: an earlier call for the volume ended
    without a certain answer."""

    volume: str
    leases: str
    """Its Lease's name begins so."""
    durable: bool = False
    uncertain: bool = False
    of_earlier_leader: bool = False
    """An earlier leader began it, and whether that made the volume is still being found out."""


class LiveClaim(msgspec.Struct, frozen=True):
    """One claim, by its UID, as the leader knows it. Without anything in it: nothing is due, nothing runs."""

    uid: str
    cached: bool = False
    """The cache of claims has it."""
    work: KeyState = KeyState()
    """In the queue of claims."""
    calling: float | None = None
    """Age of the CreateVolume call that is in flight."""
    uncertain: bool = False
    """The driver was asked, and has not said for certain that it makes no volume any more."""
    annotations: dict[str, str] | None = None
    """Those of its annotations with which an earlier call asked that may still be at work; it is repeated with them."""
    infeasible: float | None = None
    """The driver refused the claim as it stands: seconds until it is asked again."""
    journal: InJournal | None = None
    unsaved: str = ""
    """The PersistentVolume that is made and not written yet."""
    unsaved_id: str = ""
    """Its volume in the storage backend."""
    saving: KeyState = KeyState()
    """In the queue of those."""
    written: str = ""
    """The PersistentVolume that is written, and that the claim does not show yet."""
    lane: LaneState | None = None
    """In which it waits for its turn, with claims of its class and kind of source."""


class Live(msgspec.Struct, frozen=True):
    version: int = VERSION
    program: str = ""
    """The program's own version."""
    pid: int = 0
    up: float = 0.0
    """For how long it runs."""
    flags: dict[str, str] = {}
    """All that `--NAME=VALUE` can say, as it is in force; URLs without user and password."""
    driver: DriverState = DriverState()
    leadership: LeadershipState = LeadershipState()
    works: bool = False
    """A term runs here, so that `claim` says something; one that stands by, or gives the lease back, knows nothing."""
    unsynced: tuple[str, ...] = ()
    """Kinds whose first list is not complete: until then nothing is worked on."""
    claim: LiveClaim | None = None
    """None: no claim was asked for, or nothing works here."""


class Asked(msgspec.Struct, frozen=True):
    """A question: what the process knows of itself, and of the claim with this UID."""

    version: int = VERSION
    claim: str = ""
