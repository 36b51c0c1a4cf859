"""A driver that can do everything, on virtual time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.installation import Installation, anyio_backend, installation
from tests.rights.life import CONFIG

__all__ = ["anyio_backend"]


@pytest.fixture
async def site(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, CONFIG) as one:
        yield one
