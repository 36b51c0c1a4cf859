"""The canary: every Secret of the tests holds it, and where it is seen outside of a request to a driver, the run fails.

A pytest plugin. `secret` makes a Secret, and from then to the end of its test all is looked at where it leaves the
process: log lines, at level 10 and in both formats; requests to the API server, journals inflated; pages and metrics;
what is printed; answers to commands; termination messages; traces. Tests without a Secret pay nothing. Lines above the
level that a test asked for are looked at and then dropped.
"""

import base64
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import msgspec
import pytest
import trio

if TYPE_CHECKING:
    from csi_provisioner.metrics import Metrics

CORE = "Kanarienvogel7Hr9"
"""As it is also in JSON, a repr or a URL."""
CANARY = f'-{CORE}-"<&>%\u00fc\\'
"""With what each of them writes in another way."""


def in_base64(offset: int) -> str:
    """What is always the same of it in base64, with any text around it."""
    encoded = base64.b64encode(b"x" * offset + CORE.encode()).decode()
    return encoded[0 if offset == 0 else offset + 1 :].rstrip("=")[:-1]


_QUOTED = "".join(f"%{byte:02x}" for byte in CORE.encode())
FORMS = (CORE, *(in_base64(offset) for offset in range(3)), _QUOTED, _QUOTED.upper())
_BYTES = tuple(form.encode() for form in FORMS)

seen: list[str] = []
_patched = pytest.MonkeyPatch()
_is_armed = False
_made: "WeakSet[Metrics]" = WeakSet()


def held(**values: str) -> dict[str, str]:
    """What a Secret with these values holds."""
    return {key: value + CANARY for key, value in values.items()}


def secret(name: str, raw: dict[str, str] | None = None, **values: str) -> dict[str, Any]:
    """A Secret, for whoever makes objects; `raw` are further values in base64, which may be broken."""
    arm()
    data = {key: base64.b64encode(value.encode()).decode() for key, value in held(**values or {"canary": ""}).items()}
    return {"metadata": {"name": name}, "data": data | (raw or {})}


def look(outlet: str, text: str | bytes) -> None:
    places = map(text.find, FORMS) if isinstance(text, str) else map(text.find, _BYTES)
    for place in places:
        if place >= 0:
            seen.append(f"{outlet}: {text[max(0, place - 80) : place + 80]!r}")


def is_wanted(record: Any) -> bool:
    """Would the line be there without this plugin?"""
    from csi_provisioner.logs import log

    v = record["extra"].get("v")
    return not _is_armed or v is None or v <= log._verbosity


def arm() -> None:
    global _is_armed
    if _is_armed:
        return
    _is_armed = True
    from csi_provisioner import logs
    from csi_provisioner.diagnostics import asked, server
    from csi_provisioner.kube import transport
    from csi_provisioner.supervisor import connection

    _patched.setattr(logs.Log, "_raised", lambda _log, level: level <= 10)
    texts = (logs._text_line, logs._json_line)
    for render in texts:
        _patched.setattr(logs, render.__name__, _rendering(render, texts))
    _around(transport.Transport, "exchange", lambda _self, method, target, head, body=b"", **_: _request(target, body))
    _around(server.Response, "__init__", lambda _self, text, *_args, **_: look("page", text))
    _around(connection, "_write_termination_message", lambda text: look("termination message", text))
    encode = msgspec.json.encode

    def encoded(answer: Any) -> bytes:
        look("local socket", data := encode(answer))
        return data

    json_ = SimpleNamespace(**{**vars(msgspec.json), "encode": encoded})
    _patched.setattr(asked, "msgspec", SimpleNamespace(**{**vars(msgspec), "json": json_}))
    read = pytest.CaptureFixture.readouterr

    def readouterr(capture: Any) -> Any:
        found = read(capture)
        look("stdout", found.out)
        look("stderr", found.err)
        return found

    _patched.setattr(pytest.CaptureFixture, "readouterr", readouterr)


def _rendering(render: Callable[[Any], str], texts: Any) -> Callable[[Any], str]:
    def line(record: Any) -> str:
        for each in texts:
            look("log", each(record))
        return render(record) if is_wanted(record) else ""

    return line


def _around(owner: Any, name: str, before: Callable[..., None], patched: pytest.MonkeyPatch = _patched) -> None:
    function = getattr(owner, name)

    def called(*arguments: Any, **named: Any) -> Any:
        before(*arguments, **named)
        return function(*arguments, **named)

    patched.setattr(owner, name, called)


def _request(target: str, body: bytes) -> None:
    look("URL", target)
    look("request", body)
    if b'"csi-provisioner.io/' in body:
        from csi_provisioner.planning import entries

        for value in json.loads(body)["metadata"].get("annotations", {}).values():
            try:
                inflated = entries.unpack(value)
            except entries.UnreadableError:
                continue
            for text in inflated.values():
                look("journal", text)


async def _exposed(metrics: "Metrics") -> bytes:
    """Some values are asked for at the scrape, and ask for the time."""
    return metrics.render()


def _disarm() -> None:
    global _is_armed
    if _is_armed:
        for metrics in list(_made):
            # Fixtures of a whole module have a run that goes on.
            inside = trio.lowlevel.in_trio_run()
            look("metrics", metrics.render() if inside else trio.run(_exposed, metrics))
        _patched.undo()
        _is_armed = False


def pytest_configure() -> None:
    """Of all metrics, those of a test with a Secret are looked at in its end."""
    from csi_provisioner.metrics import Metrics

    _around(Metrics, "__init__", lambda metrics, *_, **__: _made.add(metrics), pytest.MonkeyPatch())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """After the fixtures: a process that a test leaves running ends with them."""
    try:
        return (yield)
    finally:
        if _is_armed:
            for _, what, text in item._report_sections:
                look(what, text)
        _disarm()
        _made.clear()
        found, seen[:] = list(dict.fromkeys(seen)), []
        if found:
            pytest.fail("a secret is shown:\n" + "\n".join(found[:20]), pytrace=False)
