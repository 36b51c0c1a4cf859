"""What to ask the API server next, so that a store follows one kind of object: the decisions of a reflector.

A state is the question to ask next; what came of it leads to the next state. Pure: no clock, no randomness, no I/O; the
reflector asks and waits. Two passages mean something to the store:

- into `Listing()` without a token: gather a list from its start, throw away what was gathered before;
- from `Listing` to `Watching`: the gathered list is whole, and replaces what was there.

Theory of operation (process.md 5.3). The list is read in pages at one consistent version; a page token that has
expired (410) starts it again. The watch goes on from the last version it showed, as long as the server still has it; if
not (410) a fresh list is compared with what we have, so nothing that happened in between is lost. A watch that does not
get on, whatever the server says of it, is no longer asked for the same version: lists show what happens until one gets
on. Trouble of any kind never throws away what is known.
"""

import msgspec

from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.store import version_number

# Seconds a watch must have been open, and have ended in order, to have got on though it showed nothing new
HEALTHY = 5.0
# Seconds without a line after which a watch is given up, where there are bookmarks: one comes each minute
INACTIVITY = 70.0
# Seconds from one whole list to the next, the first of all apart: a proxy that ends every watch costs no more
LIST_GAP = 30.0
# Seconds between tries, doubling from the first to the longest, plus or minus a fifth, so that many reflectors do not
# come back as one (process.md 5.3)
FIRST_PAUSE, LONGEST_PAUSE, JITTER = 0.8, 30.0, 0.2
# Where nobody answers, failures count up to this: about 6 s. Nobody is spared by longer pauses, and claims wait for us
# once the server is back.
UNANSWERED = 4


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
Step = tuple[State, float | None]
"""What to ask next, and when: at once (None), or after `pause_after(state.failures)`, but no sooner than after so many
seconds, which the server asked for."""


# ---- what came of the question


class Ended(msgspec.Struct, frozen=True):
    """The watch is over, or could not be opened."""

    version: str
    """The last version it showed; that of the question, if it showed nothing."""
    advanced: bool = False
    """It showed a version above that of the question."""
    lasted: float | None = None
    """Seconds it was open; None: it never was."""
    error: KubeError | None = None
    """None: the server ended it in order, as it does after the time we asked for."""

    @property
    def progress(self) -> bool:
        return self.advanced or (self.error is None and self.lasted is not None and self.lasted >= HEALTHY)

    @property
    def expired(self) -> bool:
        """No watch from this version gets on: it is too old, or the server says that it has not come as far."""
        return self.error is not None and (self.error.code == 410 or "ResourceVersionTooLarge" in self.error.causes)


def after_page(state: Listing, version: str, token: str | None) -> State:
    """`token` leads to the next page; the list was read at `version`."""
    # Both counts stay until a watch gets on: neither a list that is expired when it is read, nor a proxy that ends all
    # watches may be asked in a circle.
    if token:
        return Listing(token, state.failures, state.stuck)
    return Watching(version, state.failures, state.stuck)


def after_no_page(state: Listing, error: KubeError) -> Step:
    # A page is asked for again only if the server did not look at it; what it says about it starts anew.
    passing = error.code in (0, 429) or error.code >= 500
    failures = _counted(state.failures, unanswered=error.code == 0)
    return Listing(state.token if passing else None, failures, state.stuck), error.floor


def after_watch(state: Watching, ended: Ended) -> Step:
    code, floor = (None, 0.0) if ended.error is None else (ended.error.code, ended.error.floor)
    if ended.progress:
        # The version was good a moment ago, and nothing is wrong but our age; or it is of another history than the
        # server's, as after a restore: a server shows nothing then until it has come as far, or what is older.
        goes_back = 0 <= version_number(ended.version) < version_number(state.version)
        silent = not ended.advanced and (ended.lasted or 0.0) >= INACTIVITY
        if ended.expired or goes_back or silent:
            return Listing(), None
        return Watching(ended.version, int(code is not None)), None if code is None else floor
    # Neither tells anything of the watch: nobody has looked at the question.
    unanswered = code == 0 and ended.lasted is None
    postponed = code in (429, 503) or unanswered
    failures, stuck = _counted(state.failures, unanswered=unanswered), state.stuck or not postponed
    # 404: there are no such objects here, or no longer in this version of the API.
    if ended.expired or code == 404 or (state.stuck and not postponed):
        # An old version is what an outage leaves behind, whose failures say nothing of the list: LIST_GAP is enough.
        return Listing(None, failures, stuck), None if ended.expired else 0.0
    return Watching(ended.version, failures, stuck), floor


def _counted(failures: int, *, unanswered: bool) -> int:
    return min(failures + 1, UNANSWERED) if unanswered else failures + 1


def is_above(version: str, asked: str) -> bool:
    """Versions that cannot be ordered only need to differ."""
    shown, known = version_number(version), version_number(asked)
    return shown > known if min(shown, known) >= 0 else version != asked


def pause_after(failures: int, draw: float) -> float:
    """Seconds to wait after so many failures in a row; `draw` is random in [0, 1)."""
    pause: float = min(FIRST_PAUSE * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE)
    return pause * (1 - JITTER + 2 * JITTER * draw)
