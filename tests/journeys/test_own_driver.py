"""A driver's author has no cluster: the embedded API and the real provisioner work with a driver of one's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.foreign_process import ROOT, foreign_driver


@pytest.fixture
def anyio_backend() -> object:
    return "trio"  # a second process does not share a virtual clock


async def run(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return await trio.run_process(
        [sys.executable, "-m", "sandbox", *arguments], cwd=ROOT, capture_stdout=True, capture_stderr=True, check=False
    )


def as_typed(socket: Path) -> str:
    return os.path.relpath(socket, ROOT)


async def test_a_driver_of_another_process_gets_its_claims(tmp_path: Path) -> None:
    async with foreign_driver(tmp_path, name="own.csi.example.com") as driver:
        done = await run("--driver-socket", as_typed(driver.socket), "--parameter", "tier=gold", "--claims", "2")
        assert done.returncode == 0, done.stdout.decode()
        assert len(driver.made()) == 2
        assert {call["request"]["parameters"]["tier"] for call in driver.calls("CreateVolume")} == {"gold"}
        assert driver.volumes() == {}
    told = done.stdout.decode()
    assert "served by own.csi.example.com" in told
    assert "2 of 2 claims got their volume and gave it back." in told


async def test_a_socket_without_a_driver_is_said(tmp_path: Path) -> None:
    async with foreign_driver(tmp_path, name="") as driver:
        done = await run("--driver-socket", str(driver.socket))
    assert done.returncode == 1
    assert f"FAILED: the driver at {driver.socket} does not answer as it should" in done.stdout.decode()
