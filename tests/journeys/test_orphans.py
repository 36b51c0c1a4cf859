"""Volumes that nobody owns any more: told, listed, adopted, deleted; with the rights that are published."""

import json
from typing import Any

import yaml

from tests.journeys.objects import CLAIM, VOLUME
from tests.journeys.world import World

HERE = "--leader-election-namespace=default"
KEPT = [f"kept-{number}" for number in range(6)]


async def listed(world: World) -> list[dict[str, Any]]:
    code, out = await world.command("orphans", HERE, "-o", "json")
    found = list(json.loads(out)["orphans"])
    assert code == (3 if found else 0)
    return found


async def listed_at_last(world: World) -> list[dict[str, Any]]:
    """What is told is noted in the cluster a little later."""
    found: list[dict[str, Any]] = []

    async def look() -> bool:
        found[:] = await listed(world)
        return any("dropped" in orphan["found"] for orphan in found)

    await world.wait("a dropped volume is listed", look)
    return found


async def test_a_retained_volume_is_told_listed_adopted_and_deleted(world: World) -> None:
    await world.stop_driver()
    await world.start_driver(controller=["CREATE_DELETE_VOLUME", "LIST_VOLUMES"])
    await world.start(HERE)
    await world.storage_class(reclaimPolicy="Retain")
    for name in KEPT:
        await world.claim(name)
    lost = await world.bound(*KEPT)
    assert await listed(world) == []
    name, handle = lost["metadata"]["name"], lost["spec"]["csi"]["volumeHandle"]
    await world.delete(CLAIM, KEPT[-1])
    await world.gone(CLAIM, KEPT[-1])
    await world.delete(VOLUME, name)
    await world.gone(VOLUME, name)
    told = await world.event(name, "VolumeDropped")
    assert handle in told["message"]
    [orphan] = await listed_at_last(world)
    assert (orphan["volumeID"], orphan["persistentVolume"]) == (handle, name)
    code, text = await world.command("orphans", HERE, "--adopt", handle)
    assert code == 0
    adopted = await world.create(VOLUME, yaml.safe_load(text))
    assert adopted["spec"]["csi"]["volumeAttributes"] == lost["spec"]["csi"]["volumeAttributes"]
    assert await listed(world) == []
    code, _ = await world.command("orphans", HERE, "--delete", handle, "--yes")
    assert code == 1
    assert handle in world.volumes()
    await world.delete(VOLUME, name)
    await world.gone(VOLUME, name)
    await world.event(name, "VolumeDropped", lambda event: event["metadata"]["uid"] != told["metadata"]["uid"])
    await listed_at_last(world)
    code, _ = await world.command("orphans", HERE, "--delete", handle, "--yes")
    assert code == 0
    assert handle not in world.volumes()
    assert await listed(world) == []
    assert await world.stop() == 0
