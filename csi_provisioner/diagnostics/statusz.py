"""`/statusz` and `/flagz` in the forms that components of Kubernetes have (KEP-4827, KEP-4828), `/statusz` also as a
page for people, and who is told what (process.md 7).

There is no authentication at this port, so only a loopback peer is told names, messages and flags.
"""

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
import trio

from csi_provisioner import __version__
from csi_provisioner.diagnostics import page
from csi_provisioner.diagnostics.server import Page, Request, Response, in_turn
from csi_provisioner.logs import escaped
from csi_provisioner.model.state import Details, State
from csi_provisioner.settings import DATA_PATH, FLAGZ_PATH, STATUSZ_PATH

NAME = "csi-provisioner"
HEAD = (
    "{} {}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees "
    "and is for debugging purposes only.\n"
)
GROUP = "config.k8s.io"
NEWEST, OLDEST = VERSIONS = ("v1beta1", "v1alpha1")
DEPRECATED = ("Warning", '299 - "This version of the endpoint is deprecated. Please use a newer version."')
# Of our own JSON: fields are only added.
VERSION = 1
# Seconds for which a state is shown; with many thousands of objects it takes a tenth of one to make.
FRESH_FOR = 1.0
FRESH = ("Cache-Control", "no-cache, private")


def pages(state: Callable[[], State], flags: Mapping[str, str], others: Sequence[str]) -> dict[str, Page]:
    """`state` with its details; `others` are the paths that are served beside these."""
    paths = sorted({*others, STATUSZ_PATH, FLAGZ_PATH})

    kept, until = State(), -math.inf

    def current() -> State:
        nonlocal kept, until
        # Whoever asks again and again costs no more than one who looks.
        if trio.current_time() >= until:
            kept, until = state(), trio.current_time() + FRESH_FOR
        return kept

    def seen(request: Request) -> State:
        return current() if request.local else for_strangers(current())

    async def statusz(request: Request) -> Response:
        match wanted(request.accept, "Statusz", html=True):
            case "html":
                text = page.whole(seen(request), __version__, local=request.local)
                return Response(text, content_type="text/html; charset=utf-8", headers=(FRESH,))
            case "text":
                return Response(_text(current().up, paths), headers=(FRESH,))
            case version:
                return _structured("Statusz", version, _facts(current().up, paths))

    async def data(request: Request) -> Response:
        if wanted(request.accept, "", html=True) == "html":
            text = page.body(seen(request), local=request.local)
            return Response(text, content_type="text/html; charset=utf-8", headers=(FRESH,))
        body = msgspec.json.encode({"version": VERSION, "complete": request.local, "state": seen(request)})
        return Response(body.decode(), content_type="application/json", headers=(FRESH,))

    async def flagz(request: Request) -> Response:
        if not request.local:
            return Response("flags are shown to a loopback peer only: kubectl port-forward POD PORT\n", 403)
        version = wanted(request.accept, "Flagz")
        if version != "text":
            return _structured("Flagz", version, {"flags": dict(flags)})
        lines = "".join(f"{name}={escaped(value)}\n" for name, value in flags.items())
        return Response(HEAD.format(NAME, "flagz") + lines, headers=(FRESH,))

    return {STATUSZ_PATH: in_turn(statusz), DATA_PATH: in_turn(data), FLAGZ_PATH: flagz}


def wanted(accept: str, kind: str, *, html: bool = False) -> str:
    """The form to answer in: text, html, a version of the JSON, or "" where nothing that we have is accepted."""
    for _, name, parameters in _accepted(accept or "*/*"):
        if name in ("*/*", "text/*", "text/plain"):
            return "text"
        if name == "text/html" and html:
            return "html"
        version = parameters.pop("v", "")
        if name == "application/json" and version in VERSIONS and parameters == {"g": GROUP, "as": kind.lower()}:
            return version
    return ""


def for_strangers(state: State) -> State:
    """Counts, ages, rates, and reasons, which are a closed set: no names but those of the metrics, no messages."""
    replace = msgspec.structs.replace
    leadership = replace(state.leadership, identity="", lease="", holder="")
    failures = tuple(replace(each, key="", error="") for each in state.failures)
    return replace(state, leadership=leadership, failures=failures, details=_counted(state.details or Details()))


def _counted(details: Details) -> Details:
    replace = msgspec.structs.replace
    return replace(
        details,
        tasks=tuple(replace(task, name="") for task in details.tasks),
        waiting=tuple(
            replace(
                claim, name="", work=replace(claim.work, last=claim.work.last and replace(claim.work.last, text=""))
            )
            for claim in details.waiting
        ),
        capacity=(),
        journal=details.journal and replace(details.journal, off="?" if details.journal.off else ""),
    )


def _accepted(accept: str) -> list[tuple[float, str, dict[str, str]]]:
    """Media types with their parameters, the most wanted first."""
    found = []
    for each in accept.split(","):
        name, *rest = (part.strip().lower() for part in each.split(";"))
        parameters = dict(_parameter(part) for part in rest)
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            continue
        if quality > 0:
            found.append((-quality, name, parameters))
    return sorted(found, key=lambda each: each[0])


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()


def _started(up: float) -> datetime:
    return datetime.fromtimestamp(time.time() - up, UTC)


def _text(up: float, paths: Sequence[str]) -> str:
    minutes, seconds = divmod(int(up), 60)
    hours, minutes = divmod(minutes, 60)
    return HEAD.format(NAME, "statusz") + (
        f"\nStarted: {_started(up):%a %b %e %H:%M:%S UTC %Y}\n"
        f"Up: {hours} hr {minutes:02} min {seconds:02} sec\n"
        f"Python version: {platform.python_version()}\n"
        f"Binary version: {__version__}\n"
        f"Paths: {' '.join(paths)}\n"
    )


def _facts(up: float, paths: Sequence[str]) -> dict[str, object]:
    return {
        "startTime": f"{_started(up):%Y-%m-%dT%H:%M:%SZ}",
        "uptimeSeconds": int(up),
        "pythonVersion": platform.python_version(),
        "binaryVersion": __version__,
        "paths": paths,
    }


def _structured(kind: str, version: str, fields: Mapping[str, object]) -> Response:
    if not version:
        offered = ", ".join(f"application/json;v={each};g={GROUP};as={kind}" for each in VERSIONS)
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": f"only the following media types are accepted: text/plain, {offered}",
            "reason": "NotAcceptable",
            "code": 406,
        }
        return Response(msgspec.json.encode(status).decode(), 406, "application/json")
    body = {"kind": kind, "apiVersion": f"{GROUP}/{version}", "metadata": {"name": NAME}, **fields}
    form = f"application/json;g={GROUP};v={version};as={kind}"
    headers = (FRESH, DEPRECATED) if version == OLDEST else (FRESH,)
    return Response(msgspec.json.encode(body).decode(), content_type=form, headers=headers)
