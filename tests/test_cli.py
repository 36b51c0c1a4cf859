"""The program as it is started: streams, exit codes, order of the checks (process.md 1.5, 3, 10.3)."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from csi_provisioner import __version__


def run(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "csi_provisioner", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], **environ},
    )


def test_version_is_printed_and_flags_of_older_lines_are_warned_of() -> None:
    """process.md 1.5."""
    done = run("--version", "--logtostderr", "--feature-gates=Topology=true")
    assert done.returncode == 0
    program, version = done.stdout.removesuffix("\n").rsplit(" ", 1)
    assert program.endswith("__main__.py")
    assert version == __version__
    warning, note = done.stderr.splitlines()
    assert warning.startswith("W")
    assert "--logtostderr" in warning
    assert note.startswith("I")
    assert "Topology" in note


# Stops itself with the first line of its log.
STOPPED_EARLY = """
import os, signal, sys
class Terminal:
    def write(self, text):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
sys.stderr = Terminal()
from csi_provisioner.cli import main
sys.exit(main())
"""


WHAT_WAS_SAID = """
import os, signal
from csi_provisioner import cli
def start():
    for number in range(1000):
        cli.log.info("Said before the signal", number=number)
    os.kill(os.getpid(), signal.SIGTERM)
cli._start = start
cli.main()
"""


def test_a_signal_that_comes_early_loses_no_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHAT_WAS_SAID], timeout=60, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stderr.count("Said before the signal") == 1000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_early_has_a_handler(number: signal.Signals) -> None:
    """Without one it would be lost on the first process of a container, and Ctrl-C would be a stack trace.
    process.md 11.5."""
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_EARLY, "--logtostderr"],
        env={**os.environ, "SIGNAL": str(int(number))},
        timeout=60,
        check=False,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")


DEFECT = """
import sys
from csi_provisioner import cli, supervisor
async def run(settings, **_):
    raise RuntimeError("first\\nE0102 03:04:05.000000       1 a.py:1] forged \\x1b[2J")
supervisor.run = run
sys.exit(cli.main())
"""


def test_a_defect_that_ends_the_process_is_an_entry_of_the_log() -> None:
    """process.md 10.3."""
    done = subprocess.run([sys.executable, "-c", DEFECT], timeout=60, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert '"Unexpected error, the process ends"' in done.stderr
    assert done.stderr.splitlines()[-1].startswith("RuntimeError: first\\nE0102")
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("argument", "code"), [("--version", 0), ("--help", 0), ("--no-such-flag", 2), ("--timeout=0", 2), ("--v=x", 2)]
)
@pytest.mark.parametrize("streams", ["closed", "full", "without a reader"])
def test_streams_that_take_nothing_change_no_exit_code(argument: str, code: int, streams: str) -> None:
    ways = {
        "closed": ">&- 2>&-",
        "full": ">/dev/full 2>/dev/full",
        "without a reader": "2>&1 | true; exit ${PIPESTATUS[0]}",
    }
    command = f'"{sys.executable}" -m csi_provisioner {argument} {ways[streams]}'
    assert subprocess.run(["bash", "-c", command], timeout=60, check=False).returncode == code


def test_help_is_on_stderr() -> None:
    """process.md 1.1."""
    done = run("-h")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("Usage: csi-provisioner [flags]\n")


@pytest.mark.parametrize(
    ("arguments", "code", "last_line"),
    [
        (["--no-such-flag"], 2, "unknown flag: --no-such-flag"),
        (["--timeout=10"], 2, 'invalid argument "10" for "--timeout" flag: '),
        (["--timeout=0"], 2, '"--timeout=0s: it must be more than 0'),
        (["--logging-format=yaml", "--feature-gates=Bogus=true"], 1, '"--logging-format=yaml: '),
        (["--feature-gates=Bogus=true", "--node-deployment"], 255, '"unrecognized feature gate: Bogus'),
        (["--csi-address=relative"], 1, '"--csi-address=relative is no address of a socket'),
        (["--node-deployment", "--logging-format=json"], 255, '"err":"--node-deployment needs'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_refused_start_says_why_and_ends_with_its_code(arguments: list[str], code: int, last_line: str) -> None:
    """process.md 3."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert last_line in done.stderr.splitlines()[-1]


def test_the_word_of_a_command_comes_first() -> None:
    """design.md 8: else the right order is said. As a flag's value it is no word."""
    done = run("--v=3", "orphans", "--delete=x")
    assert done.returncode == 2
    assert "csi-provisioner orphans --v=3 --delete=x" in done.stderr
    assert run("--volume-name-prefix", "orphans", "--version").returncode == 0
    done = run("--v=3", "--", "check")
    assert done.returncode == 2
    assert "csi-provisioner check --v=3\n" in done.stderr


@pytest.mark.parametrize("command", ["check", "explain", "orphans"])
def test_a_command_is_known_by_its_word_and_by_the_programs_name(command: str) -> None:
    assert run(command, "--help").stdout.startswith(f"Usage: csi-provisioner {command}")
    start = f"import sys; from csi_provisioner.cli import main; sys.argv = ['/{command}', '--help']; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith(f"Usage: csi-provisioner {command}")


@pytest.mark.parametrize("command", ["check", "orphans"])
def test_a_command_that_cannot_ask_ends_with_1_and_tells_programs_too(command: str) -> None:
    done = run(command, "--kubeconfig=/nowhere", "-o", "json")
    assert done.returncode == 1
    assert "/nowhere" in done.stderr
    said = json.loads(done.stdout)
    assert (said["version"], said["complete"]) == (1, False)
    assert "/nowhere" in said["error"]


KUBECONFIG = """{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}],
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]}"""


def alone(folder: Path, endpoint: str) -> list[str]:
    """With neither a driver nor an API server."""
    (folder / "kubeconfig").write_text(KUBECONFIG)
    arguments = [f"--csi-address={folder}/csi.sock", f"--kubeconfig={folder}/kubeconfig", f"--http-endpoint={endpoint}"]
    return [sys.executable, "-m", "csi_provisioner", *arguments]


def test_probes_are_answered_before_anybody_else_is(tmp_path: Path) -> None:
    """process.md 3, 7."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    with subprocess.Popen(alone(tmp_path, endpoint), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            while '"Listening"' not in process.stderr.readline():
                pass
            paths = ("/livez", "/readyz", "/metrics")
            answers = {path: httpx2.get(f"http://{endpoint}{path}", timeout=30) for path in paths}
        finally:
            process.kill()
    assert answers["/livez"].text == "[+] alive: ok\n"
    assert answers["/readyz"].status_code == 500
    assert "[-] driver: not met yet" in answers["/readyz"].text
    assert "process_start_time_seconds" in answers["/metrics"].text


def test_an_address_for_metrics_alone_has_no_health_from_the_first_moment(tmp_path: Path) -> None:
    """process.md 7."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = [each.replace("--http-endpoint", "--metrics-address") for each in alone(tmp_path, endpoint)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            while '"Listening"' not in process.stderr.readline():
                pass
            assert httpx2.get(f"http://{endpoint}/livez", timeout=30).status_code == 404
        finally:
            process.kill()


def test_a_taken_port_is_told_before_the_driver_is_asked(tmp_path: Path) -> None:
    """process.md 3."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(alone(tmp_path, endpoint), timeout=60, check=False, capture_output=True, text=True)
    assert done.returncode == 255
    assert f"cannot listen on {endpoint} to serve /metrics" in done.stderr
    assert "Waiting for the CSI driver" not in done.stderr
