"""The world of processes of the journeys."""

from tests.journeys.conftest import anyio_backend, real_world

__all__ = ["anyio_backend", "real_world"]
