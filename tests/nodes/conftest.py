"""A cluster for provisioners that run on every node."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.embedded import Cluster, embedded


@pytest.fixture
async def cluster(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with embedded(tmp_path) as made:
        yield made
