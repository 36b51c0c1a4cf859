"""What all commands share: their flags are read, their errors told, and their exit codes made, in one way."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TextIO, TypeVar

import msgspec
import trio

from csi_provisioner import configuration, flags
from csi_provisioner.fatal import Fatal
from csi_provisioner.flagset import TEXT, Flag, FlagSet, Values, flags_of
from csi_provisioner.kube.client import KubeError
from csi_provisioner.logs import escaped, log
from csi_provisioner.settings import HttpSettings, LogSettings, Settings

from . import daemon

# Flags that say nothing of how a command is to ask.
ITS_OWN = {*(flag.name for group in (HttpSettings, LogSettings) for flag in flags_of(group).values()),
           flags.METRICS_ADDRESS.name, flags.LOGGING_FORMAT.name}  # fmt: skip
OUTPUT = Flag("output", TEXT, "text", "text, or json for programs.")
VERSION = 1
"""Of what is printed with `-o json`."""


class Wanted(Protocol):
    @property
    def json(self) -> bool: ...


W = TypeVar("W", bound=Wanted)


class CannotAskError(Exception):
    """The text says what, and what to do."""


@dataclass(frozen=True)
class Command:
    name: str
    flags: FlagSet
    usage: str

    def read(
        self, arguments: Sequence[str], environ: Mapping[str, str], wanted: Callable[[Values], W]
    ) -> tuple[Settings, W] | int:
        """What is asked, or the exit code where that is all. `wanted` makes it of the command's own flags."""
        try:
            values = self.flags.parse(arguments)
            if values[flags.HELP]:
                show(self.flags.help(self.usage))
                return 0
            _check_output(values)
            asked = wanted(values)
            settings = configuration.read(values, environ, configuration.log_settings(values))
        except Fatal as error:
            return self._failed(str(error), 2)
        except CannotAskError as error:
            return self._failed(str(error), 1)
        return (settings, asked) if settings is not None else self._failed(f"--version is no flag of {self.name}", 2)

    def run(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        wanted: Callable[[Values], W],
        answer: Callable[[Settings, W], Awaitable[int]],
    ) -> int:
        asked = self.read(arguments, environ, wanted)
        if isinstance(asked, int):
            return asked
        for number in (signal.SIGTERM, signal.SIGINT):  # it ends like any tool
            signal.signal(number, signal.SIG_DFL)
        # The daemon's log lines would stand between the lines of the answer.
        log.quiet = not asked[0].logging.verbosity
        return trio.run(self.asked, arguments, environ, wanted, answer)

    async def asked(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        wanted: Callable[[Values], W],
        answer: Callable[[Settings, W], Awaitable[int]],
    ) -> int:
        """With the flags of the provisioner that runs here, if one does; those that are given win."""
        asked = self.read([*await self._taken(arguments, environ, wanted), *arguments], environ, wanted)
        return asked if isinstance(asked, int) else await self.answered(answer, *asked)

    async def _taken(
        self, arguments: Sequence[str], environ: Mapping[str, str], wanted: Callable[[Values], W]
    ) -> list[str]:
        asked = self.read(arguments, environ, wanted)
        if isinstance(asked, int):
            return []
        given = self.flags.parse(arguments)
        live = await daemon.ask({name: text for name, text in daemon.of(asked[0]).items() if name in given}, tell=say)
        if isinstance(live, str) or not live.flags:
            return []
        driver = live.driver.name or "a driver that it has not met yet"
        say(f"With the flags of the provisioner that runs here, process {live.pid}, for {driver}.")
        found = live.flags | ({"provisioner": live.driver.name} if live.driver.name else {})
        taken = {name for name in self.flags.known.keys() - ITS_OWN if name not in given}
        return [f"--{name}={text}" for name, text in found.items() if text and name in taken]

    async def answered(self, answer: Callable[[Settings, W], Awaitable[int]], settings: Settings, asked: W) -> int:
        code = 1
        try:
            code = await answer(settings, asked)
        # In groups, because the connections have tasks of their own.
        except* (CannotAskError, KubeError, Fatal) as group:
            cause = _leaf(group)
            code = self._failed(str(cause), 2 if isinstance(cause, Fatal) and cause.code == 2 else 1)
            if asked.json:
                say_json({"complete": False, "error": str(cause)})
        return code

    def _failed(self, text: str, code: int) -> int:
        say(text if code == 1 else f"{text}\nSee csi-provisioner {self.name} --help for all flags.")
        return code


def _check_output(values: Values) -> None:
    if values[OUTPUT] not in ("text", "json"):
        raise Fatal(f"--output={values[OUTPUT]}: it must be text or json", 2)


def say(text: str) -> None:
    with suppress(CannotAskError):
        _write(sys.stderr, "".join(f"{escaped(line)}\n" for line in text.split("\n")))


def show(text: str) -> None:
    """The answer. A program that gets none must not take it for one."""
    _write(sys.stdout, text)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        # What is left in it would fail again when the interpreter ends.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        if not isinstance(error, BrokenPipeError):  # else whoever reads, such as `head`, has enough
            raise CannotAskError(f"the answer cannot be written: {error.strerror}") from error


def say_json(shown: Mapping[str, object]) -> None:
    text = msgspec.json.format(msgspec.json.encode({"version": VERSION} | dict(shown)), indent=2)
    show(f"{text.decode()}\n")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, as people read them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _leaf(group: BaseExceptionGroup[Exception]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
