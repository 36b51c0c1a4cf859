"""Who leads next, on the real control plane."""

import os
import time
from pathlib import Path
from uuid import uuid4

import pytest

from tests.journeys.real import Real

pytestmark = pytest.mark.cluster


def in_a_container(folder: Path) -> tuple[str, ...]:
    """A command that mounts what a kubelet mounts into a container; its last part is new at every start."""
    roots, mounted = folder / "pods" / str(uuid4()) / "containers" / "csi-provisioner", folder / "termination-log"
    roots.mkdir(parents=True)
    mounted.touch()
    log = "log=$1/$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')"
    mount = f'{log}; touch "$log"; mount --bind "$log" "$2"; shift 2; exec "$@"'
    return "unshare", "-m", "sh", "-ec", mount, "sh", str(roots), str(mounted)


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount as the kubelet makes it needs root")
async def test_a_container_that_was_killed_leads_again_at_once(real_world: Real, tmp_path: Path) -> None:
    world = real_world
    world.wrapper = in_a_container(tmp_path)
    election = ("--leader-election", f"--leader-election-namespace={world.plane.provisioner[0]}")

    def terms() -> int:
        return world.log().count("Became leader")

    async def leads(again: int) -> None:
        async def yes() -> bool:
            return terms() == again

        await world.wait("the process leads", yes)

    await world.storage_class()
    await world.start(*election)
    await leads(1)
    await world.kill()
    since = time.monotonic()
    await world.start(*election)
    await leads(2)
    # The interpreter's start is in it; the lease would have lasted for 15 seconds.
    assert time.monotonic() - since < 5
    await world.claim("data")
    await world.bound("data")
    assert "taking a random one" not in world.log()
