"""The tables of docs/reference, made from the code: `python -m tests.docs.reference` writes them into their pages.

A page has `<!-- made: NAME -->` where a table begins and `<!-- end -->` where it ends; all around them is by hand.
Names come from the code; the words beside them are in `words` where the code has none.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from csi_provisioner import flags, gates
from csi_provisioner.commands import check, explain, orphans
from csi_provisioner.flagset import Flag
from csi_provisioner.planning import rights, templates, wellknown
from csi_provisioner.planning.explanation import Status
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.settings import CapacitySettings, ElectionSettings, Gates, Settings
from tests.docs import events, words

PAGES = events.ROOT / "docs" / "reference"
MADE = re.compile(r"(?P<begin><!-- made: (?P<name>\S+) -->\n).*?(?P<end>^<!-- end -->$)", re.DOTALL | re.MULTILINE)

Table = Iterator[Sequence[object]]


def code(name: object) -> str:
    return f"`{name}`"


# ---- flags


def flag_rows(known: Iterable[Flag[Any]]) -> Table:
    yield "Flag", "Value", "Default", "What"
    for flag in known:
        default = flag.kind.show(flag.default) if flag.default != () else ""
        also = f" Environment: `{flag.environment}`." if flag.environment else ""
        optional = "" if flag.kind.bare is None else " (optional)"
        yield code(flag.spelled), flag.kind.word + optional, code(default) if default else "", flag.help + also


def all_flags() -> str:
    groups = {title: [flag for flag in known if not flag.warning] for title, known in flags.FLAGS._groups.items()}
    return "\n".join(f"### {title}\n\n{table(flag_rows(known))}" for title, known in groups.items() if known)


def command_flags() -> str:
    return "\n".join(
        f"### {command.COMMAND.name}\n\n{table(flag_rows(next(iter(command.FLAGS._groups.values()))))}"
        for command in (check, explain, orphans)
    )


def old_flags() -> Table:
    yield "Flag", "What becomes of it"
    for flag in flags.FLAGS.known.values():
        if flag.warning:
            yield code(flag.spelled), flag.warning.partition(": ")[2]


def feature_gates() -> Table:
    yield "Gate", "Default", "What it switches"
    for name in gates._KNOWN:
        yield code(name), "on" if name in gates._AVAILABLE else "off", words.GATES[name]


# ---- environment and exit codes


def environment() -> Table:
    yield "Variable", "Used for", "What wins over it"
    for name, (use, winner) in words.ENVIRONMENT.items():
        yield code(name), use, winner


def variables() -> set[str]:
    """What the code asks the environment for."""
    found = set()
    for module in events.modules().values():
        for node in ast.walk(module):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="environ" | "environment"), attr="get")):
                    found |= set(events.texts(node.args[0], events.Place(module)))
                case ast.Call(func=ast.Name(id="_variable")):
                    found |= set(events.texts(node.args[1], events.Place(module)))
                case ast.Subscript(value=ast.Name(id="environ" | "environment"), slice=ast.Constant(value=str(name))):
                    found.add(name)
                case ast.keyword(arg="environment", value=ast.Constant(value=str(name))):
                    found.add(name)
    return found - {events.OPEN, ""}


def exit_codes() -> Table:
    yield "Code", "Cause"
    yield from words.CODES.items()


def last_words() -> Table:
    """What each code is said with."""
    yield "Code", "It says"
    said = {
        (number, re.sub(r"\s+", " ", text))
        for call, place in events.calls()["Fatal"]
        if len(call.args) == 2 and not _of_command(place)
        for number in numbers(call.args[1])
        for called in events.callers(place)
        for text in events.texts(call.args[0], called)
        if re.search("[a-z]{3}", text)
    }
    for number, text in sorted(said):
        yield number, code(text)


def _of_command(place: events.Place) -> bool:
    return any(place.module is module for name, module in events.modules().items() if ".commands." in name)


def numbers(node: ast.expr) -> list[int]:
    return [one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, int)]


def command_codes() -> Table:
    yield "Command", "Code", "What"
    yield "all", 0, "what was asked is answered: nothing is missing, none is left over, the claim is bound or worked on"
    yield "all", 1, "it could not be asked"
    yield "all", 2, "the flags"
    yield "`check`", check.FOUND, "something is missing"
    yield "`orphans`", orphans.FOUND, "there are such volumes"
    yield "`explain`", explain.CODES[Status.WAITS], "somebody else's turn"
    yield "`explain`", explain.CODES[Status.REFUSED], "refused as it stands"
    yield "`explain`", explain.ABSENT, "there is no such claim"


# ---- names in the cluster


def event_rows() -> Table:
    yield "Type", "Reason", "Text"
    known: dict[tuple[str, str], list[str]] = {}
    for event in events.events():
        known.setdefault((event.type, event.reason), []).append(event.text)
    for (type_, reason), said in sorted(known.items()):
        said = [text for text in said if re.search("[a-z]{3}", text)] or said
        more = f"one of {len(said)}: see [debugging](../how-to/debugging.md)"
        yield type_, code(reason), more if len(said) > 3 else " / ".join(said)


def annotations() -> Table:
    yield "Annotation", "On", "Set by", "What it says"
    for name, *rest in words.ANNOTATIONS:
        yield code(name), *rest


def finalizers() -> Table:
    yield "Finalizer", "On", "Why", "Goes when"
    for name, *rest in words.FINALIZERS:
        yield code(name), *rest


def labels() -> Table:
    yield "Label", "On", "Value"
    for name, *rest in words.LABELS:
        yield code(name), *rest


# ---- parameters


def class_parameters() -> Table:
    yield "Key", "Older key, still sent to the driver", "What"
    yield code(wellknown.FSTYPE_PARAMETER), "`fstype`", "file system of the volume; else `--default-fstype`"
    for role, what in words.SECRETS.items():
        for part in ("name", "namespace"):
            *old, key = role.keys(part)
            yield code(key), "".join(map(code, old)), f"{part} of the secret for {what}"


def tokens() -> Table:
    yield "Token", "In a name", "In a namespace", "Stands for"
    for token, what in words.TOKENS.items():
        yield code(f"${{{token}}}"), *("yes" if _fills(token, part) else "no" for part in ("name", "namespace")), what


def _fills(token: str, part: str) -> bool:
    template = replace_part(templates.Template("any", "name", "namespace"), part, f"${{{token}}}")
    try:
        templates.resolve(template, templates.Subject("volume", "space", "claim", {"KEY": "value"}))
    except Refusal:
        return False
    return True


def replace_part(template: templates.Template, part: str, text: str) -> templates.Template:
    return templates.Template(
        template.purpose, *(text if part == p else getattr(template, p) for p in ("name", "namespace"))
    )


def added_parameters() -> Table:
    yield "Key", "Where, with", "Value"
    yield code(wellknown.CLAIM_NAME_PARAMETER), "CreateVolume, `--extra-create-metadata`", "name of the claim"
    yield code(wellknown.CLAIM_NAMESPACE_PARAMETER), "CreateVolume, `--extra-create-metadata`", "its namespace"
    yield (
        code(wellknown.VOLUME_NAME_PARAMETER),
        "CreateVolume, `--extra-create-metadata`",
        "name of the PersistentVolume",
    )
    yield "under a prefix", "CreateVolume, `--claim-annotation-prefix`", "that annotation of the claim"
    yield code(wellknown.IDENTITY_ATTRIBUTE), "attributes of the PersistentVolume", "who made the volume"


# ---- features


def by_capability() -> Table:
    yield "Capability", "Without it"
    settings = Settings(capacity=CapacitySettings(enabled=True))
    asked = check.Check(settings, kube=None, driver=None)  # type: ignore[arg-type]
    asked._capabilities(DriverFacts("any"))
    for line in asked.lines:
        yield code(line.about.removeprefix("capability ")), line.text
    for name, without in words.CAPABILITIES.items():
        yield code(name), without


def by_right() -> Table:
    yield "Right", "Without it"
    capabilities = frozenset({"CREATE_DELETE_SNAPSHOT", "CLONE_VOLUME", "PUBLISH_UNPUBLISH_VOLUME"})
    facts = DriverFacts("any", None, frozenset(), capabilities, topology=True)
    settings = Settings(
        gates=Gates(cross_namespace=True),
        capacity=CapacitySettings(enabled=True, ownerref_level=2),
        election=ElectionSettings(enabled=True, own_namespace="any"),
    )
    for right in rights.wanted(settings, facts, "any"):
        shown = rights.Right(right.verb, right.resource, right.group)
        yield str(shown), right.without or words.NEEDED.get(right.resource, "nothing begins")


def by_version() -> Table:
    yield "Kind", "Served at", "Kubernetes", "Without it"
    for kind, paths, without in check.SERVED:
        yield code(kind), " or ".join(map(code, paths.split())), words.SINCE.get(kind, "a custom resource"), without


# ---- pages


def table(rows: Iterable[Sequence[object]]) -> str:
    head, *body = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("|  |", "| |")


TABLES: dict[str, Callable[[], str | Table]] = {
    "flags": all_flags,
    "command-flags": command_flags,
    "old-flags": old_flags,
    "gates": feature_gates,
    "environment": environment,
    "exit-codes": exit_codes,
    "last-words": last_words,
    "command-codes": command_codes,
    "events": event_rows,
    "annotations": annotations,
    "finalizers": finalizers,
    "labels": labels,
    "class-parameters": class_parameters,
    "tokens": tokens,
    "added-parameters": added_parameters,
    "by-capability": by_capability,
    "by-right": by_right,
    "by-version": by_version,
}


def made(page: str) -> str:
    def fill(match: re.Match[str]) -> str:
        what = TABLES[match["name"]]()
        return match["begin"] + "\n" + (what if isinstance(what, str) else table(what)) + "\n" + match["end"]

    return MADE.sub(fill, page)


def pages() -> list[Path]:
    return [page for page in sorted(PAGES.glob("*.md")) if MADE.search(page.read_text())]


if __name__ == "__main__":
    for page in pages():
        page.write_text(made(page.read_text()))
