"""A commit installed as people install it: a wheel in a virtual environment of its own, with that commit's pins."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "csi-provisioner" / "bench"


class Build:
    """`name` is what the tables call it. Built once and kept in the cache, under the commit's hash."""

    def __init__(self, name: str, commit: str, flags: str = "") -> None:
        self.name = name
        self._python = _installed(commit)
        self._flags = shlex.split(flags)
        help_text = subprocess.run([*self._program(), "--help"], capture_output=True, text=True, check=False)
        self._known = set(re.findall(r"^\s*--?([\w-]+)", help_text.stdout + help_text.stderr, re.MULTILINE))

    def command(self, flags: list[str]) -> str:
        """Its command line with those of the flags that it knows: an older one lacks some."""
        known = [flag for flag in [*flags, *self._flags] if flag.lstrip("-").partition("=")[0] in self._known]
        return f"{shlex.join(self._program())} {' '.join(known)}"

    def _program(self) -> list[str]:
        # -I: in the root of the repository, or with PYTHONPATH, `-m` would find this tree's code, not what is installed
        return [str(self._python), "-I", "-m", "csi_provisioner"]


def here() -> str:
    """The commit of the working tree as it stands; what is not committed yet is in a commit that no branch names."""
    return _git("stash", "create") or _git("rev-parse", "HEAD")


def commit(name: str) -> str:
    return _git("rev-parse", f"{name}^{{commit}}")


def _installed(commit: str) -> Path:
    folder = CACHE / commit
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        source = folder / "source"
        source.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x"], cwd=source, input=archive, check=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "-c", str(source / "constraints.txt"), str(source)]
        subprocess.run(install, check=True, env=_compiling())
        (folder / "whole").touch()
    return python


def _compiling() -> dict[str, str]:
    """With byte code, as an installer makes it: a start that compiles is 0.1 s longer than any that people see."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
