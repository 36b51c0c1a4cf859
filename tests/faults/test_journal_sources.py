"""As in `test_journal`, for all kinds of volumes: killed with -9 while one is made, the claim deleted before the next
start. Nothing is left, and what its class says to keep is told (design.md 6)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from tests.canary import secret
from tests.faults.gateway import Gateway
from tests.faults.test_crashes import at_call, at_request, source
from tests.faults.test_journal import WRITES, settled
from tests.journeys.objects import CLAIM, CLASS, SECRET, SELECTED_NODE, Object, from_snapshot
from tests.journeys.objects import claim as claim_of
from tests.journeys.real import Real
from tests.journeys.test_journal import QUICK, TOLD, keeping
from tests.journeys.world import Rule

pytestmark = pytest.mark.cluster

NODE, OTHER = "node-1", "more"
LATE = {"volumeBindingMode": "WaitForFirstConsumer"}
LOGIN = {
    "csi.storage.k8s.io/provisioner-secret-name": "login",
    "csi.storage.k8s.io/provisioner-secret-namespace": "${pvc.namespace}",
}
EBS = "ebs.csi.aws.com"


async def nothing(_world: Real) -> Object:
    """Of no source, without a secret."""
    return {}


async def _of_a_snapshot(world: Real) -> Object:
    await world.snapshot("snap", "somebodys")
    return from_snapshot("snap")


async def _of_a_claim(world: Real) -> Object:
    await world.storage_class()
    return await source(world, CLAIM)


async def _with_a_secret(world: Real) -> Object:
    await world.create(SECRET, secret("login", user="admin"))
    return {}


@dataclass(frozen=True)
class Case:
    """`fields` of the class; `prepare` gives what the claim's spec has besides. Killed after CreateVolume, or before
    another `write`."""

    fields: dict[str, Any] = field(default_factory=dict)
    node: str = ""
    flags: tuple[str, ...] = ()
    driver: str = ""
    prepare: Callable[[Real], Awaitable[Object]] = nothing
    write: str = "CreateVolume"


CASES = {
    "a snapshot": Case(prepare=_of_a_snapshot),
    "a clone": Case(prepare=_of_a_claim, write="the PersistentVolume's write"),
    "a secret": Case({"parameters": LOGIN}, prepare=_with_a_secret),
    "late binding and a provisioner on each node": Case(LATE, node=NODE, flags=("--node-deployment",)),
    "an in-tree class": Case({"provisioner": "kubernetes.io/aws-ebs"}, driver=EBS),
}


@pytest.mark.parametrize("kind", CASES)
async def test_of_a_volume_that_a_kill_cut_off_nothing_is_left(real_world: Real, gate: Gateway, kind: str) -> None:
    world, case = real_world, CASES[kind]
    if case.driver:
        world.driver = case.driver
        await world.stop_driver()
        await world.start_driver(name=case.driver)
    spec = await case.prepare(world)
    name = await world.storage_class("own", **case.fields)
    if case.node:
        world.wrapper = ("env", f"NODE_NAME={case.node}")
    before = world.volumes()
    if case.write == "CreateVolume":
        crash = at_call(world, Rule("CreateVolume"), "after")
    else:
        crash = at_request(world, gate, WRITES[case.write][0], "before")
    made = claim_of("copy", name, **spec)
    if case.node:
        made["metadata"]["annotations"] = {SELECTED_NODE: case.node}
    await world.start(*keeping(world, *QUICK, *case.flags))
    await world.create(CLAIM, made)
    with trio.fail_after(30):
        await crash()
    assert len(world.volumes()) == len(before) + 1
    await world.delete(CLAIM, "copy")
    await world.gone(CLAIM, "copy")
    await world.start(*keeping(world, *QUICK, *case.flags))

    async def gone() -> bool:
        return world.volumes() == before and "copy" not in await world.own_volumes()

    await world.wait("the volume is gone", gone)
    await settled(world)
    assert TOLD not in world.log()


async def test_of_a_namespace_that_is_gone_with_all_in_it_nothing_is_left(real_world: Real) -> None:
    """Its class and its secret are gone too; its events have nowhere to go."""
    world = real_world
    namespace = world.api.unique(OTHER)
    await world.api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    await world.storage_class(parameters=LOGIN)
    await world.api.create(f"/api/v1/namespaces/{namespace}/secrets", secret("login", user="admin"))
    crash = at_call(world, Rule("CreateVolume"), "after")
    await world.start(*keeping(world, *QUICK))
    await world.api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", claim_of("data", world.class_name))
    with trio.fail_after(30):
        await crash()
    code, _ = await world.api.request("DELETE", f"/api/v1/namespaces/{namespace}")
    assert code == 200
    await world.delete(CLASS, world.class_name)

    async def gone() -> bool:
        code, _ = await world.api.request("GET", f"/api/v1/namespaces/{namespace}")
        return code == 404

    await world.wait("the namespace is gone", gone)
    await world.start(*keeping(world, *QUICK))
    await world.nothing_left()
    await settled(world)
    assert TOLD not in world.log()


async def test_a_volume_whose_undo_failed_before_the_kill_is_deleted(real_world: Real) -> None:
    """It was told as it failed, with its id; the next leader knows better."""
    world = real_world
    await world.storage_class()
    world.rules(Rule("CreateVolume", capacity=1), Rule("DeleteVolume", error="INTERNAL"))
    await world.start(*keeping(world, *QUICK))
    await world.claim("data")
    await world.asked("DeleteVolume", lambda calls: len(calls) >= 5)
    await world.kill()
    assert world.volumes()
    world.rules()
    await world.delete(CLAIM, "data")
    await world.gone(CLAIM, "data")
    await world.start(*keeping(world, *QUICK))
    await world.nothing_left()
    await settled(world)


async def test_a_volume_that_its_class_says_to_keep_is_told_with_its_id(real_world: Real) -> None:
    world = real_world
    await world.storage_class(reclaimPolicy="Retain")
    crash = at_call(world, Rule("CreateVolume"), "after")
    await world.start(*keeping(world, *QUICK))
    await world.claim("data")
    with trio.fail_after(30):
        await crash()
    await world.delete(CLAIM, "data")
    await world.gone(CLAIM, "data")
    await world.start(*keeping(world, *QUICK))
    await settled(world)
    [volume_id] = world.volumes()
    assert not world.calls("DeleteVolume")
    assert f'volumeID="{volume_id}"' in next(line for line in world.log().splitlines() if TOLD in line)
