"""`world` is both worlds, one after the other: a journey is written once and holds in either."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import canary
from tests.cluster.controlplane import ControlPlane
from tests.embedded import VIRTUAL
from tests.journeys.embedded import Embedded, embedded
from tests.journeys.real import Real, real
from tests.journeys.world import World

SANDBOX, CLUSTER = "sandbox", "cluster"


@pytest.fixture(params=[SANDBOX, pytest.param(CLUSTER, marks=pytest.mark.cluster)])
def tier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Virtual time where everything is in this process; a cluster has its own clock."""
    in_cluster = "real_world" in request.fixturenames
    if "tier" in request.fixturenames:
        in_cluster = request.getfixturevalue("tier") == CLUSTER
    return "trio" if in_cluster else VIRTUAL


@pytest.fixture
async def sandbox_world(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Embedded]:
    async with embedded(tmp_path) as world:
        yield world


@pytest.fixture
async def real_world(anyio_backend: object, tmp_path: Path, control_plane: ControlPlane) -> AsyncIterator[Real]:
    async with real(control_plane, tmp_path) as world:
        yield world


@pytest.fixture
def plane(tier: str, request: pytest.FixtureRequest) -> ControlPlane | None:
    """Started outside of the test's event loop, which it outlives."""
    found: ControlPlane | None = request.getfixturevalue("control_plane") if tier == CLUSTER else None
    return found


@pytest.fixture
async def world(anyio_backend: object, plane: ControlPlane | None, tmp_path: Path) -> AsyncIterator[World]:
    if plane is None:
        async with embedded(tmp_path) as one:
            yield one
    else:
        async with real(plane, tmp_path) as other:
            yield other
            canary.look("log of the process", other.log())
