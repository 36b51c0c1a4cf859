"""What is installed: the product alone."""

import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent


def test_the_wheel_holds_the_product_and_nothing_else(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path))
    with zipfile.ZipFile(wheel) as archive:
        assert {"csi_provisioner/diagnostics/page.css", "csi_provisioner/diagnostics/page.js"} <= set(
            archive.namelist()
        )
        folders = {name.split("/")[0] for name in archive.namelist()}
    assert {name.split("-")[0] for name in folders} == {"csi_provisioner"}
    assert any(name.endswith(".dist-info") for name in folders)
