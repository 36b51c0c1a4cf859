"""Commands that ask the provisioner beside them find that of their own test."""

import os

import pytest

from csi_provisioner.commands import daemon
from csi_provisioner.diagnostics import asked


@pytest.fixture(autouse=True)
def no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of other processes run on this machine too: their provisioners would be waited for, on another clock."""
    for module in (asked, daemon):
        monkeypatch.setattr(module, "PREFIX", f"csi-provisioner-test-{os.getpid()}/")
