"""The grammar of the command line: what a flag looks like, which values a kind takes, how help reads (process.md 1.1).

It accepts what the reference's parser accepts, which argparse cannot do: no abbreviations, booleans that take a value
only after `=`, positionals ignored anywhere, repeated flags. Which flags there are is in `settings` and `flags`.
"""

import math
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

import msgspec

from csi_provisioner import durations
from csi_provisioner.fatal import Fatal

T = TypeVar("T")
S = TypeVar("S")
Pairs = tuple[tuple[str, T], ...]


class Kind(msgspec.Struct, Generic[T], frozen=True):
    """A type of value. `parse` raises ValueError with the reason; `word` stands for the value in the help text."""

    word: str
    parse: Callable[[str], T]
    show: Callable[[T], str] = str
    bare: T | None = None
    """The value if none is given; None: the flag needs one."""
    accumulates: bool = False
    """Repeats add up (tuples) instead of replacing each other."""


class Flag(msgspec.Struct, Generic[T], frozen=True):
    name: str
    kind: Kind[T]
    default: T
    help: str
    environment: str = ""
    """The variable that is read when the flag is not given; for the help text."""
    warning: str = ""
    """A flag of an older line: said once when it is given. It is not shown in the help text."""
    target: str = ""
    """It sets this flag."""

    @property
    def spelled(self) -> str:
        return {"v": "-v, --v", "output": "-o, --output"}.get(self.name, f"--{self.name}")


class Values(msgspec.Struct):
    """What a command line says: `values[FLAG]`, and whether it says anything about it: `"name" in values`."""

    warnings: list[str] = msgspec.field(default_factory=list)
    words: list[str] = msgspec.field(default_factory=list)
    """Positionals."""
    _given: dict[str, Any] = msgspec.field(default_factory=dict)

    def __getitem__(self, flag: Flag[T]) -> T:
        return cast(T, self._given.get(flag.name, flag.default))

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def fill(self, group: Callable[..., S], **more: object) -> S:
        """A settings group from its flags; `more` gives its other fields, or replaces what a flag says."""
        return group(**{name: self[flag] for name, flag in flags_of(group).items()} | more)

    def take(self, flag: Flag[Any], text: str | None) -> None:
        """Note one occurrence of the flag; None: without a value."""
        if text is None:
            value = flag.kind.bare
        else:
            try:
                value = flag.kind.parse(text)
            except ValueError as error:
                raise Fatal(f'invalid argument "{text}" for "{flag.spelled}" flag: {error}', 2) from None
        # A renamed flag of an older line sets its new name.
        name = flag.target or flag.name
        self._given[name] = self._given.get(name, ()) + value if flag.kind.accumulates else value
        if flag.warning and flag.warning not in self.warnings:
            self.warnings.append(flag.warning)


class FlagSet:
    """The flags of a program in groups, for parsing and for help."""

    def __init__(self) -> None:
        self.known: dict[str, Flag[Any]] = {}
        self._groups: dict[str, list[Flag[Any]]] = {}

    def add(self, title: str, *parts: Flag[Any] | type) -> None:
        """Single flags, and all those of settings groups, under a title of the help text."""
        flags = [flag for part in parts for flag in ([part] if isinstance(part, Flag) else flags_of(part).values())]
        self.known |= {flag.name: flag for flag in flags}
        self._groups.setdefault(title, []).extend(flags)

    def extended(self, title: str, *parts: Flag[Any] | type) -> "FlagSet":
        """These flags and some more, whose group comes first in the help text."""
        made = FlagSet()
        made.add(title, *parts)
        made.known |= self.known
        made._groups |= self._groups
        return made

    def parse(self, arguments: Sequence[str], words: Collection[str] = ()) -> Values:
        """Read all arguments after the program's name, up to a `--help`. Raises Fatal, which names flag and value. Of
        the positionals only `words` matter, which would have had to come first."""
        values = Values()
        rest = iter(arguments)
        flags_end = False
        for argument in rest:
            flags_end = flags_end or argument == "--"
            if argument in words:
                others = (other for other in arguments if other is not argument and other != "--")
                right = " ".join([argument, *others])
                raise Fatal(f"{argument} has to be the first word: csi-provisioner {right}", 2)
            if flags_end or not argument.startswith("-") or argument == "-":
                if argument != "--":
                    values.words.append(argument)  # which the daemon ignores
                continue
            name, text = self._split(argument)
            flag = self.known[name]
            # A value may begin with "-", as in `--capacity-ownerref-level -1`.
            if text is None and flag.kind.bare is None:
                # Whatever it is, even if it looks like a flag: so does the parser of the reference.
                text = next(rest, None)
                if text is None:
                    raise Fatal(f"flag needs an argument: {argument}", 2)
            values.take(flag, text)
            # Errors after --help must not hide the help text.
            if name == "help":
                break
        return values

    def help(self, usage: str) -> str:
        return "\n".join([usage, *(line for group in self._groups for line in self._group_help(group))]) + "\n"

    def _split(self, argument: str) -> tuple[str, str | None]:
        """Name of a known flag, and the value if it is in the same argument."""
        if not argument.startswith("--"):
            return self._split_shorthand(argument)
        name, equals, text = argument[2:].partition("=")
        if not name or name.startswith("-"):
            raise Fatal(f"bad flag syntax: {argument}", 2)
        if name not in self.known:
            raise Fatal(f"unknown flag: --{name}{nearest(name, self._names(), prefix='--')}", 2)
        return name, text if equals else None

    def _split_shorthand(self, argument: str) -> tuple[str, str | None]:
        letter, text = argument[1], argument[2:]
        if letter == "h":
            return "help", None
        if letter == "o" and "output" in self.known:
            return "output", text.removeprefix("=") if text else None
        if letter == "v":
            return "v", text.removeprefix("=") if text else None
        long = argument[1:].partition("=")[0]
        raise Fatal(f"unknown shorthand flag: '{letter}' in {argument}{nearest(long, self._names(), prefix='--')}", 2)

    def _names(self) -> list[str]:
        return [flag.name for flag in self.known.values() if not flag.warning]

    def _group_help(self, group: str) -> Iterator[str]:
        shown = [flag for flag in self._groups[group] if not flag.warning]
        if not shown:
            return
        yield f"\n{group}:"
        for flag in shown:
            word = flag.kind.word
            yield f"  {flag.spelled}" + (f"[={word}]" if flag.kind.bare is not None else f" {word}")
            default = flag.kind.show(flag.default) if flag.default != () else ""
            remarks = [f"default {default}"] if default else []
            if flag.environment:
                remarks.append(f"environment {flag.environment}")
            text = flag.help + (f" ({'; '.join(remarks)})" if remarks else "")
            yield textwrap.fill(text, width=100, initial_indent=" " * 6, subsequent_indent=" " * 6)


def nearest(name: str, known: Sequence[str], *, prefix: str = "") -> str:
    """A hint to append to an error about an unknown name, empty if none is near. It never acts on the guess."""
    from difflib import get_close_matches  # only needed when the process refuses to start

    # 0.8 finds typing errors, but not just any flag of the same group.
    close = get_close_matches(name, known, n=1, cutoff=0.8)
    return f" (did you mean {prefix}{close[0]}?)" if close else ""


def _boolean(text: str) -> bool:
    # The words of Go, and no others: `yes` and `tRUE` are errors there too.
    if text in {"1", "t", "T", "TRUE", "true", "True"}:
        return True
    if text in {"0", "f", "F", "FALSE", "false", "False"}:
        return False
    raise ValueError("it must be true or false")


def _integer(text: str) -> int:
    if re.fullmatch(r"[+-]?0[0-7_]+", text):  # an octal number without its `o`, which Python refuses
        text = text.replace("0", "0o", 1)
    # int() also takes spaces and the digits of other scripts, which the reference refuses.
    try:
        number = int(text, 0) if text.isascii() and text == text.strip() else None
    except ValueError:
        number = None
    if number is None or not -(2**63) <= number < 2**63:
        raise ValueError("it must be an integer")
    return number


def _unsigned(text: str) -> int:
    if text.startswith(("+", "-")):
        raise ValueError("it must be an integer without a sign")
    return _integer(text)


def _verbosity(text: str) -> int:
    if not re.fullmatch("[0-9]+", text) or int(text) >= 2**31:
        raise ValueError("it must be a decimal number from 0 to 2147483647")
    return int(text)


def _rate(text: str) -> float | None:
    """Requests per second; None is no limit."""
    # float() takes more than the reference does, such as underscores.
    if not re.fullmatch(r"(?i)[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf|infinity|nan)", text):
        raise ValueError("it must be a number")
    return float(text) if 0 < float(text) < math.inf else None


def _quantity(text: str) -> str:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([numkKMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?", text):
        raise ValueError("it must be a quantity such as 512, 1K or 2Ki")
    return text


def _labels(text: str) -> Pairs[str]:
    # A colon, where all other flags of this kind have an equals sign: so it is in the reference.
    pairs = [item.split(":") for item in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("it must be key:value pairs, separated by commas")
    return tuple((key, value) for key, value in pairs)


def _switches(text: str) -> Pairs[bool]:
    found = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"malformed pair {item}, it must be name=true or name=false")
        try:
            found.append((name.strip(), _boolean(value.strip())))
        except ValueError as error:
            raise ValueError(f"value of {name.strip()}: {error}") from None
    return tuple(found)


def _texts(text: str) -> tuple[str, ...]:
    return tuple(item for item in (item.strip() for item in text.split(",")) if item)


def _joined(pairs: Pairs[Any], sign: str) -> str:
    return ",".join(f"{name}{sign}{value}" for name, value in pairs)


def max_calls(text: str) -> int:
    """Of a class, in the flag or in its annotation."""
    # Bounded, so that a slip of the hand is no bound that nobody notices.
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 10_000:
        raise ValueError("it must be a number from 0 to 10000")
    return int(text)


def _class_workers(text: str) -> Pairs[int]:
    found = []
    for item in filter(None, text.split(",")):
        name, _, number = item.partition("=")
        if not name:
            raise ValueError("it must be NAME=N pairs, separated by commas")
        found.append((name, max_calls(number)))
    return tuple(found)


def _modules(text: str) -> Pairs[int]:
    found = []
    for item in filter(None, text.split(",")):
        pattern, _, level = item.partition("=")
        if not pattern or not re.fullmatch("[0-9]{1,9}", level):
            raise ValueError("it must be pattern=N pairs, separated by commas")
        found.append((pattern, int(level)))
    return tuple(found)


TEXT = Kind("string", str)
BOOLEAN = Kind("bool", _boolean, lambda value: str(value).lower(), bare=True)
INTEGER = Kind("int", _integer)
UNSIGNED = Kind("uint", _unsigned)
VERBOSITY = Kind("level", _verbosity)
RATE = Kind("float", _rate, lambda value: f"{value or 0:g}")
DURATION = Kind("duration", durations.parse, durations.show)
QUANTITY = Kind("quantity", _quantity)
PAIRS = Kind("key:value,...", _labels, lambda pairs: _joined(pairs, ":"), accumulates=True)
SWITCHES = Kind("name=bool,...", _switches, accumulates=True)
TEXTS = Kind("text,...", _texts, ",".join, accumulates=True)
CLASS_WORKERS = Kind("name=N,...", _class_workers, lambda pairs: _joined(pairs, "="), accumulates=True)
MODULES = Kind("pattern=N,...", _modules, lambda pairs: _joined(pairs, "="))

# Of fields, by what a Struct calls them outside: it keeps nothing else of a field.
_MADE: dict[str, Flag[Any]] = {}
_KINDS: dict[type, Kind[Any]] = {bool: BOOLEAN, int: INTEGER, float: DURATION, str: TEXT}


def flag(name: str, default: T, help_: str, *, kind: Kind[Any] | None = None, environment: str = "") -> T:
    """A field of a settings group that a flag sets; its kind is that of the default's type, floats are durations."""
    _MADE[name] = Flag(name, kind or _KINDS[type(default)], default, help_, environment)
    return msgspec.field(default=default, name=name)


def flags_of(group: Any) -> dict[str, Flag[Any]]:
    """The fields of a settings group that flags set."""
    named = zip(group.__struct_fields__, group.__struct_encode_fields__, strict=True)
    return {field: _MADE[name] for field, name in named if name in _MADE}
