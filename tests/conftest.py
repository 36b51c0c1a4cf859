"""Every asynchronous test runs on Trio; a module that wants virtual time overrides `anyio_backend` with a MockClock."""

import pytest

from tests.cluster.controlplane import control_plane

__all__ = ["anyio_backend", "control_plane"]


@pytest.fixture
def anyio_backend() -> object:
    return "trio"
