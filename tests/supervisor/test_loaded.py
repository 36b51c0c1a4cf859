"""What a driver's features need is loaded when it is met: later there may be no file left to open."""

import sys

import pytest
from msgspec.structs import replace

from csi_provisioner import protection
from csi_provisioner.migration import registry
from tests.installation import Installation

SWEEP = "csi_provisioner.protection.snapshots"


async def test_what_migration_and_snapshots_need_is_there_before_the_work_begins(
    site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.known.cache_clear()
    monkeypatch.delitem(sys.modules, SWEEP, raising=False)
    monkeypatch.delattr(protection, "snapshots", raising=False)  # where an earlier import has left it
    site.kill_driver()
    await site.rest(0.1)
    await site.serve(replace(site.config, name="ebs.csi.aws.com"))
    loaded: list[tuple[int, bool]] = []
    await site.start(synced=lambda: loaded.append((registry.known.cache_info().currsize, SWEEP in sys.modules)))
    assert loaded == [(1, True)]
