"""A command beside a provisioner needs no flags: two real processes, which know each other by the pod's network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from csi_provisioner.commands import daemon
from csi_provisioner.model.live import Live
from sandbox.api.server import serve
from sandbox.driver import Config, Driver
from tests.cluster.controlplane import REPOSITORY

PROGRAM = [sys.executable, "-m", "csi_provisioner"]


@pytest.fixture
def anyio_backend() -> object:
    return "trio"  # a second process does not share a virtual clock


async def test_a_command_takes_its_flags_from_the_provisioner_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "PREFIX", "csi-provisioner-ask/")  # as in the two processes
    # No variable of this machine says where a cluster is.
    environ = {"PATH": os.environ["PATH"]}
    async with trio.open_nursery() as nursery:
        server, driver = await nursery.start(serve), Driver(Config())
        await nursery.start(driver.serve, tmp_path / "csi.sock")
        (tmp_path / "kubeconfig").write_text(server.kubeconfig_text())
        address = f"--csi-address={tmp_path / 'csi.sock'}"
        process = await trio.lowlevel.open_process(
            [*PROGRAM, address, f"--kubeconfig={tmp_path / 'kubeconfig'}"],
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
            env=environ,
        )
        nursery.start_soon(process.wait)

        async def known() -> Live | None:
            found = await daemon.ask({"csi-address": str(tmp_path / "csi.sock")})
            return found if isinstance(found, Live) and found.works else None

        with trio.fail_after(60):
            while (found := await known()) is None:  # noqa: ASYNC110 - another process sets no event
                await trio.sleep(0.05)
        assert (found.pid, found.driver.name) == (process.pid, driver.config.name)
        done = await trio.run_process(
            [*PROGRAM, "check", address],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=REPOSITORY,
            env=environ,
        )
        assert f"process {process.pid}, for {driver.config.name}".encode() in done.stderr
        assert b"right to list persistentvolumeclaims" in done.stdout
        process.terminate()
        assert await process.wait() == 0
        assert await known() is None
        nursery.cancel_scope.cancel()
