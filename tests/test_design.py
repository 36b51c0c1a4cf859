"""docs/design.md draws the house as it is: its folders, its files, and who may import whom."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
DESIGN = (ROOT / "docs" / "design.md").read_text()
PRODUCT = ROOT / "csi_provisioner"


def drawn() -> dict[str, set[str]]:
    """Folder -> what the map says is in it; "" for the files at the top."""
    lines = DESIGN.partition("    csi_provisioner/\n")[2].partition("    sandbox/")[0].splitlines()
    found: dict[str, set[str]] = {"": set()}
    folder = ""
    for line in lines:
        first, *rest = line.split()
        if line[6] != " ":
            folder = first.rstrip("/")
            found[folder] = set(rest)
        else:
            found[folder] |= {first, *rest}
    return found


def built(folder: str) -> set[str]:
    names = {path.name for path in (PRODUCT / folder).iterdir() if not path.name.startswith("__")}
    files = {name.removesuffix(".py") for name in names if name.endswith(".py")}
    return files if not folder else files | {f"{name}/" for name in names if (PRODUCT / folder / name).is_dir()}


def test_the_map_shows_every_folder_and_file() -> None:
    folders = {path.name for path in PRODUCT.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert drawn().keys() == {"", *folders}
    assert drawn() == {folder: built(folder) for folder in drawn()}


def test_the_layers_are_those_that_are_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [contract] = [contract for contract in settings["contracts"] if contract["type"] == "layers"]
    checked = [re.sub("[()]", "", layer) for layer in contract["layers"]]
    [line] = [line.strip() for line in DESIGN.splitlines() if line.startswith("    cli > ")]
    assert line.split(" > ") == checked
