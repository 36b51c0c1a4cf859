"""Volumes and snapshots as folders: `<root>/<kind>/<id>/state.json` beside `data/`. Keeps what `state` decided; decides
nothing.

The files are tiny and the disk is local, so the calls block; a sandbox does not need threads for that.
"""

import shutil
from pathlib import Path
from typing import TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)


class Disk:
    def __init__(self, root: Path) -> None:
        self._root = root

    def load(self, kind: str, type_: type[S]) -> list[S]:
        return [msgspec.json.decode(path.read_bytes(), type=type_) for path in self._root.glob(f"{kind}/*/state.json")]

    def create(self, kind: str, id_: str, state: msgspec.Struct, *, copy_of: tuple[str, str] | None = None) -> None:
        """Make the folder, with the data of another one; the state file comes last, so that half a folder does not
        count.
        """
        data = self._folder(kind, id_) / "data"
        # A clone and a restored snapshot begin with the data of their source.
        if copy_of:
            shutil.copytree(self._folder(*copy_of) / "data", data)
        else:
            data.mkdir(parents=True)
        self.save(kind, id_, state)

    def save(self, kind: str, id_: str, state: msgspec.Struct) -> None:
        folder = self._folder(kind, id_)
        # Written beside and renamed: a crash leaves the old state or the new one, never half of one.
        fresh = folder / "state.json.new"
        fresh.write_bytes(msgspec.json.encode(state))
        fresh.replace(folder / "state.json")

    def remove(self, kind: str, id_: str) -> None:
        shutil.rmtree(self._folder(kind, id_))

    def _folder(self, kind: str, id_: str) -> Path:
        return self._root / kind / id_
