"""What the process is doing: its tasks and threads, and where its CPU time goes (process.md 7).

The paths are those of Go's pprof, where people look; the content is Python's. Stacks are shown without the values of
variables, which may be secrets. Loaded only with `--enable-pprof`.
"""

import cProfile
import math
import pstats
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from io import StringIO

import trio

from csi_provisioner.diagnostics.server import Page, Request, Response, in_turn
from csi_provisioner.logs import escaped
from csi_provisioner.settings import PROFILES_PATH

# Default length of a CPU profile, as in Go.
SECONDS = 30.0
# Longest profile: everything is slower while one is taken.
LONGEST = 600.0
# Functions shown in a profile; all further ones take hardly any time.
LINES = 100


def pages() -> Mapping[str, Page]:
    profiling = trio.Lock()

    async def cpu(request: Request) -> Response:
        if profiling.locked():
            return Response("a CPU profile is being taken already, there can only be one\n", 500)
        async with profiling:
            return Response(await _cpu_profile(request))

    return {
        PROFILES_PATH: _index,
        f"{PROFILES_PATH}cmdline": _command_line,
        f"{PROFILES_PATH}goroutine": in_turn(_running),
        f"{PROFILES_PATH}profile": cpu,
    }


async def _index(_request: Request) -> Response:
    return Response(
        f"{PROFILES_PATH}cmdline     the command line\n"
        f"{PROFILES_PATH}goroutine   tasks and threads, each with where it is\n"
        f"{PROFILES_PATH}profile     where CPU time goes, watched for {SECONDS:g} s or ?seconds=N\n"
    )


async def _command_line(_request: Request) -> Response:
    return Response("\0".join(map(escaped, sys.argv)))


async def _running(_request: Request) -> Response:
    return Response("\n".join(map(escaped, [*_tasks(), *_threads()])) + "\n")


def _tasks() -> Iterator[str]:
    """All tasks as a tree: children are indented below the task that opened their nursery."""
    root = trio.lowlevel.current_root_task()
    left = [(root, "")] if root is not None else []
    while left:
        task, indent = left.pop()
        yield f"{indent}{task.name}"
        for frame, line in task.iter_await_frames():
            yield f"{indent}    {frame.f_code.co_filename}:{line} {frame.f_code.co_qualname}"
        for nursery in task.child_nurseries:
            left += [(child, f"{indent}  ") for child in nursery.child_tasks]


def _threads() -> Iterator[str]:
    frames = sys._current_frames()
    for thread in threading.enumerate():
        yield f"thread {thread.name}"
        frame = frames.get(thread.ident or 0)
        for place in traceback.extract_stack(frame) if frame is not None else ():
            yield f"    {place.filename}:{place.lineno} {place.name}"


async def _cpu_profile(request: Request) -> str:
    """A profile of Trio's thread, which does all the work. It ends early if the client hangs up."""
    with cProfile.Profile() as profile, trio.move_on_after(_seconds(request.query.get("seconds", ""))):
        await request.gone()
    text = StringIO()
    pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(LINES)
    return text.getvalue()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return SECONDS
    return min(seconds, LONGEST) if seconds > 0 and not math.isnan(seconds) else SECONDS
