"""Killed with -9 at every write of a claim's life, just before it and just after it, and started again.

Whatever the moment: one volume and one PersistentVolume for a claim that lives, none for one that is gone, and nothing
that waits for ever. Writes to the driver are caught by the driver, which holds the call; writes to the API server by
the gateway.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from tests.faults.gateway import Gateway, Moment
from tests.journeys.objects import CLAIM, SNAPSHOT, Object, from_claim, from_snapshot
from tests.journeys.real import Real
from tests.journeys.world import Rule

pytestmark = pytest.mark.cluster

MOMENTS = pytest.mark.parametrize("moment", ["before", "after"])
FOR_EVER = 3600.0

Crash = Callable[[], Awaitable[None]]
"""Waits until the provisioner has been killed at the chosen write."""


def at_request(world: Real, gate: Gateway, request: str, moment: Moment, *, skip: int = 0) -> Crash:
    return gate.trap(request, moment, world.kill, skip=skip).sprung.wait


def at_call(world: Real, rule: Rule, moment: Moment, *others: Rule) -> Crash:
    """The driver holds the call, having done the work or not; while it does the provisioner is killed."""
    world.rules(*others, replace(rule, times=1, delay=FOR_EVER, done=moment == "after"))
    before = len(world.calls(rule.rpc))

    async def held() -> None:
        await world.asked(rule.rpc, lambda calls: len(calls) > before)
        if moment == "after":
            await world.wait("the work is done", done)
        await world.kill()
        world.rules(*others)

    async def done() -> bool:
        call, volumes = world.calls(rule.rpc)[-1], world.volumes()
        if rule.rpc == "CreateVolume":
            return call.name in volumes.values()
        return call.volume_id not in volumes

    return held


async def source(world: Real, kind: str) -> Object:
    """Something to copy from, made by an ordinary provisioner; what a claim says to be its copy."""
    await world.start()
    await world.claim("data")
    handle = (await world.bound("data"))["spec"]["csi"]["volumeHandle"]
    await world.stop()
    if kind == CLAIM:
        return from_claim("data")
    await world.snapshot("snap", handle)
    return from_snapshot("snap")


async def bound_once(world: Real, name: str, *, copies: int = 1) -> None:
    """The claim is Bound, to one volume that was made as often as said and to one PersistentVolume."""
    volume = await world.bound(name)
    assert list(world.volumes().values()).count(volume["metadata"]["name"]) == 1
    assert world.made().count(volume["metadata"]["name"]) == copies
    assert len([claim for claim in await world.own_volumes() if claim == name]) == 1


async def gone_for_good(world: Real, *names: str) -> None:
    await world.delete(CLAIM, *names)
    await world.gone(CLAIM, *names)
    await world.nothing_left()


@MOMENTS
@pytest.mark.parametrize("write", ["CreateVolume", "PersistentVolume"])
async def test_while_a_volume_is_made(real_world: Real, gate: Gateway, write: str, moment: Moment) -> None:
    world = real_world
    await world.storage_class()
    if write == "CreateVolume":
        crash = at_call(world, Rule("CreateVolume"), moment)
    else:
        crash = at_request(world, gate, "^POST /api/v1/persistentvolumes", moment)
    await world.claim("data")
    await world.start()
    await crash()
    await world.start()
    await bound_once(world, "data")
    await gone_for_good(world, "data")


@pytest.mark.parametrize("moment", ["before CreateVolume", "after PersistentVolume"])
async def test_a_claim_deleted_while_nobody_is_there(real_world: Real, gate: Gateway, moment: str) -> None:
    """What was never begun is not begun, and what was written is reclaimed."""
    world = real_world
    await world.storage_class()
    if moment == "before CreateVolume":
        crash = at_call(world, Rule("CreateVolume"), "before")
    else:
        crash = at_request(world, gate, "^POST /api/v1/persistentvolumes", "after")
    await world.claim("data")
    await world.start()
    await crash()
    await world.delete(CLAIM, "data")
    await world.gone(CLAIM, "data")
    await world.start()
    await world.nothing_left()


@MOMENTS
@pytest.mark.parametrize("kind", [CLAIM, SNAPSHOT])
@pytest.mark.parametrize("write", ["protect", "release"])
async def test_while_a_source_is_protected(
    real_world: Real, gate: Gateway, kind: str, write: str, moment: Moment
) -> None:
    world = real_world
    await world.storage_class()
    copy = await source(world, kind)
    path = "persistentvolumeclaims/data" if kind == CLAIM else "volumesnapshots/snap"
    name = "data" if kind == CLAIM else "snap"
    crash = at_request(world, gate, f"^PUT .*/{path}", moment, skip=1 if write == "release" else 0)
    await world.claim("copy", **copy)
    await world.start()
    if write == "release" and kind == CLAIM:
        await world.bound("copy")
        await world.delete(CLAIM, "data")  # a living source keeps its protection
    await crash()
    await world.start()
    await bound_once(world, "copy")
    await world.delete(kind, name)
    await world.gone(kind, name)
    await gone_for_good(world, "copy", "data")


@MOMENTS
async def test_while_an_unusable_volume_is_undone(real_world: Real, moment: Moment) -> None:
    world = real_world
    await world.storage_class()
    too_small = Rule("CreateVolume", times=1, capacity=1)
    crash = at_call(world, Rule("DeleteVolume"), moment, too_small)
    await world.claim("data")
    await world.start()
    await crash()
    world.rules()
    await world.start()
    await bound_once(world, "data", copies=2 if moment == "after" else 1)
    await gone_for_good(world, "data")


@MOMENTS
@pytest.mark.parametrize("write", ["DeleteVolume", "PersistentVolume", "finalizer"])
async def test_while_a_volume_is_deleted(real_world: Real, gate: Gateway, write: str, moment: Moment) -> None:
    world = real_world
    await world.storage_class()
    await world.claim("data")
    await world.start()
    await world.bound("data")
    if write == "DeleteVolume":
        crash = at_call(world, Rule("DeleteVolume"), moment)
    else:
        verb = "DELETE" if write == "PersistentVolume" else "PATCH"
        crash = at_request(world, gate, f"^{verb} /api/v1/persistentvolumes/", moment)
    await world.delete(CLAIM, "data")
    await crash()
    await world.start()
    await world.nothing_left()
