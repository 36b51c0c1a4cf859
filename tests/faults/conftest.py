"""The worlds of the journeys, and one whose way to the API server leads through a gateway."""

from collections.abc import AsyncIterator

import pytest

from tests.faults.gateway import Gateway, gateway
from tests.journeys.conftest import anyio_backend, real_world, sandbox_world
from tests.journeys.real import Real

__all__ = ["anyio_backend", "real_world", "sandbox_world"]


@pytest.fixture
async def gate(real_world: Real) -> AsyncIterator[Gateway]:
    """In force for whatever provisioner `real_world` starts from now on."""
    plane = real_world.plane
    async with gateway(plane) as open_gate:
        server, file = f"http://127.0.0.1:{open_gate.port}", f"gateway-{open_gate.port}.kubeconfig"
        real_world.kubeconfig = plane.kubeconfig("provisioner", server=server, file=file)
        yield open_gate
