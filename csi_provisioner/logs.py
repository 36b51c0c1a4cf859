"""The log: klog's text lines or JSON on stderr, on top of loguru (process.md 9.1).

`log` is what every layer uses. A call below the wanted verbosity costs one comparison, so callers need no guard unless
the arguments themselves are dear to make (`v_enabled`). Values are printed as they are given, but for controls
(`escaped`): what may not be read by everybody (secrets, requests) must not come here. Nothing here decides what is
logged.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from loguru import _better_exceptions, logger

from csi_provisioner.outlet import Outlet
from csi_provisioner.settings import LogSettings

if TYPE_CHECKING:
    from loguru import Message, Record

_LETTERS = {"INFO": "I", "WARNING": "W", "ERROR": "E", "CRITICAL": "F"}
# Frames between loguru and the line that logs: the public method and `_emit`.
_DEPTH = 2
# Lines of this verbosity and above are dropped first when the log's reader is too slow.
MINOR = 2
# Limit for the last lines when the process ends: a reader that hangs must not keep it from ending.
LAST_LINES = 2.0
# Characters that change the direction of text: a terminal would show a line other than it is.
_BIDIRECTIONAL = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = {code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *_BIDIRECTIONAL)} | {
    ord("\t"): "\\t",
    ord("\n"): "\\n",
    ord("\r"): "\\r",
}


def escaped(text: str) -> str:
    """Makes text of others safe: it could fake log lines, control the terminal or reverse the reading direction."""
    return text if text.isprintable() else text.translate(_CONTROLS)


_ABOUT: ContextVar[dict[str, object]] = ContextVar("about", default={})  # noqa: B039 - never changed in place


class Log:
    """Structured log: a message that never varies, and keys. Made once below, as `log`."""

    def __init__(self) -> None:
        self._verbosity = 0
        self._json = False
        self._level_of_file: Callable[[str], int] | None = None
        self._configured = False
        self._outlet: Outlet | None = None
        self.quiet = False
        """Only what is wrong is said: for a command, whose answer people read on a terminal."""

    def configure(self, settings: LogSettings) -> None:
        """Take over loguru's only sink, and let warnings of the libraries' own logging through. Called again it changes
        what is written, which tests do."""
        self._verbosity = settings.verbosity
        self._level_of_file = _file_levels(settings.modules) if settings.modules else None
        self._json = settings.json
        if not self._configured:  # once: to add a sink takes 12 ms
            self._configured = True
            # It looks for all folders of libraries, which takes a third of that, to colour tracebacks, which we do not.
            _better_exceptions.ExceptionFormatter._get_lib_dirs = staticmethod(list)  # type: ignore[method-assign]
            logger.remove()
            # Filtering is ours, by verbosity; the format is empty because the sink renders the record itself.
            logger.add(self._sink, level=0, format=lambda _record: "", colorize=False, backtrace=False, diagnose=False)
            logging.getLogger().addHandler(_FromLibraries(logging.WARNING))

    def _sink(self, message: "Message") -> None:
        line = (_json_line if self._json else _text_line)(message.record)
        if self._outlet is None:
            sys.stderr.write(line)
        else:
            self._outlet.write(line, minor=(message.record["extra"]["v"] or 0) >= MINOR)

    def write_in_background(self) -> None:
        """From here on nobody waits for the log's reader. For a whole process, which has to `flush` at its end."""
        with suppress(AttributeError, OSError):  # stderr is no file, so nothing can block
            self._outlet = Outlet(sys.stderr.fileno(), self._tell_dropped)

    def _tell_dropped(self, lines: int) -> None:
        self.warning("Log lines were dropped: they were not read in time", lines=lines)

    def flush(self) -> None:
        if self._outlet is not None:
            self._outlet.flush(LAST_LINES)

    def about(self, **keys: object) -> None:
        """Every further line of this task has these keys too: on whose behalf it works."""
        _ABOUT.set(keys)

    def v_enabled(self, level: int) -> bool:
        """Whether `v(level, …)` from the calling file prints."""
        return level <= self._verbosity or self._raised(level)

    def v(self, level: int, message: str, /, **keys: object) -> None:
        if level <= self._verbosity or self._raised(level):
            self._emit("INFO", message, keys, level)

    def info(self, message: str, /, **keys: object) -> None:
        self._emit("INFO", message, keys, 0)

    def warning(self, message: str, /, **keys: object) -> None:
        """With `err` it is a failure, which like an error has no verbosity in JSON."""
        self._emit("WARNING", message, keys, None if "err" in keys else 0)

    def error(self, message: str, /, **keys: object) -> None:
        self._emit("ERROR", message, keys)

    def exception(self, message: str, /, **keys: object) -> None:
        """An error with the traceback of the exception that is being handled: for defects, not for failures."""
        self._emit("ERROR", message, keys, traceback=True)

    def fatal(self, message: str, /, **keys: object) -> None:
        """Severity F. Only logs; the caller must exit with 255."""
        self._emit("CRITICAL", message, keys)
        self.flush()

    def _raised(self, level: int) -> bool:
        """Whether `--vmodule` raises the file of the caller's caller to `level`."""
        if self._level_of_file is None:
            return False
        return level <= self._level_of_file(sys._getframe(_DEPTH).f_code.co_filename)

    def _emit(
        self, severity: str, message: str, keys: dict[str, object], v: int | None = None, traceback: bool = False
    ) -> None:
        if not self._configured:
            self.configure(LogSettings())
        if self.quiet and severity == "INFO":
            return
        # Keys of this line win over those of the task.
        identified = dict(with_uids(_ABOUT.get() | keys))
        write = logger.opt(depth=_DEPTH, exception=True) if traceback else _PLAIN
        write.bind(v=v, keys=identified).log(severity, message)


_PLAIN = logger.opt(depth=_DEPTH, raw=True)
log = Log()
configure = log.configure


class _FromLibraries(logging.Handler):
    """Warnings and errors of libraries in our format. Never lower: an HTTP client's debug log may hold credentials."""

    def emit(self, record: logging.LogRecord) -> None:
        write = log.error if record.levelno >= logging.ERROR else log.warning
        # Without the traceback: the error alone tells what happened in a library.
        keys: dict[str, object] = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            keys["err"] = repr(record.exc_info[1])
        write(record.getMessage(), **keys)


def _file_levels(modules: tuple[tuple[str, int], ...]) -> Callable[[str], int]:
    """Level of a source file: the first pattern that fits. One with a slash is matched against the whole path."""

    @cache  # bounded by the number of source files
    def level_of(filename: str) -> int:
        path = PurePath(filename).with_suffix("")
        for pattern, level in modules:
            if fnmatchcase(str(path) if "/" in pattern else path.name, pattern):
                return level
        return -1

    return level_of


def _text_line(record: "Record") -> str:
    time = record["time"]
    second = _second(time.month, time.day, time.hour, time.minute, time.second)
    head = (
        f"{_LETTERS[record['level'].name]}{second}.{time.microsecond:06} {os.getpid():>7} "
        f"{record['file'].name}:{record['line']}] {_quoted(record['message'])}"
    )
    keys = "".join(f" {name}={_text(value)}" for name, value in record["extra"]["keys"].items())
    return f"{escaped(head + keys)}\n{_traceback(record)}"


@lru_cache(maxsize=1)  # a burst writes many lines in one second
def _second(month: int, day: int, hour: int, minute: int, second: int) -> str:
    return f"{month:02}{day:02} {hour:02}:{minute:02}:{second:02}"


def _json_line(record: "Record") -> str:
    extra = record["extra"]
    line: dict[str, object] = {
        "ts": round(record["time"].timestamp() * 1000, 3),
        "caller": f"{record['file'].name}:{record['line']}",
        "msg": record["message"],
    }
    if extra["v"] is not None:
        line["v"] = extra["v"]
    line.update(extra["keys"])
    if (caught := record["exception"]) is not None:
        line.setdefault("err", repr(caught.value))
        line["stacktrace"] = _traceback(record)
    return escaped(json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=_plain)) + "\n"


def _traceback(record: "Record") -> str:
    caught = record["exception"]
    if caught is None:
        return ""
    import traceback  # a defect is rare, and the module is not free

    pieces = traceback.format_exception(caught.type, caught.value, caught.traceback)
    return "".join(_traced(piece.removesuffix("\n")) for piece in pieces)


def _traced(piece: str) -> str:
    """One piece of a traceback, without forged lines."""
    # Line breaks of the traceback itself stay: source lines, and the text that connects two errors. Those in an error's
    # own text are escaped.
    several = piece.lstrip(" |+-").startswith(('File "', "\n"))
    return "".join(f"{escaped(line)}\n" for line in (piece.split("\n") if several else [piece]))


def _text(value: object) -> str:
    if type(value) is str:  # most are
        return _quoted(value)
    # Before int: a bool is one.
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return _quoted(_plain(value))


def _plain(value: object) -> str:
    """An object of the cluster is its name and nothing else: it may be a Secret."""
    named = _named(value)
    if named is None:
        return str(value)
    namespace = getattr(named, "namespace", None)
    return f"{namespace}/{named.name}" if namespace else str(named.name)


def with_uids(keys: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Adds each object's UID beside its name, because a later object can have the same name."""
    for name, value in keys.items():
        named = None if isinstance(value, str) else _named(value)  # most are text
        yield name, value if named is None else _plain(value)
        if uid := getattr(named, "uid", None):
            yield f"{name}UID", uid


def _named(value: object) -> Any:
    """The metadata of an object, or a reference to one, which has a name too; None if it is neither."""
    return getattr(value, "metadata", None) or (value if hasattr(value, "uid") else None)


def _quoted(text: str) -> str:
    if text.isprintable() and '"' not in text and "\\" not in text:  # nearly all: JSON has nothing to escape in it
        return f'"{text}"'
    return json.dumps(text, ensure_ascii=False)
