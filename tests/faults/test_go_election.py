"""An election against client-go's, the library that every Go sidecar elects with, on the real control plane."""

import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cluster.controlplane import REPOSITORY
from tests.faults.test_leaders import LEADS, as_leader, reads, running
from tests.journeys.real import Real

pytestmark = pytest.mark.cluster

THEIRS = "node-1"
"""As a Go sidecar calls itself: by its host's name."""
LEASE = 6.0
TIMES = {"lease-duration": "6s", "renew-deadline": "4s", "retry-period": "1s"}
OURS = tuple(f"--leader-election-{name}={value}" for name, value in TIMES.items())


class Elector:
    """client-go, in a process of its own, after the same Lease as the provisioner of this world."""

    def __init__(self, world: Real, program: str, log: Path) -> None:
        self._world = world
        self._log = log
        config, name = world.plane.provisioner_kubeconfig, world.driver.replace(".", "-")
        election = {"kubeconfig": config, "namespace": world.lease_namespace, "name": name, "identity": THEIRS}
        self._command = [program, *(f"--{flag}={value}" for flag, value in (election | TIMES).items())]

    @asynccontextmanager
    async def competing(self, *flags: str) -> AsyncIterator[trio.Process]:
        with self._log.open("wb") as log:
            process = await trio.lowlevel.open_process([*self._command, *flags], stdout=log, stderr=log)
        async with running(process):
            yield process

    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()

    async def says(self, line: str) -> None:
        async def said() -> bool:
            return line in self.lines()

        await self._world.wait(f"client-go says {line!r}", said)


@pytest.fixture
def go(real_world: Real, tmp_path: Path) -> Elector:
    build = REPOSITORY / "tests" / "controlplane" / "elector" / "build"
    built = subprocess.run([build], check=False, capture_output=True, text=True)
    if built.returncode:
        pytest.skip(f"NOT RUN: {built.stderr.strip()}")
    return Elector(real_world, built.stdout.strip(), tmp_path / "elector.log")


async def lease(world: Real) -> dict[str, Any]:
    name = world.driver.replace(".", "-")
    code, found = await world.api.request(
        "GET", f"/apis/coordination.k8s.io/v1/namespaces/{world.lease_namespace}/leases/{name}"
    )
    assert code == 200, found
    spec: dict[str, Any] = found["spec"]
    return spec


async def took_over(world: Real, before: dict[str, Any]) -> dict[str, Any]:
    """Both count a take-over, and both say when it was."""
    now = await lease(world)
    assert now["leaseTransitions"] == before["leaseTransitions"] + 1
    assert datetime.fromisoformat(now["acquireTime"]) > datetime.fromisoformat(before["acquireTime"])
    assert now["leaseDurationSeconds"] == LEASE
    return now


async def test_ours_and_client_go_never_lead_at_once(real_world: Real, go: Elector, tmp_path: Path) -> None:
    world, log = real_world, tmp_path / "ours.log"
    await world.storage_class()
    async with running(await world.another(log, *as_leader(world), *OURS)) as ours:
        await reads(world, log, LEADS)
        async with go.competing():
            held = await lease(world)
            await go.says(f"sees {held['holderIdentity']}")
            await trio.sleep(LEASE + 3)
            assert "leads" not in go.lines()
            ours.kill()
            with trio.fail_after(LEASE + 4):
                await go.says("leads")
            theirs = await took_over(world, held)
            assert theirs["holderIdentity"] == THEIRS

            # It leads: ours stands by, and starts nothing.
            await world.claim("data")
            log = tmp_path / "standby.log"
            async with running(await world.another(log, *as_leader(world), *OURS)):
                await reads(world, log, "The lease has a holder")
                await trio.sleep(LEASE + 3)
                assert world.calls("CreateVolume") == []
                assert (await lease(world))["leaseTransitions"] == theirs["leaseTransitions"]


async def test_each_takes_over_from_the_other_at_once_where_it_gives_the_lease_back(
    real_world: Real, go: Elector, tmp_path: Path
) -> None:
    world, log = real_world, tmp_path / "ours.log"
    await world.storage_class()
    async with go.competing("--release") as theirs:
        await go.says("leads")
        held = await lease(world)
        async with running(await world.another(log, *as_leader(world), *OURS)):
            await reads(world, log, "The lease has a holder")
            theirs.send_signal(signal.SIGTERM)
            await theirs.wait()
            with trio.fail_after(3):
                await reads(world, log, LEADS)
            held = await took_over(world, held)
            await world.claim("data")
            await world.bound("data")

            # A leader of ours that has lost its driver gives the lease back, as client-go does at its end.
            async with go.competing() as theirs:
                await world.stop_driver()
                await reads(world, log, "Gave the lease back")
                with trio.fail_after(4):
                    await go.says("leads")
                held = await took_over(world, held)
                await world.start_driver()
                await reads(world, log, "CSI driver is back")
                await trio.sleep(LEASE)
                assert (await lease(world))["holderIdentity"] == THEIRS
                theirs.kill()
                with trio.fail_after(LEASE + 4):
                    await reads(world, log, LEADS, times=2)
                await took_over(world, held)
            await world.claim("late")
            await world.bound("late")
