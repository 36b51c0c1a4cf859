"""What to ask the API server next, so that a store follows one kind of object: the decisions of a reflector.

A state is the question to ask next; `step` takes what came of it and answers with the next state. Pure: no clock, no
randomness, no I/O; the reflector asks and waits. Two passages mean something to the store:

- into `Listing()` without a token: gather a list from its start, throw away what was gathered before;
- from `Listing` to `Watching`: the gathered list is whole, swap it in.

Theory of operation (process.md 5.3). The list is read in pages at one consistent version; a page token that has
expired (410) starts it again. The watch goes on from the last version it showed, however it ended, as long as the
server still has it; if not (410) a fresh list is compared with what we have, so nothing that happened in between is
lost. Trouble of any other kind never throws away what is known.
"""

import msgspec

HEALTHY = 5.0
"""Seconds a watch must have been open to count as working; a shorter one that showed nothing is a failure, or a
server (or proxy) that closes at once would be asked in a circle."""

SILENT_WATCHES = 3
"""Watches in a row without a single line before we list anew. Each minute brings a bookmark on a sound connection, so
this heals a watch at a version that the server does not have: a cluster restored from a backup."""

FIRST_PAUSE = 0.8
LONGEST_PAUSE = 30.0
JITTER = 0.2
"""process.md 5.3: 0.8 s, doubling to 30 s; plus or minus a fifth, so that many reflectors do not come back as one."""


# ---- states: the question to ask next


class Listing(msgspec.Struct, frozen=True):
    """Ask for one page; the first has no token."""

    token: str | None = None
    failures: int = 0
    """Troubles in a row, in this state and the one before."""


class Watching(msgspec.Struct, frozen=True):
    """Ask for everything that happened after `version`."""

    version: str
    failures: int = 0
    silent: int = 0
    """Watches in a row that showed nothing until we gave them up."""


State = Listing | Watching


# ---- what came of the question


class Page(msgspec.Struct, frozen=True):
    """One page of the list; `token` leads to the next."""

    version: str
    token: str | None = None


class Closed(msgspec.Struct, frozen=True):
    """The server ended the watch, as it does after the time we asked for."""

    version: str
    """The last version it showed; the version it was opened at, if it showed nothing."""
    lasted: float
    """Seconds it was open."""


class Silent(msgspec.Struct, frozen=True):
    """Nothing came for so long that the connection must be dead: we gave the watch up."""

    version: str


class Failed(msgspec.Struct, frozen=True):
    """The page was not given."""

    code: int
    """The HTTP status; 0 = no answer."""


class Broken(msgspec.Struct, frozen=True):
    """The watch could not be opened, or ended with an error."""

    code: int
    """The HTTP status, or that of an ERROR event; 0 = no answer."""
    version: str
    lasted: float = 0.0
    """Both as in `Closed`; 0 seconds if it never was open."""
    unknown: bool = False
    """The server says that it has not come as far as our version."""


Happened = Page | Closed | Silent | Failed | Broken


class Step(msgspec.Struct, frozen=True):
    state: State
    pause: bool = False
    """Wait `pause_after(state.failures)` before asking."""


def step(state: State, happened: Happened) -> Step:
    match state, happened:
        case Listing(failures=failures), Page(version, None):
            # failures stay until the watch works: a list that is expired when it is read must not be read in a circle
            return Step(Watching(version, failures))
        case Listing(failures=failures), Page(_, token):
            return Step(Listing(token, failures))
        case Listing(), Failed(code):
            return Step(_list_again(state, code), pause=True)
        case Watching(), Closed(version, lasted):
            if version != state.version or lasted >= HEALTHY:
                return Step(Watching(version))
            return Step(msgspec.structs.replace(state, failures=state.failures + 1), pause=True)
        case Watching(), Silent(version):
            silent = 1 if version != state.version else state.silent + 1
            return Step(Listing() if silent >= SILENT_WATCHES else Watching(version, silent=silent))
        case Watching(), Broken():
            return _after_broken_watch(state, happened)
    raise AssertionError(f"{happened} cannot come of {state}")


def _list_again(state: Listing, code: int) -> Listing:
    """A page is asked for again only if the server did not look at it; anything it says about it starts anew."""
    passing = code in (0, 429) or code >= 500
    return Listing(state.token if passing else None, state.failures + 1)


def _after_broken_watch(state: Watching, broken: Broken) -> Step:
    worked = broken.version != state.version or broken.lasted >= HEALTHY
    if broken.code == 410 or broken.unknown:
        # The version was good when the watch worked: nothing is wrong but our age, so list at once.
        return Step(Listing()) if worked else Step(Listing(failures=state.failures + 1), pause=True)
    return Step(Watching(broken.version, 1 if worked else state.failures + 1, state.silent), pause=True)


def pause_after(failures: int, draw: float) -> float:
    """Seconds to wait after so many failures in a row; `draw` is random in [0, 1)."""
    pause: float = min(FIRST_PAUSE * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE)
    return pause * (1 - JITTER + 2 * JITTER * draw)
