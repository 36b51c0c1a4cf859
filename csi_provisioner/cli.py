"""The program's entry: reads the command line, reports why it cannot start, or runs the supervisor (process.md 3)."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from socket import socket
from typing import NoReturn

from csi_provisioner import __version__, advice
from csi_provisioner.configuration import log_settings, read
from csi_provisioner.diagnostics.listen import address_of, listen
from csi_provisioner.fatal import Fatal
from csi_provisioner.flags import FLAGS, HELP
from csi_provisioner.logs import configure, escaped, log
from csi_provisioner.settings import LIVE_PATH, Settings

COMMANDS = frozenset({"check", "explain", "orphans"})
"""First words, or names under which the program is started: what a person asks (design.md 8)."""
USAGE = "Usage: csi-provisioner [flags]\n\nCreates and deletes the volumes of a CSI driver for PersistentVolumeClaims."


def main() -> int:
    """What `__main__` goes on with; returns the exit code."""
    # Until the supervisor has its own: what has been logged is written first.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: _end_at_once())
    try:
        # A log reader that hangs must not block the event loop: renewals of the lease depend on it.
        log.write_in_background()
        return _start()
    except Exception as error:
        return _ended_by(error)
    finally:
        log.flush()


def _ended_by(error: Exception) -> int:
    """What the machine does not give is a line with advice, all else a defect."""
    errors = [error]
    for each in errors:
        errors += each.exceptions if isinstance(each, ExceptionGroup) else ()
        if (missing := advice.shortage(each)) is not None:
            sys.unraisablehook = lambda _: None  # what is left half-made is of no interest now
            log.fatal("The process ends", err=str(each) or type(each).__name__, advice=missing)
            return 255
    log.exception("Unexpected error, the process ends")
    return 1


def _end_at_once() -> NoReturn:
    log.flush()
    os._exit(0)


def _start() -> int:
    program, *arguments = sys.argv
    named = os.path.basename(program)
    if named not in COMMANDS and arguments and arguments[0] in COMMANDS:
        named = arguments.pop(0)
    if named in COMMANDS:
        command = import_module(f"csi_provisioner.commands.{named}")
        gc.enable()
        return int(command.main(arguments, os.environ))
    try:
        values = FLAGS.parse(arguments, COMMANDS)
    except Fatal as error:
        _say(2, f"Usage: csi-provisioner [flags]\nSee csi-provisioner --help for all flags.\n\n{escaped(str(error))}\n")
        return error.code
    if values[HELP]:
        _say(2, FLAGS.help(USAGE))
        return 0
    try:
        logging = log_settings(values)
        configure(logging)
        settings = read(values, os.environ, logging)
    except Fatal as error:
        (log.fatal if error.code == 255 else log.error)("Cannot start", err=error)
        return error.code
    if settings is None:
        _say(1, f"{program} {__version__}\n")
        return 0
    return _run(settings)


def _say(descriptor: int, text: str) -> None:
    """Whether anybody reads it changes no exit code."""
    with suppress(OSError):
        os.write(descriptor, text.encode(errors="backslashreplace"))


def keeper_from_collector() -> Callable[[], None]:
    """To be called whenever the caches are whole: what is here then lives long, and the garbage collector need not look
    at it again and again. What was kept from it before goes first, an earlier leader term among it."""
    earlier = False

    def keep() -> None:
        nonlocal earlier
        if earlier:  # the first time there is only what the imports made, a tenth of the start to look at
            gc.unfreeze()
        earlier = True
        gc.collect()
        gc.freeze()

    return keep


def _run(settings: Settings) -> int:
    # Late, so that --version, --help and every refusal above answer at once.
    http = settings.http
    try:
        # Before anything that takes time: a probe then waits for its answer instead of being refused.
        listener = listen(http.endpoint, http.path) if http.endpoint else None
    except Fatal as error:
        log.fatal("Cannot start", err=error)
        return error.code
    import trio

    log.info("Version", version=__version__)
    if listener is not None:
        log.info("Listening", address=address_of(listener), path=http.path)
    return trio.run(_serve_and_work, settings, listener)


async def _serve_and_work(settings: Settings, listener: socket | None) -> int:
    """Probes are answered while the rest of the program is still loaded, which takes seconds under a small limit."""
    import trio

    async with trio.open_nursery() as serving:
        server = None
        if listener is not None:
            from csi_provisioner.diagnostics import health, pages
            from csi_provisioner.diagnostics.server import Server
            from csi_provisioner.model.state import State

            alive = pages.conditions_page(lambda: health.live(State()))
            server = Server({} if settings.http.legacy else {LIVE_PATH: alive}, more=True)
            serving.start_soon(server.serve, listener)
        try:
            supervisor = await trio.to_thread.run_sync(import_module, "csi_provisioner.supervisor")
            gc.freeze()
            gc.enable()
            code: int = await supervisor.run(settings, synced=keeper_from_collector(), server=server)
        except Exception as error:
            code = _ended_by(error)
        serving.cancel_scope.cancel()
    return code
