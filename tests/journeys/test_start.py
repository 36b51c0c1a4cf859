"""What a start loads, seen in a process of its own that makes a first volume: each module is time and memory."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from sandbox.api.objects import Objects
from sandbox.api.server import ApiServer, serve
from sandbox.driver import Config, Driver
from tests.cluster.controlplane import REPOSITORY
from tests.journeys.objects import claim

# As it is started, and then what is loaded is said.
PROGRAM = """
import sys
from csi_provisioner.__main__ import main
code = main()
print(*sys.modules)
sys.exit(code)
"""
NOT_WANTED = (
    "csi_provisioner.capacity",
    "csi_provisioner.commands",
    "csi_provisioner.diagnostics.page",
    "csi_provisioner.diagnostics.server",
    "csi_provisioner.migration.plugins.",
    "csi_provisioner.migration.zones",
    "csi_provisioner.model.csi.csi.v1.others",
    "csi_provisioner.nodes",
    "csi_provisioner.otlp",
    "csi_provisioner.planning.expla",
    "csi_provisioner.protection.snapshots",
    "cProfile",
    "dateutil",
    "difflib",
    "email.message",
    "h11",
    "http.",
    "httpx2",
    "importlib.metadata",
    "lightkube.core.generic_client",
    "lightkube.models",
    "lightkube.resources",
    "opentelemetry",
    "prometheus_client.exposition",
    "zipfile",
)


@pytest.fixture
def anyio_backend() -> object:
    return "trio"  # a second process does not share a virtual clock


async def test_a_first_volume_is_made_without_what_it_does_not_need(tmp_path: Path) -> None:
    driver, objects = Driver(Config(controller=("CREATE_DELETE_VOLUME",))), Objects()
    objects.create("StorageClass", {"metadata": {"name": "fast"}, "provisioner": driver.config.name})
    objects.create("PersistentVolumeClaim", claim("data", "fast"), "default")
    async with trio.open_nursery() as nursery:
        server: ApiServer = await nursery.start(partial(serve, objects=objects))
        await nursery.start(driver.serve, tmp_path / "csi.sock")
        (tmp_path / "kubeconfig").write_text(server.kubeconfig_text())
        process = await trio.lowlevel.open_process(
            [
                sys.executable,
                "-c",
                PROGRAM,
                f"--csi-address={tmp_path / 'csi.sock'}",
                f"--kubeconfig={tmp_path / 'kubeconfig'}",
                "--leader-election",
                "--leader-election-namespace=default",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"]},
        )
        with trio.fail_after(60):
            while not objects.all("PersistentVolume"):  # noqa: ASYNC110 - another process sets no event
                await trio.sleep(0.02)
            process.terminate()
            assert process.stdout is not None
            loaded = b"".join([chunk async for chunk in process.stdout]).decode().split()
            assert await process.wait() == 0
        nursery.cancel_scope.cancel()
    assert "csi_provisioner.provision.claims" in loaded
    assert [name for name in loaded if name.startswith(NOT_WANTED)] == []
