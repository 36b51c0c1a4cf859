"""Whole provisionings on virtual time: one driver, one provisioner, a cluster of the sandbox."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from csi_provisioner.sandbox.driver import Config
from tests.embedded import VIRTUAL
from tests.installation import Installation, installation


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
async def site(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, Config()) as one:
        yield one
