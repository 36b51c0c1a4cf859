"""What keeps the process from the driver's socket is said at once, with what to do about it (process.md 4.2)."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
import trio.testing

from csi_provisioner.csi.channel import Channel
from csi_provisioner.csi.driver import Driver
from csi_provisioner.fatal import Fatal
from csi_provisioner.settings import CsiSettings
from tests.csi.counted import Counted

NOBODY = 65534


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0.01)})


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """Not in pytest's folder: each run of pytest closes that to others, also while this one goes on."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Where we are root, to whom nothing is closed."""
    if os.getuid() == 0:
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        if os.getuid() == NOBODY:
            os.setresuid(0, 0, 0)


def _missing(path: Path) -> None:
    pass


def _folder_missing(path: Path) -> None:
    path.parent.rmdir()


def _folder(path: Path) -> None:
    path.mkdir()


def _file(path: Path) -> None:
    path.touch()


def _left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    path.chmod(0o777)


def _closed(path: Path) -> None:
    _left_behind(path)
    path.chmod(0o755)


def _folder_closed(path: Path) -> None:
    _left_behind(path)
    path.parent.chmod(0o700)


CAUSES: dict[Callable[[Path], None], tuple[str, str]] = {
    _missing: ("{path}: No such file or directory;", "container running"),
    _folder_missing: ("{path}: No such file or directory: {folder};", "folder mounted here"),
    _folder: ("{path} is a folder, no socket;", "--csi-address has to name the socket itself"),
    _file: ("{path} is a file, no socket;", "--csi-address has to name the socket itself"),
    _left_behind: ("{path}: Connection refused;", "See its own log"),
    _closed: (
        f"{{path}}: Permission denied to uid {NOBODY}: {{path}} has owner 0, group 0, mode 0755;",
        "let the group write",
    ),
    _folder_closed: (
        f"{{path}}: Permission denied to uid {NOBODY}: {{folder}} has owner 0, group 0, mode 0700;",
        "share its group",
    ),
}


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__.strip("_"))
async def test_what_is_in_the_way_is_said_with_advice(
    open_to_all: Path, capsys: pytest.CaptureFixture[str], cause: Callable[[Path], None]
) -> None:
    """process.md 4.2."""
    if "closed" in cause.__name__ and os.getuid():
        pytest.skip("only root can be somebody else")
    path = open_to_all / "driver" / "csi.sock"
    path.parent.mkdir()
    cause(path)
    said, advice = CAUSES[cause]
    said = f"socket {said.format(path=path, folder=path.parent)}"
    async with Channel(str(path), on_lost=lambda: None, metrics=Counted()) as channel:
        with as_nobody():
            with trio.move_on_after(5):
                await channel.wait_connected()
            [line] = capsys.readouterr().err.splitlines()
            assert line.startswith("W")
            assert said.removesuffix(";") in line
            assert advice in line
            with pytest.raises(Fatal) as caught:
                await Driver(channel, CsiSettings(address=str(path))).connect(limit=30)
    assert said in str(caught.value)
    assert advice in str(caught.value)


async def test_the_same_is_not_said_at_every_try_but_what_is_new_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """process.md 4.2."""
    path = tmp_path / "csi.sock"
    async with Channel(str(path), on_lost=lambda: None, metrics=Counted()) as channel:
        with trio.move_on_after(25):
            await channel.wait_connected()
        path.mkdir()
        with trio.move_on_after(5):
            await channel.wait_connected()
    said = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert [line.split('"')[1] for line in said] == [
        "No connection to the CSI driver yet",
        "Still connecting to the CSI driver",
        "Still connecting to the CSI driver",
        "No connection to the CSI driver yet",
    ]
    assert ["No such file" in line for line in said] == [True, True, True, False]
