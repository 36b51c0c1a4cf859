"""Every asynchronous test runs on Trio; a module that wants virtual time overrides `anyio_backend` with a MockClock."""

import pytest


@pytest.fixture
def anyio_backend() -> object:
    return "trio"
