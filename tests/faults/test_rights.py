"""Rights on PersistentVolumes that are missing, on the real control plane: told on the claim, and nothing is lost."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from tests.cluster.controlplane import ControlPlane
from tests.journeys.real import Real
from tests.journeys.world import CLAIM

pytestmark = pytest.mark.cluster


@contextmanager
def without(plane: ControlPlane, verb: str) -> Iterator[None]:
    """The provisioner's account has no such right on persistentvolumes."""
    roles = [obj for obj in plane.rendered_rights() if obj["kind"] == "ClusterRole"]
    less = copy.deepcopy(roles)
    for role in less:
        for rule in role["rules"]:
            if "persistentvolumes" in rule["resources"]:
                rule["verbs"] = [other for other in rule["verbs"] if other != verb]
    plane.apply(*less)
    try:
        yield
    finally:
        plane.apply(*roles)


async def _told(world: Real, text: str) -> None:
    async def told() -> bool:
        return any(text in event["message"] for event in await world.events("data"))

    await world.wait(f"an event that says {text!r}", told)


async def test_without_the_right_to_write_volumes_the_driver_is_not_asked(real_world: Real) -> None:
    world = real_world
    await world.storage_class()
    with without(world.plane, "create"):
        await world.start()
        await world.claim("data")
        await _told(world, "may not create PersistentVolumes")
        assert world.calls("CreateVolume") == []
    await world.bound("data")
    assert len(world.made()) == 1


async def test_a_right_that_is_taken_away_later_costs_no_volume(real_world: Real) -> None:
    world = real_world
    await world.storage_class()
    await world.start()
    await world.claim("first")
    await world.bound("first")
    with without(world.plane, "create"):
        await world.claim("data")
        await _told(world, "grant create on persistentvolumes")
        await world.claim("later")
        await trio.sleep(2)
        assert [call for call in world.calls("CreateVolume") if "later" in str(call)] == []
    await world.bound("data")
    await world.bound("later")
    assert len(world.made()) == 3


async def test_a_volume_that_may_not_be_deleted_is_told(real_world: Real) -> None:
    world = real_world
    await world.storage_class()
    await world.start()
    await world.claim("data")
    await world.bound("data")
    with without(world.plane, "delete"):
        await world.delete(CLAIM, "data")

        async def told() -> bool:
            return "grant patch and delete on persistentvolumes" in world.log()

        await world.wait("the missing right is told", told)
        assert len(world.calls("DeleteVolume")) == 1
    await world.nothing_left()
    assert len(world.calls("DeleteVolume")) == 1
