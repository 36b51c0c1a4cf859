"""What the canary's plugin has to find: a secret on every way out, in every form. Run by test_canary, and fails."""

import base64
import json
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import trio

from csi_provisioner.diagnostics import asked
from csi_provisioner.diagnostics.server import Response
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.transport import Route, Transport
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.live import Live
from csi_provisioner.planning import entries
from csi_provisioner.provision.journal_leases import ENTRIES
from csi_provisioner.supervisor import connection
from csi_provisioner.traces import traces
from tests.canary import CANARY, secret
from tests.collector import collecting

FORMS = {
    "plain": CANARY,
    "json": json.dumps(CANARY),
    "json-not-ascii": json.dumps(CANARY, ensure_ascii=False),
    "repr": repr(CANARY),
    **{f"base64-{number}": base64.b64encode(b"u" * number + CANARY.encode()).decode() for number in range(3)},
    "quoted": quote(CANARY, safe=""),
    "quoted-plus": quote_plus(f"a b{CANARY}"),
    "all-quoted": "".join(f"%{byte:02X}" for byte in CANARY.encode()),
}


async def _sent(text: str, target: str = "/") -> None:
    with suppress(KubeError):
        await Transport(Route(("127.0.0.1", 1))).exchange("POST", target, b"", text.encode())


@pytest.mark.parametrize("form", FORMS)
async def test_shown_everywhere(form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text, metrics = FORMS[form], Metrics()
    secret("login")
    log.v(10, "shown", key=text)
    await _sent("", f"/{text}")
    await _sent(json.dumps({"kind": "Event", "message": text}))
    packed = entries.pack({"pvc-1": json.dumps({"request": text}).encode()})
    await _sent(json.dumps({"kind": "Lease", "metadata": {"annotations": {ENTRIES: packed}}}))
    Response(text)
    metrics.csi_call(text, "OK", 1.0, None)
    ours, theirs = trio.socket.socketpair()
    with theirs:
        await theirs.send(b"{}\n")
        await asked._talk(ours, lambda _asked: Live(program=text), trio.Semaphore(0), set())
    sys.stdout.write(text)
    sys.stderr.write(text)
    monkeypatch.setattr(connection, "TERMINATION_LOG", tmp_path / "termination-log")
    await connection._write_termination_message(text)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        await traces.begin()
        with traces.tried("claims", {}):
            traces.failed(text)
        await traces.end(9)
    _KEPT[:] = [metrics]


_KEPT: list[Metrics] = []


def test_shown_in_a_traceback() -> None:
    secret("login")
    try:
        int(CANARY)
    except ValueError:
        log.exception("shown")


def test_shown_to_a_test_that_reads(capsys: pytest.CaptureFixture[str]) -> None:
    secret("login")
    sys.stdout.write(CANARY)
    capsys.readouterr()


def test_not_shown() -> None:
    secret("login")
    log.v(10, "nothing")
