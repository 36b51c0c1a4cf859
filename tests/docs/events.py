"""Every event that the program can write, read from its code: `python -m tests.docs.events` prints the Warnings.

A text is what the code has of it, with `...` for what is only known when it is written. Where a text is handed to a
function, the texts of all its callers are told; where an event tells of what ended a try, all refusals are.
"""

import ast
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PRODUCT = ROOT / "csi_provisioner"
OPEN = "..."
# How deep a text is followed through names and functions, and how many of them one expression may have
DEEP, MANY = 6, 60
# An error of the API server's: what was asked, and the answer
ANSWERED = f"{OPEN}: {OPEN} ({OPEN})"
# A text with fewer letters of its own only hands another one on.
SAYING = 14
# Refusals that end a deletion; all others end a try for a claim.
DELETION = re.compile(r"cannot delete volume|waits to be deleted|is not deleted while|whether the node affinity")
GATE = "csi_provisioner.planning.gate"
ENDS_A_TRY = {"ProvisioningFailed": False, "VolumeFailedDelete": True}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Event:
    type: str
    reason: str
    text: str


@dataclass(frozen=True)
class Place:
    """Where an expression stands, and who has called its function: names mean something only there."""

    module: ast.Module
    function: Function | None = None
    called: "tuple[ast.Call, Place] | None" = None
    outer: Function | None = None


@cache
def modules() -> dict[str, ast.Module]:
    files = sorted(file for file in PRODUCT.rglob("*.py") if PRODUCT / "model" / "csi" not in file.parents)
    return {".".join(file.relative_to(ROOT).with_suffix("").parts): ast.parse(file.read_text()) for file in files}


@cache
def calls() -> dict[str, list[tuple[ast.Call, Place]]]:
    """By the last part of what is called."""
    found: dict[str, list[tuple[ast.Call, Place]]] = {}

    def walk(node: ast.AST, place: Place) -> None:
        if isinstance(node, Function):
            place = Place(place.module, node, outer=place.function)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found.setdefault(name, []).append((node, place))
        for child in ast.iter_child_nodes(node):
            walk(child, place)

    for module in modules().values():
        walk(module, Place(module))
    return found


def texts(node: ast.AST | None, place: Place, deep: int = DEEP) -> list[str]:
    """What an expression can be, the unknown left open."""
    if deep == 0:
        return [OPEN]
    match node:
        case ast.Constant(value=str(value)):
            return [value]
        case ast.JoinedStr(values=parts):
            return _joined([texts(part, place, deep) for part in parts])
        case ast.FormattedValue(value=inner, conversion=-1, format_spec=None):
            return [text or OPEN for text in texts(inner, place, deep)]
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return _joined([texts(left, place, deep), texts(right, place, deep)])
        case ast.IfExp(body=body, orelse=other):
            return texts(body, place, deep) + texts(other, place, deep)
        case ast.Call(func=ast.Attribute(value=template, attr="format")):
            return [re.sub(r"\{\w*\}", OPEN, text) for text in texts(template, place, deep - 1)]
        case ast.Call(func=ast.Name(id=name)) if (made := _functions(place.module).get(name)) is not None:
            returned = [one.value for one in ast.walk(made) if isinstance(one, ast.Return) and one.value is not None]
            inside = Place(place.module, made, (node, place))
            return _all(texts(one, inside, deep - 1) for one in returned)
        case ast.Call(func=ast.Name(id="str"), args=[ast.Name(id=name)]) if made := _class_of(name, place):
            return _of_error(*made, deep - 1)
        case ast.Name(id=name):
            return _of_name(name, node.lineno, place, deep - 1)
        case ast.Attribute(value=ast.Name(id=name), attr=constant) if (module := _imported(name, place)) is not None:
            return _of_name(constant, sys.maxsize, Place(module), deep - 1)
    return [OPEN]


def _all(found: Iterable[list[str]]) -> list[str]:
    return list(itertools.islice(dict.fromkeys(itertools.chain.from_iterable(found)), MANY)) or [OPEN]


def _joined(parts: Iterable[list[str]]) -> list[str]:
    found = dict.fromkeys("".join(text) for text in itertools.islice(itertools.product(*parts), MANY))
    return [re.sub(r"(\.\.\.){2,}", OPEN, text) for text in found]


@cache
def _functions(module: ast.Module) -> dict[str, Function]:
    return {node.name: node for node in ast.walk(module) if isinstance(node, Function)}


def _of_name(name: str, line: int, place: Place, deep: int) -> list[str]:
    """From its assignments above the line, its callers, its module, or another one."""
    if values := _assigned(name, line, place.function or place.module):
        return _all(texts(value, place, deep) for value in values)
    if place.function is None:
        home = _imported(name, place, whole=False)
        return [OPEN] if home is None else _of_name(name, sys.maxsize, Place(home), deep)
    parameters = [one.arg for one in place.function.args.args if one.arg != "self"]
    if name not in parameters:
        around = [Place(place.module)] if place.outer is None else callers(Place(place.module, place.outer))
        return _all(_of_name(name, sys.maxsize, one, deep) for one in around)
    if place.called is None:
        return [OPEN]
    call, caller = place.called
    given = next((one.value for one in call.keywords if one.arg == name), None)
    position = parameters.index(name)
    return texts(given or (call.args[position] if position < len(call.args) else None), caller, deep)


def _assigned(name: str, line: int, scope: Function | ast.Module) -> list[ast.expr]:
    """The values that it may have at the line: an assignment in a block that goes on to the line hides those above."""
    found: list[ast.expr] = []
    for node in [scope] if isinstance(scope, ast.Module) else ast.walk(scope):
        for block in (getattr(node, part, None) for part in ("body", "orelse", "finalbody")):
            for statement in block if isinstance(block, list) else ():
                if (
                    isinstance(statement, ast.Assign)
                    and statement.lineno < line
                    and any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)
                ):
                    if block[-1].end_lineno >= line:
                        found = [value for value in found if value.lineno > statement.lineno]
                    found.append(statement.value)
    return found


def _imported(name: str, place: Place, *, whole: bool = True) -> ast.Module | None:
    """The module that a name is, or that it comes from."""
    here = next(dotted for dotted, module in modules().items() if module is place.module)
    for node in place.module.body:
        if isinstance(node, ast.ImportFrom) and any((one.asname or one.name) == name for one in node.names):
            above = here.split(".")[: -node.level] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            return modules().get(f"{home}.{name}" if whole else home)
    return None


def _class_of(name: str, place: Place) -> tuple[ast.ClassDef, Place] | None:
    """Of an error: of a parameter, or one that is caught."""
    for node in ast.walk(place.function or place.module):
        match node:
            case ast.arg(arg=known, annotation=ast.Name(id=class_)) if known == name:
                break
            case ast.ExceptHandler(name=known, type=ast.Name(id=class_)) if known == name:
                break
    else:
        return None
    for module in modules().values():
        for node in module.body:
            if isinstance(node, ast.ClassDef) and node.name == class_:
                return node, Place(module)
    return None


def _of_error(made: ast.ClassDef, place: Place, deep: int) -> list[str]:
    """What it hands to its base class."""
    for function in made.body:
        for node in ast.walk(function) if isinstance(function, ast.FunctionDef) and function.name == "__init__" else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__":
                return texts(node.args[-1], Place(place.module, function), deep)
    return [OPEN]


@cache
def refusals() -> list[str]:
    """Texts that end a try as a failure, in the order of the code."""
    made: list[str] = []
    for call, place in calls()["Refusal"]:
        # What the gate turns back was not tried, and is in the log alone.
        if place.module is modules()[GATE] or (place.function is not None and place.function.name == "not_ours"):
            continue
        if len(call.args) > 1:
            for called in callers(place):
                made += texts(call.args[1], called)
    for call, place in calls()["Unplaced"]:
        prefix = ast.Name("PREFIX", lineno=call.lineno)
        made += texts(ast.BinOp(prefix, ast.Add(), call.args[0]), place)
    return [text for text in dict.fromkeys(made) if len(re.findall("[a-z]", text)) > SAYING]


def callers(place: Place) -> list[Place]:
    """The function once for each call of it."""
    if place.function is None:
        return [place]
    found = [one for one in calls().get(place.function.name, []) if _reaches(*one, place)]
    return [Place(place.module, place.function, one, place.outer) for one in found] or [place]


def _reaches(call: ast.Call, caller: Place, place: Place) -> bool:
    """Whether what is called is the place's function, and not another one of its name."""
    if caller.module is place.module:
        return True
    match call.func:
        case ast.Name(id=name):
            return _imported(name, caller, whole=False) is place.module
        case ast.Attribute(value=ast.Name(id=name)) if (module := _imported(name, caller)) is not None:
            return module is place.module
    return bool(place.function and place.function.args.args and place.function.args.args[0].arg == "self")


def recorded() -> Iterator[Event]:
    for call, place in calls()["record"]:
        values = call.args
        if len(values) > 3:
            for called in callers(place):
                for type_, reason, text in itertools.product(*(texts(value, called) for value in values[1:4])):
                    yield Event(type_, reason, text)


def events() -> list[Event]:
    found = []
    for event in recorded():
        deletes = ENDS_A_TRY.get(event.reason)
        if event.text.startswith(f"{OPEN} (attempt") and deletes is not None:
            ended = [ANSWERED, *(text for text in refusals() if bool(DELETION.search(text)) == deletes)]
            found += [Event(event.type, event.reason, text) for text in ended]
        else:
            found.append(event)
    return list(dict.fromkeys(found))


def warnings() -> list[str]:
    return [f"{event.reason}: {event.text}" for event in events() if event.type == "Warning"]


if __name__ == "__main__":
    print("\n".join(warnings()))
