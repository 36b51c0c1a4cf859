"""The probes as documented (docs/reference/health.md), and a container with a twentieth of a processor."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
import trio
import yaml

from tests.cluster.controlplane import REPOSITORY, free_ports
from tests.journeys.real import Real

pytestmark = pytest.mark.cluster

CPU = Path("/sys/fs/cgroup/cpu")
MILLICPU = 50
PERIOD = 100_000  # microseconds, as the kubelet has it
DOCUMENTED = {
    name: {"timeoutSeconds": 1, "failureThreshold": 3} | probe
    for name, probe in yaml.safe_load((REPOSITORY / "docs/reference/health.md").read_text().split("```")[1][5:]).items()
}


@pytest.fixture
def limited() -> Iterator[tuple[str, ...]]:
    """A command that puts itself under the limit and becomes another."""
    group = CPU / f"csi-provisioner-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(PERIOD * MILLICPU // 1000))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"NOT RUN: no cgroup with a limit for the processor can be made here ({error})")
    yield "sh", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh"
    group.rmdir()


async def failures(world: Real, probe: str, port: int, *, rounds: int) -> int:
    """As the kubelet counts them: in a row, until the first success or as many as it allows."""
    found = DOCUMENTED[probe]
    url, failed = f"http://127.0.0.1:{port}{found['httpGet']['path']}", 0
    async with httpx2.AsyncClient(trust_env=False, timeout=None) as http:
        for _ in range(rounds):
            with trio.move_on_after(found["timeoutSeconds"]), suppress(httpx2.TransportError):
                if (await http.get(url)).status_code == 200:
                    return failed
            failed += 1
            await trio.sleep(found["periodSeconds"])
    return failed


async def test_the_documented_probes_leave_a_slow_start_alone_and_find_a_stopped_process(
    limited: tuple[str, ...], real_world: Real
) -> None:
    world = real_world
    world.wrapper = limited
    [port] = free_ports(1)
    await world.storage_class()
    await world.claim("data")
    await world.start(f"--http-endpoint=127.0.0.1:{port}")
    allowed = DOCUMENTED["startupProbe"]["failureThreshold"]
    assert await failures(world, "startupProbe", port, rounds=allowed) < allowed / 2
    assert await failures(world, "readinessProbe", port, rounds=12) < 12
    await world.bound("data")
    for _ in range(2):
        assert await failures(world, "livenessProbe", port, rounds=3) == 0
    world.send(signal.SIGSTOP)
    assert await failures(world, "livenessProbe", port, rounds=1) == 1
    world.send(signal.SIGCONT)
    assert await failures(world, "livenessProbe", port, rounds=3) < 3
