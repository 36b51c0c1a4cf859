"""`tests.foreign_driver` as a process of a test: start, kill, start again, see what it was asked and what it keeps."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).parent.parent


class ForeignDriver:
    """Files of one driver in `folder`, and its process, if one runs."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "csi.sock"
        self._state = folder / "state.jsonl"
        self._calls = folder / "calls.jsonl"
        self._config = folder / "config.json"
        self._process: trio.Process | None = None
        self.configure()

    def configure(self, **config: Any) -> None:
        """Replace the configuration; also of a running driver."""
        fresh = self._config.with_suffix(".new")
        fresh.write_text(json.dumps(config))
        fresh.replace(self._config)

    async def start(self) -> None:
        """Return once the socket is served."""
        command = [
            sys.executable,
            "-m",
            "tests.foreign_driver",
            "--sock",
            str(self.socket),
            "--state",
            str(self._state),
        ]
        command += ["--calls", str(self._calls), "--config", str(self._config)]
        process = await trio.lowlevel.open_process(command, cwd=ROOT, stdout=subprocess.PIPE)
        self._process = process
        assert process.stdout is not None
        said = b""
        while not said.endswith(b"\n"):
            more = await process.stdout.receive_some()
            assert more, f"the driver ended instead of serving: {await process.wait()}"
            said += more

    async def kill(self, with_signal: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self.signal(with_signal)
            await self.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def wait(self) -> None:
        """Until the process has ended, by itself or otherwise."""
        process, self._process = self._process, None
        if process is not None:
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()

    def calls(self, method: str | None = None, phase: str = "begin") -> list[dict[str, Any]]:
        return [
            call
            for call in _lines(self._calls)
            if call["phase"] == phase and (method is None or call["method"] == method)
        ]

    def volumes(self) -> dict[str, dict[str, Any]]:
        """What exists, by id."""
        kept: dict[str, dict[str, Any]] = {}
        for change in _lines(self._state):
            if change["kind"] == "volumes" and change["op"] == "create":
                kept[change["id"]] = change
            elif change["kind"] == "volumes":
                kept.pop(change["id"], None)
        return kept

    def made(self) -> list[str]:
        """Names of the volumes that were ever made, one entry each time."""
        changes = _lines(self._state)
        return [change["name"] for change in changes if change["kind"] == "volumes" and change["op"] == "create"]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@asynccontextmanager
async def foreign_driver(folder: Path, **config: Any) -> AsyncIterator[ForeignDriver]:
    """A driver that runs until the block is left."""
    driver = ForeignDriver(folder)
    driver.configure(**config)
    try:
        await driver.start()
        yield driver
    finally:
        with trio.CancelScope(shield=True):
            await driver.kill()
