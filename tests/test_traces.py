"""Traces begin and end without harm, whatever the collector does and whatever is installed (docs/how-to/tracing.md)."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csi_provisioner.csi.channel import Channel
from csi_provisioner.model import csi
from csi_provisioner.traces import Traces, traces
from tests.collector import collecting
from tests.csi.counted import Counted
from tests.csi.peer import peer
from tests.hearing import heard


async def test_a_collector_that_hangs_is_waited_for_as_long_as_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{hanging.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        hung = Traces()
        await hung.begin()
        with hung.tried("claims", {}):
            pass
        began = time.monotonic()
        await hung.end(0.05)
        assert time.monotonic() - began < 0.9


async def test_the_trace_is_the_last_header_of_a_call_and_leaves_the_table_of_headers_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "csi.sock"
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        await traces.begin()
        request, channel = csi.ProbeRequest(), Channel(str(path), on_lost=lambda: None, metrics=Counted())
        async with peer(path) as other, channel:
            for _ in range(3):
                with traces.tried("volumes", {}):
                    await channel.call("/csi.v1.Identity/Probe", request, csi.ProbeResponse, timeout=9)
        await traces.end(9)
    assert [list(call.headers)[-1] for call in other.calls] == ["traceparent"] * 3
    assert not other.connections[0].h2.decoder.header_table.dynamic_entries


@pytest.mark.parametrize(
    ("spoil", "advice"),
    [
        pytest.param(
            lambda patch: patch.setitem(sys.modules, "csi_provisioner.otlp", None), "[tracing]", id="no extra"
        ),
        pytest.param(lambda patch: patch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1"), "OTEL_*", id="a variable is wrong"),
    ],
)
async def test_what_keeps_traces_from_being_sent_is_said_and_keeps_nothing_else(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[pytest.MonkeyPatch], None], advice: str
) -> None:
    spoil(monkeypatch)
    lines: list[Any] = []
    with heard(lines.append):
        bare = Traces()
        await bare.begin()
        with bare.tried("claims", {}) as id_:
            assert len(id_) == 16
    assert [advice in line["extra"]["keys"]["advice"] for line in lines] == [True]


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    program = (
        "import sys, trio; from csi_provisioner import supervisor; from csi_provisioner.settings import *\n"
        "cluster = ClusterSettings(master='http://127.0.0.1:1')\n"
        "async def main():\n"
        "    stop = trio.Event(); stop.set()\n"
        "    return await supervisor.run(Settings(cluster=cluster), stop=stop)\n"
        "code = trio.run(main)\n"
        "not_wanted = ('opentelemetry', 'requests', 'csi_provisioner.otlp')\n"
        "print(code, [name for name in sys.modules if name.startswith(not_wanted)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0 []\n"
