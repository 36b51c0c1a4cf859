"""Every asynchronous test runs on Trio; a module that wants virtual time overrides `anyio_backend` with a MockClock."""

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

from csi_provisioner.commands import daemon
from csi_provisioner.diagnostics import asked
from tests import runner
from tests.cluster.controlplane import control_plane

__all__ = ["anyio_backend", "control_plane"]
pytest_plugins = ["tests.canary"]


@pytest.fixture
def anyio_backend() -> object:
    return "trio"


def pytest_configure() -> None:
    runner.install()
    # How long an example takes says something of the machine only: its first one may have to wait for a processor. And
    # the suite has the same examples each time; others are looked for with --hypothesis-profile=search.
    untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("suite", untimed, derandomize=True, database=None)
    settings.register_profile("search", untimed, derandomize=False)
    settings.load_profile("suite")
    # A command asks all provisioners of its network. Those of tests in other processes live on another virtual clock:
    # each would be waited for, or find a stranger at its socket.
    for module in (asked, daemon):
        module.PREFIX = f"csi-provisioner-test-{os.getpid()}/"


def pytest_collection_finish() -> None:
    """The collector comes less often: what the suite has imported made each of its rounds long."""
    gc.set_threshold(10_000, 20, 20)
