"""A driver that is newer than we are: capabilities without a name, and fields that nobody knows, change nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from csi_provisioner.csi import wire
from csi_provisioner.model import csi
from sandbox.driver.newer import EXTRA
from tests.installation import CLAIM, VOLUME, Installation, installation
from tests.journeys.objects import from_claim, from_snapshot
from tests.newer_driver import encoded
from tests.protobuf import message
from tests.provision.test_placement import ZONE, ZONED

NEWER = msgspec.structs.replace(
    ZONED, plugin=(*ZONED.plugin, 99), controller=(*ZONED.controller, 99), unknown_fields=True
)


@pytest.fixture
async def site(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, NEWER) as one:
        yield one


async def test_a_journey_with_a_newer_driver(site: Installation) -> None:
    for number in (1, 2, 3):
        site.cluster.node(f"n{number}", NEWER.name, zone=f"z-{number}")
    site.storage_class("now")
    site.cluster.storage_class("late", NEWER.name)
    site.snapshot("snap")
    await site.start()
    site.claim("plain", "now")
    site.cluster.claim("placed", "late", node="n2")
    site.claim("restored", "now", **from_snapshot("snap"))
    await site.bound("plain", "placed", "restored")
    site.claim("copied", "now", **from_claim("plain"))
    await site.bound("copied")
    placed = site.get(VOLUME, site.volume_of("placed"))["spec"]
    assert placed["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] == ["z-2"]
    assert {call.code for call in site.calls()} == {"OK"}
    for name in ("plain", "placed", "restored", "copied"):
        site.delete(CLAIM, name)
    await site.until(lambda: not site.objects.all(VOLUME))
    assert len(site.calls("DeleteVolume")) == 4
    assert ZONE in str(placed)
    assert [line for line in site.lines if line.traceback] == []


@pytest.mark.parametrize("name", ["GetPluginCapabilitiesResponse", "ControllerGetCapabilitiesResponse"])
def test_the_driver_of_the_comparison_has_capabilities_of_number_99(name: str) -> None:
    found = wire.decode(encoded(message(name)()), getattr(csi, name))
    [capability] = found.capabilities
    kind = capability.service if name.startswith("GetPlugin") else capability.rpc
    assert kind.type == 99


def test_the_driver_of_the_comparison_has_unknown_fields_in_every_message() -> None:
    made = message("CreateVolumeResponse")()
    made.volume.volume_id = "v"
    made.volume.accessible_topology.add().segments[ZONE] = "z-1"
    data = encoded(made)
    assert data.count(EXTRA) == 3
    found = wire.decode(data, csi.CreateVolumeResponse).volume
    assert found is not None
    assert (found.volume_id, found.accessible_topology[0].segments) == ("v", {ZONE: "z-1"})
