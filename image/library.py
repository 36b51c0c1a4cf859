"""Of a copy of the standard library in FOLDER leaves the byte code of what the program imports, and nothing else.

    python library.py FOLDER

Neither base image has byte code of the standard library, and compiling it is half of a start. It is never compared with
its source (`unchecked-hash`): images are built with other times than their files had.
"""

import importlib
import pkgutil
import py_compile
import sys
import sysconfig
from pathlib import Path

import csi_provisioner

UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH
# what a run imports late: at the first name that is looked up
LATE = ("encodings.idna", "stringprep")


def imported() -> list[Path]:
    """The files of the standard library's modules that the program's modules stand on."""
    for module in pkgutil.walk_packages(csi_provisioner.__path__, "csi_provisioner."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    library = Path(sysconfig.get_path("stdlib"))
    files = [Path(module.__file__) for module in sys.modules.values() if getattr(module, "__file__", None)]
    return sorted(file for file in files if file.suffix == ".py" and file.is_relative_to(library))


def main(folder: Path) -> None:
    made = set()
    for file in imported():
        copy = folder / file.relative_to("/")
        if copy.exists():  # else the base has no such module, and does not import it
            made.add(py_compile.compile(str(copy), dfile=str(file), doraise=True, invalidation_mode=UNCHECKED))
    for file in folder.rglob("*"):
        if not file.is_dir() and str(file) not in made:
            file.unlink()
    for empty in sorted((one for one in folder.rglob("*") if one.is_dir()), reverse=True):
        if not any(empty.iterdir()):
            empty.rmdir()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
