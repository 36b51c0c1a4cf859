"""What to ask the API server next, so that a store follows one kind of object: the decisions of a reflector.

A state is the question to ask next; `step` takes what came of it and answers with the next state. Pure: no clock, no
randomness, no I/O; the reflector asks and waits. Two passages mean something to the store:

- into `Listing()` without a token: gather a list from its start, throw away what was gathered before;
- from `Listing` to `Watching`: the gathered list is whole, and replaces what was there.

Theory of operation (process.md 5.3). The list is read in pages at one consistent version; a page token that has
expired (410) starts it again. The watch goes on from the last version it showed, as long as the server still has it; if
not (410) a fresh list is compared with what we have, so nothing that happened in between is lost. A watch that does not
get on, whatever the server says of it, is no longer asked for the same version: lists show what happens until one gets
on. Trouble of any kind never throws away what is known.
"""

import msgspec

from csi_provisioner.kube.store import version_number

HEALTHY = 5.0
"""Seconds a watch must have been open, and have ended in order, to have got on though it showed nothing new."""

LIST_GAP = 30.0
"""Seconds from one whole list to the next, the first of all apart: a proxy that ends every watch costs no more."""

FIRST_PAUSE = 0.8
LONGEST_PAUSE = 30.0
JITTER = 0.2
"""process.md 5.3: 0.8 s, doubling to 30 s; plus or minus a fifth, so that many reflectors do not come back as one."""


# ---- states: the question to ask next


class Listing(msgspec.Struct, frozen=True):
    """Ask for one page; the first has no token."""

    token: str | None = None
    failures: int = 0
    """Troubles in a row, also over changes of the state."""
    stuck: bool = False
    """The last watch that the server took did not get on."""


class Watching(msgspec.Struct, frozen=True):
    """Ask for everything that happened after `version`."""

    version: str
    failures: int = 0
    stuck: bool = False


State = Listing | Watching


# ---- what came of the question


class Page(msgspec.Struct, frozen=True):
    """One page of the list; `token` leads to the next."""

    version: str
    token: str | None = None


class Failed(msgspec.Struct, frozen=True):
    """The page was not given."""

    code: int
    """The HTTP status; 0 = no answer."""
    retry_after: float = 0.0


class Ended(msgspec.Struct, frozen=True):
    """The watch is over, or could not be opened."""

    version: str
    """The last version it showed; that of the question, if it showed nothing."""
    advanced: bool = False
    """It showed a version above that of the question."""
    lasted: float | None = None
    """Seconds it was open; None: it never was."""
    code: int | None = None
    """The HTTP status, or that of an ERROR event; 0: silence, no answer or none that can be understood; None: the
    server ended it in order, as it does after the time we asked for."""
    unknown: bool = False
    """The server says that it has not come as far as our version."""
    retry_after: float = 0.0

    @property
    def progress(self) -> bool:
        return self.advanced or (self.code is None and self.lasted is not None and self.lasted >= HEALTHY)

    @property
    def expired(self) -> bool:
        """No watch from this version will ever get on."""
        return self.code == 410 or self.unknown


Happened = Page | Failed | Ended


class Step(msgspec.Struct, frozen=True):
    state: State
    pause: bool = False
    """Wait `pause_after(state.failures)` before asking, and no less than `floor`, which the server asked for."""
    floor: float = 0.0


def step(state: State, happened: Happened) -> Step:
    match state, happened:
        case Listing(_, failures, stuck), Page(version, None):
            # Both stay until a watch gets on: neither a list that is expired when it is read, nor a proxy that ends
            # all watches may be asked in a circle.
            return Step(Watching(version, failures, stuck))
        case Listing(_, failures, stuck), Page(_, token):
            return Step(Listing(token, failures, stuck))
        case Listing(token, failures, stuck), Failed(code, floor):
            # A page is asked for again only if the server did not look at it; what it says about it starts anew.
            passing = code in (0, 429) or code >= 500
            return Step(Listing(token if passing else None, failures + 1, stuck), True, floor)
        case Watching(), Ended():
            return _after_watch(state, happened)
    raise AssertionError(f"{happened} cannot come of {state}")


def _after_watch(state: Watching, ended: Ended) -> Step:
    if ended.progress:
        if ended.expired:  # the version was good a moment ago: nothing is wrong but our age
            return Step(Listing())
        # One that goes back shows the same again: a server that always does is not asked in a circle.
        failed = ended.code is not None or is_above(state.version, ended.version)
        return Step(Watching(ended.version, int(failed)), failed, ended.retry_after)
    # Neither tells anything of the watch: nobody has looked at the question.
    postponed = ended.code in (429, 503) or (ended.code == 0 and ended.lasted is None)
    failures, stuck = state.failures + 1, state.stuck or not postponed
    if ended.expired or (state.stuck and not postponed):
        return Step(Listing(None, failures, stuck), True)
    return Step(Watching(ended.version, failures, stuck), True, ended.retry_after)


def is_above(version: str, asked: str) -> bool:
    """Versions that cannot be ordered only need to differ."""
    shown, known = version_number(version), version_number(asked)
    return shown > known if min(shown, known) >= 0 else version != asked


def pause_after(failures: int, draw: float) -> float:
    """Seconds to wait after so many failures in a row; `draw` is random in [0, 1)."""
    pause: float = min(FIRST_PAUSE * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE)
    return pause * (1 - JITTER + 2 * JITTER * draw)
