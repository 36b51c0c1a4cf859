"""The commands of each page, run as a reader would: in a fresh copy of the repository, home and control plane."""

import atexit
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.cluster.controlplane import ControlPlane, binaries
from tests.docs import blocks
from tests.docs.pods import Pods

pytestmark = pytest.mark.cluster

LIMIT = 300.0
PAGES = [page for page in blocks.pages() if any(block.kind == "sh" for block in blocks.blocks(page))]
# What a test run of a repository leaves in it
LEFT = shutil.ignore_patterns(".git", ".nox", ".venv", "build", "dist", "__pycache__", ".*cache", ".hypothesis")
# What the machine of the tests is, and no reader's
KEPT = ("PIP_", "UV_", "SSL_", "REQUESTS_", "LANG", "LC_", "TMPDIR")


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """A cluster where nobody has any rights yet."""
    programs = binaries()
    if programs is None:
        pytest.skip("no control plane: set KUBEBUILDER_ASSETS, or install Go 1.26")
    (tmp_path / "plane").mkdir()
    plane = ControlPlane(tmp_path / "plane", programs)
    atexit.register(plane.stop)
    try:
        plane.start()
        plane.delete(*plane.rights)
        yield plane
    finally:
        plane.stop()
        atexit.unregister(plane.stop)


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def environment(plane: ControlPlane, folder: Path) -> dict[str, str]:
    """A home with a kubeconfig; `kubectl`, `csi-provisioner` and this Python on the path."""
    home, programs = folder / "home", folder / "bin"
    (home / ".kube").mkdir(parents=True)
    shutil.copy(plane.admin_kubeconfig, home / ".kube" / "config")
    programs.mkdir()
    program(programs / "kubectl", f'exec {plane.programs / "kubectl"} "$@"')
    for name in ("python", "python3"):
        program(programs / name, f'exec {sys.executable} "$@"')
    program(
        programs / "csi-provisioner", f'PYTHONPATH={folder / "clone"} exec {sys.executable} -m csi_provisioner "$@"'
    )
    return {
        **{name: value for name, value in os.environ.items() if name.startswith(KEPT)},
        "HOME": str(home),
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        # Downloads that the machine has already
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
    }


def script(page: list[blocks.Block], output: Path) -> str:
    parts = [f"{{ echo {n} >{output}/last\n{one.text}}} >{output}/{n} 2>&1" for n, one in enumerate(page)]
    return "\n".join(["set -eu", *parts])


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(blocks.ROOT)) for page in PAGES])
def test_the_commands_of_a_page_work_as_written(page: Path, plane: ControlPlane, tmp_path: Path) -> None:
    shutil.copytree(blocks.ROOT, tmp_path / "clone", ignore=LEFT)
    output = tmp_path / "output"
    output.mkdir()
    shown = blocks.blocks(page)
    run = [block for block in shown if block.kind == "sh"]
    with ExitStack() as stack:
        name = blocks.driver(page)
        pods = stack.enter_context(Pods(plane, tmp_path / "pods", name)) if name else None
        bash = subprocess.Popen(
            ["bash", "-c", script(run, output)],
            cwd=tmp_path / "clone", env=environment(plane, tmp_path), stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            code: object = bash.wait(LIMIT)
        except subprocess.TimeoutExpired:
            code = f"not over after {LIMIT:.0f} s"
        finally:
            # Also what a block has left running.
            with suppress(ProcessLookupError):
                os.killpg(bash.pid, signal.SIGKILL)
            bash.wait()
        said = {n: (output / str(n)).read_text() for n in range(len(run)) if (output / str(n)).exists()}
        for n, text in said.items():
            print(f"\n--- {run[n]}\n{run[n].text}" + "".join(f"    {line}\n" for line in text.splitlines()))
        last = run[int((output / "last").read_text())]
        assert code == 0, f"{last} ended with {code}" + (f"\n{pods.logs()}" if pods else "")
    before = -1
    for block in shown:
        before += block.kind == "sh"
        if block.kind == blocks.SEEN:
            assert blocks.is_seen(block.text, said[before]), f"{block} is not what {run[before]} has printed"
