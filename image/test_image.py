"""The built image as a container would have it: `nox -s image` mounts its variants and hands them over in IMAGES.

An engine's own way to run containers needs cgroups that not every machine gives, so the few things that count are done
here: namespaces of its own, a read-only root, the user, no new privileges. The API server and the driver are the
sandbox's, on the real clock.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from sandbox.driver import Config
from tests.embedded import embedded

PROGRAM = "/opt/csi-provisioner/bin/csi-provisioner"
COMMANDS = ("explain", "check", "orphans")
SHELLS = {"sh", "bash", "dash", "busybox", "dpkg", "apt"}
GROUP = 2000  # of the driver's socket, as `fsGroup` gives it
# seconds for a start on a machine that has other work
PATIENCE = 60.0


@dataclass(frozen=True)
class Image:
    variant: str
    root: Path
    config: dict[str, Any]
    layers: list[Path]

    def command(self, *arguments: str, user: str = "", mounts: Sequence[Path] = (), **environment: str) -> list[str]:
        """Runs them in a container; `mounts` are folders that it sees below /run."""
        lines = [
            'mkdir -p "$0/proc" "$0/dev" "$0/run"',
            'mount --bind "$0" "$0"',
            'mount -t proc proc "$0/proc"',
            'mount --bind /dev "$0/dev"',
        ]
        lines += [f'mount -t tmpfs none "$0/run" && mkdir -p "$0/run{folder}"' for folder in mounts]
        lines += [f'mount --bind {folder} "$0/run{folder}"' for folder in mounts]
        given = [*self.config["Env"], *(f"{name}={value}" for name, value in environment.items())]
        enter = f"{shutil.which('setpriv')} --no-new-privs {shutil.which('chroot')} {user}"
        lines += ['mount -o remount,bind,ro "$0"', f'exec env -i {shlex.join(given)} {enter} "$0" "$@"']
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return [*isolated, "sh", "-ec", "\n".join(lines), str(self.root), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)


@pytest.fixture
def anyio_backend() -> object:
    return "trio"


@pytest.fixture(params=["slim", "distroless"], scope="module")
def image(request: pytest.FixtureRequest) -> Image:
    """As a build with one fixed time for all files leaves it."""
    folder = Path(os.environ["IMAGES"]) / request.param
    root = (folder / "root").resolve()
    for file in (root, *root.rglob("*")):
        os.utime(file, (0, 0), follow_symlinks=False)
    [described] = json.loads((folder / "oci" / "index.json").read_text())["manifests"]
    manifest = json.loads(_blob(folder, described).read_text())
    config = json.loads(_blob(folder, manifest["config"]).read_text())["config"]
    return Image(request.param, root, config, [_blob(folder, layer) for layer in manifest["layers"]])


def _blob(folder: Path, description: dict[str, str]) -> Path:
    return folder / "oci" / "blobs" / description["digest"].replace(":", "/")


class Started:
    """A provisioner whose claim is bound."""

    def __init__(self, process: trio.Process, log: Path, seconds: float) -> None:
        self._process = process
        # the first process of the namespace, a child of `unshare`
        self.pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        self.seconds = seconds
        self.log = log
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        self.cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        self.status = dict(re.findall(r"(\w+):\t(.*)", Path(f"/proc/{self.pid}/status").read_text()))

    async def stop(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        with trio.fail_after(PATIENCE):
            return await self._process.wait()


@asynccontextmanager
async def started(
    image: Image, folder: Path, *, user: str, group: int, mode: int, **environment: str
) -> AsyncIterator[Started]:
    """The socket is root's and `group`'s, with that mode; all else is for everybody to read."""
    async with embedded(folder) as cluster, trio.open_nursery() as nursery:
        config = Config()
        await cluster.driver(config)
        cluster.storage_class("fast", config.name, late=False)
        cluster.claim("data", "fast")
        socket = cluster.socket(config)
        os.chown(socket, 0, group)
        os.chmod(socket, mode)
        os.chmod(folder, 0o755)
        flags = [f"--csi-address=/run{socket}", f"--kubeconfig=/run{folder}/kubeconfig"]
        command = image.command("/csi-provisioner", *flags, user=user, mounts=[folder], **environment)
        begin = time.monotonic()
        log = folder / "log"
        with log.open("w") as out:
            run = partial(trio.run_process, command, stdout=out, stderr=out, check=False)
            process = await nursery.start(run)
        try:
            with trio.fail_after(PATIENCE):
                while not cluster.is_bound("data"):
                    assert process.returncode is None, log.read_text()
                    await trio.sleep(0.005)
        except trio.TooSlowError:
            pytest.fail(f"the claim is not bound: {log.read_text()}")
        yield Started(process, log, time.monotonic() - begin)
        nursery.cancel_scope.cancel()


async def test_a_user_of_the_sockets_group_needs_no_capability_and_no_writable_root(
    image: Image, tmp_path: Path
) -> None:
    user = f"--userspec=65532:65532 --groups={GROUP}"
    async with started(image, tmp_path, user=user, group=GROUP, mode=0o770) as run:
        assert run.status["Uid"].split() == ["65532"] * 4
        assert {run.status[each] for each in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert run.status["NoNewPrivs"] == "1"
        assert not os.access(f"/proc/{run.pid}/root/tmp", os.W_OK)
        print(f"\n{image.variant}: bound after {run.seconds:.2f} s, {run.cpu:.2f} s of CPU")
        assert await run.stop() == 0


async def test_without_a_user_it_reaches_a_socket_that_is_roots_alone(image: Image, tmp_path: Path) -> None:
    async with started(image, tmp_path, user="", group=0, mode=0o755) as run:
        assert run.status["Uid"].split() == ["0"] * 4
        assert await run.stop() == 0


async def test_a_start_compiles_nothing(image: Image, tmp_path: Path) -> None:
    async with started(image, tmp_path, user="", group=0, mode=0o755, PYTHONVERBOSE="1") as run:
        await run.stop()
        origins = re.findall(r"# code object from '?(\S+?)'?$", run.log.read_text(), re.MULTILINE)
    assert len(origins) > 300
    assert [origin for origin in origins if not origin.endswith(".pyc")] == []


def test_no_user_is_named(image: Image) -> None:
    """Drivers' sockets are mostly root's with mode 0755, and the image that this one replaces names none either."""
    assert not image.config.get("User")


def test_the_program_is_where_manifests_look_for_it(image: Image) -> None:
    links = ("csi-provisioner", "usr/bin/csi-provisioner", *COMMANDS)
    assert {name: os.readlink(image.root / name) for name in links} == dict.fromkeys(links, PROGRAM)
    assert image.config["Entrypoint"] == ["/csi-provisioner"]
    for name in links[:2]:
        assert image.run(f"/{name}", "--version").stdout.startswith(f"/{name} ")


@pytest.mark.parametrize("command", COMMANDS)
def test_under_a_commands_name_no_second_daemon_starts(image: Image, command: str) -> None:
    assert image.run(f"/{command}", "--help").stdout.startswith(f"Usage: csi-provisioner {command}")


def test_there_is_no_installer_and_no_compiler(image: Image) -> None:
    asked = image.run("/opt/csi-provisioner/bin/python", "-c", "import pip")
    assert "No module named 'pip'" in asked.stderr
    unwanted = {"gcc", "cc", "ld", "pip", "pip3"} | (SHELLS if image.variant == "distroless" else set())
    programs = {file.name for folder in ("usr/bin", "usr/sbin") for file in (image.root / folder).iterdir()}
    assert programs & unwanted == set()


def test_its_labels_say_what_it_is(image: Image) -> None:
    labels = image.config["Labels"]
    prefix = "org.opencontainers.image."
    wanted = ("title", "description", "licenses", "version", "revision", "source")
    assert {name for name in wanted if labels.get(prefix + name)} == set(wanted)
    assert labels[f"{prefix}licenses"] == "Apache-2.0"


def test_dependencies_and_code_are_layers_of_their_own(image: Image) -> None:
    packages = re.compile(r"opt/csi-provisioner/lib/python[\d.]+/site-packages/(\w+)/__init__\.py")
    found = []
    for layer in image.layers:
        with tarfile.open(layer) as archive:
            found.append({match[1] for name in archive.getnames() if (match := packages.fullmatch(name))})
    *_, dependencies, code = found
    assert code == {"csi_provisioner"}
    assert {"trio", "grpclib", "lightkube"} <= dependencies


def test_it_is_small(image: Image) -> None:
    size = sum(layer.stat().st_size for layer in image.layers) / 1e6
    print(f"\n{image.variant}: {size:.1f} MB compressed")
    assert size < {"slim": 75, "distroless": 60}[image.variant]
