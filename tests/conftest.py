"""Every asynchronous test runs on Trio; a module that wants virtual time overrides `anyio_backend` with a MockClock."""

# Early: pytest's plugin imports it at the very end otherwise, and after the gc.freeze() of a test that ran the whole
# program it no longer recognises Trio's random generator as a lasting object.
import hypothesis  # noqa: F401
import pytest

from tests.cluster.controlplane import control_plane

__all__ = ["anyio_backend", "control_plane"]


@pytest.fixture
def anyio_backend() -> object:
    return "trio"
