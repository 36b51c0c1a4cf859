"""The demonstration: the story comes to its end, fails with a reason, and is ended by Ctrl-C without a traceback."""

import io
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import trio.testing

from sandbox.demo import Demo, FailedError, main

STEPS = (
    "claim created",
    "CreateVolume asked",
    "volume made",
    "PersistentVolume .* written",
    "claim Bound",
    "claim deleted",
    "DeleteVolume asked",
    "volume gone",
    "PersistentVolume .* gone",
)


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


async def test_tells_every_step_of_a_claim(tmp_path: Path) -> None:
    out = io.StringIO()
    assert await Demo(2, tmp_path, out).run() == 0
    told = [line for line in out.getvalue().splitlines() if "claim-2: " in line]
    assert [bool(re.search(step, line)) for step, line in zip(STEPS, told, strict=True)] == [True] * len(STEPS)
    assert "2 of 2 claims got their volume and gave it back" in out.getvalue()


async def test_many_claims_are_told_in_numbers(tmp_path: Path) -> None:
    out = io.StringIO()
    assert await Demo(40, tmp_path, out).run() == 0
    assert "40 claims: created 40, volumes made 40, PVs written 40, Bound 40" in out.getvalue()
    assert "claim-7: " not in out.getvalue()


async def test_fails_when_nothing_happens_any_more(tmp_path: Path) -> None:
    with pytest.RaisesGroup(FailedError, flatten_subgroups=True) as failed:
        await Demo(4, tmp_path, io.StringIO(), flags=["--worker-threads=0"]).run()
    [error] = failed.value.exceptions
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    assert 'after 31 s "Bound" is still to come for 4 claims: claim-1, claim-2, claim-3, ...' in str(error)


def test_refused_flags_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--", "--no-such-flag"]) == 1
    assert "FAILED: the provisioner refuses its flags: unknown flag: --no-such-flag" in capsys.readouterr().out


def started(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sandbox", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stdout
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(f"{pattern} was not said")


def test_keeps_running_until_interrupted() -> None:
    with started("--keep") as process:
        kubeconfig = Path(read_until(process, "KUBECONFIG=(.*)"))
        server = re.search('server: "(.*)"', kubeconfig.read_text())
        assert server
        with urllib.request.urlopen(f"{server[1]}/version", timeout=20) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors == ""
    assert not kubeconfig.exists()


def test_interrupted_in_the_middle() -> None:
    with started("--claims", "3000") as process:
        read_until(process, "(storage class)")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == ""
