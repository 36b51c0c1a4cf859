"""Claims from snapshots that cannot be restored everywhere, with the gate VolumeSnapshotTopology (topology.md 5)."""

import msgspec
import pytest

from csi_provisioner.settings import Gates, ProvisioningSettings
from tests.deletion.released import reconfigured
from tests.installation import CONTENT, Installation
from tests.journeys.objects import from_snapshot
from tests.provision.test_placement import ZONE, ZONED


@pytest.fixture
async def zoned(site: Installation) -> Installation:
    """Three zones, and a snapshot that is only in the third."""
    await reconfigured(site, msgspec.structs.replace(ZONED, node_id=site.config.node_id))
    for number in (1, 2, 3):
        site.cluster.node(f"n{number}", site.config.name, zone=f"z-{number}")
    site.storage_class("now")
    site.cluster.storage_class("late", site.config.name)
    site.snapshot("snap")
    place = {"matchLabelExpressions": [{"key": ZONE, "values": ["z-3"]}]}
    site.edit(CONTENT, "content-of-snap", lambda content: content["spec"].update(nodeAffinity=[place]))
    return site


async def _start(site: Installation, *, on: bool = True) -> None:
    provisioning = ProvisioningSettings(extra_create_metadata=True, snapshot_topology=on)
    await site.start(gates=Gates(snapshot_topology=on), provisioning=provisioning)


def _asked(site: Installation) -> list[str]:
    requirement = site.calls()[-1].request.accessibility_requirements
    return [term.segments[ZONE] for term in requirement.requisite]


async def test_a_volume_is_asked_for_where_its_snapshot_is(zoned: Installation) -> None:
    await _start(zoned)
    zoned.claim("a", "now", **from_snapshot("snap"))
    await zoned.bound("a")
    assert _asked(zoned) == ["z-3"]
    zoned.claim("plain", "now")
    await zoned.bound("plain")
    assert _asked(zoned) == ["z-1", "z-2", "z-3"]


async def test_without_the_gate_it_is_asked_for_anywhere(zoned: Installation) -> None:
    await _start(zoned, on=False)
    zoned.claim("a", "now", **from_snapshot("snap"))
    await zoned.until(zoned.calls)
    assert _asked(zoned) == ["z-1", "z-2", "z-3"]


async def test_a_class_that_allows_none_of_its_places_is_refused(zoned: Installation) -> None:
    expressions = [{"key": ZONE, "values": ["z-1", "z-2"]}]
    zoned.storage_class("elsewhere", allowedTopologies=[{"matchLabelExpressions": expressions}])
    await _start(zoned)
    zoned.claim("a", "elsewhere", **from_snapshot("snap"))
    event = await zoned.event("a", "ProvisioningFailed", 2)
    assert "cannot be restored where StorageClass elsewhere allows volumes" in event["message"]
    assert zoned.calls() == []


@pytest.mark.parametrize(("node", "said"), [("n1", True), ("n3", False)])
async def test_a_call_that_fails_for_a_selected_node_says_whether_the_snapshot_is_there(
    zoned: Installation, node: str, said: bool
) -> None:
    await _start(zoned)
    zoned.fault("INTERNAL", message="no such snapshot here")
    zoned.cluster.claim("a", "late", node=node, **from_snapshot("snap"))
    event = await zoned.event("a", "ProvisioningFailed")
    place = f"; VolumeSnapshot default/snap is accessible only from {ZONE}=z-3, and selected node {node} ({ZONE}=z-1)"
    assert ("no such snapshot here" + place in event["message"]) is said
    assert len(_asked(zoned)) == 3
