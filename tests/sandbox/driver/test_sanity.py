"""The driver passes csi-sanity, the conformance suite for CSI drivers, for the services it has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "controlplane/csi-sanity/build"


@pytest.fixture(scope="session")
def csi_sanity() -> str:
    if given := os.environ.get("CSI_SANITY"):
        return given
    built = subprocess.run([BUILD], capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"csi-sanity cannot be built here: {built.stderr.strip()}")
    return built.stdout.strip()


@pytest.mark.cluster
@pytest.mark.parametrize("kept", [True, False], ids=["folders", "memory"])
def test_passes_csi_sanity(csi_sanity: str, tmp_path: Path, kept: bool) -> None:
    socket = tmp_path / "csi.sock"
    folder = ["--folder", str(tmp_path / "volumes")] if kept else []
    command = [sys.executable, "-m", "sandbox.driver", "--socket", str(socket), *folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout
            assert "listening" in driver.stdout.readline()
            focus = "--ginkgo.focus=Identity Service|Controller Server"  # Controller Service and the snapshot parts
            sanity = subprocess.run(
                [csi_sanity, f"--csi.endpoint=unix://{socket}", focus, "--ginkgo.no-color"],
                capture_output=True,
                text=True,
                check=False,
                cwd=tmp_path,
            )
        finally:
            driver.terminate()
    assert sanity.returncode == 0, sanity.stdout
    assert " 0 Failed" in sanity.stdout
    assert driver.returncode == 0
