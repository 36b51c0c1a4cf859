"""Killed with -9 at each moment of a volume's life, for all kinds of volumes and ends of their claims.

A living claim has one volume, of a dead one nothing is left, and what its class says to keep is told (design.md 6). The
suite has each kind with each end, and each moment with each end; `CRASHES=all` in the environment is all there are.
"""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.canary import secret
from tests.cluster.controlplane import ControlPlane
from tests.faults.gateway import Gateway, Moment, gateway
from tests.faults.test_crashes import Crash, at_call, at_request, source
from tests.faults.test_journal import WRITES, settled
from tests.journeys.objects import CLAIM, CLASS, SECRET, SELECTED_NODE, SNAPSHOT, Object
from tests.journeys.objects import claim as claim_of
from tests.journeys.real import Real, real
from tests.journeys.test_journal import QUICK, TOLD, keeping
from tests.journeys.world import Rule
from tests.sandbox.api.client import LEASES

pytestmark = pytest.mark.cluster

ALL = os.environ.get("CRASHES") == "all"
AT_ONCE = 6
"""Worlds side by side: most of their time they wait."""
NODE = "node-1"
LATE = {"volumeBindingMode": "WaitForFirstConsumer"}
LOGIN = {
    "csi.storage.k8s.io/provisioner-secret-name": "login",
    "csi.storage.k8s.io/provisioner-secret-namespace": "${pvc.namespace}",
}
EBS = "ebs.csi.aws.com"

# ---- what is made


async def of_nothing(_world: Real) -> Object:
    return {}


async def of_a_claim(world: Real) -> Object:
    await world.storage_class()
    return await source(world, CLAIM)


async def of_a_snapshot(world: Real) -> Object:
    await world.storage_class()
    return await source(world, SNAPSHOT)


async def with_a_secret(world: Real) -> Object:
    await world.create(SECRET, secret("login", user="admin"))
    return {}


async def secret_goes(world: Real) -> None:
    await world.delete(SECRET, "login")


async def secret_comes_back(world: Real) -> None:
    await world.create(SECRET, secret("login", user="admin"))


async def nothing(_world: Real) -> None:
    return


@dataclass(frozen=True)
class Kind:
    """`fields` of the class; `prepare` gives what the claim's spec has besides. `meanwhile`: what people do before the
    next start; `later`: after it, if the claim lives."""

    fields: dict[str, Any] = field(default_factory=dict)
    node: str = ""
    flags: tuple[str, ...] = ()
    driver: str = ""
    prepare: Callable[[Real], Awaitable[Object]] = of_nothing
    meanwhile: Callable[[Real], Awaitable[None]] = nothing
    later: Callable[[Real], Awaitable[None]] = nothing
    kept: bool = False


SECRETIVE: dict[str, Any] = {"parameters": LOGIN}
KINDS = {
    "immediate": Kind(),
    "late binding": Kind(LATE, node=NODE),
    "a provisioner on each node": Kind(LATE, node=NODE, flags=("--node-deployment",)),
    "a clone": Kind(prepare=of_a_claim),
    "a snapshot": Kind(prepare=of_a_snapshot),
    "a secret": Kind(SECRETIVE, prepare=with_a_secret),
    "a secret that goes": Kind(SECRETIVE, prepare=with_a_secret, meanwhile=secret_goes, later=secret_comes_back),
    "an in-tree class": Kind({"provisioner": "kubernetes.io/aws-ebs"}, driver=EBS),
    "a class that retains": Kind({"reclaimPolicy": "Retain"}, kept=True),
}

# ---- when it is killed, and what becomes of the claim then

At = Callable[[Real, Gateway], Crash]


def at_write(write: str, moment: Moment) -> At:
    request, skip = WRITES[write]
    if request:
        return lambda world, gate: at_request(world, gate, request, moment, skip=skip)
    return lambda world, _gate: at_call(world, Rule("CreateVolume"), moment)


def after_undo(world: Real, _gate: Gateway) -> Crash:
    world.rules(Rule("CreateVolume", capacity=1), Rule("DeleteVolume", error="INTERNAL"))

    async def failed() -> None:
        await world.asked("DeleteVolume", lambda calls: len(calls) >= 5)
        await world.kill()
        world.rules()

    return failed


BOTH: tuple[Moment, Moment] = ("before", "after")
MOMENTS: dict[str, At] = {f"{moment} {write}": at_write(write, moment) for write in WRITES for moment in BOTH}
MOMENTS["after a failed undo"] = after_undo


async def lives(_world: Real, _class: str) -> None:
    return


async def goes(world: Real, _class: str) -> None:
    await world.delete(CLAIM, "copy")
    await world.gone(CLAIM, "copy")


async def goes_with_all(world: Real, name: str) -> None:
    """With its namespace and all in it, and its class."""
    code, answer = await world.api.request("DELETE", f"/api/v1/namespaces/{world.api.ns}")
    assert code == 200, answer
    await world.delete(CLASS, name)
    await world.gone(CLAIM, "copy")


ENDS = {"lives": lives, "is deleted": goes, "is deleted with its namespace and class": goes_with_all}


def rows(end: str) -> list[tuple[str, str]]:
    """Of this end, kinds and moments: all, or each kind once and each moment once."""
    if ALL:
        return [(kind, moment) for moment in MOMENTS for kind in KINDS]
    first = 3 * list(ENDS).index(end)
    return [(kind, list(MOMENTS)[(first + number) % len(MOMENTS)]) for number, kind in enumerate(KINDS)]


# ---- one life


async def lived(world: Real, gate: Gateway, kind: Kind, moment: str, end: str) -> None:
    if kind.driver:
        world.driver = kind.driver
        await world.stop_driver()
        await world.start_driver(name=kind.driver)
        await journal_goes(world)
    spec = await kind.prepare(world)
    name = await world.storage_class("own", **kind.fields)
    if "--node-deployment" in kind.flags:
        world.wrapper = ("env", f"NODE_NAME={kind.node}")
    made = claim_of("copy", name, **spec)
    if kind.node:
        made["metadata"]["annotations"] = {SELECTED_NODE: kind.node}
    before = world.volumes()
    crash = MOMENTS[moment](world, gate)
    await world.start(*keeping(world, *QUICK, *kind.flags))
    await world.create(CLAIM, made)
    with trio.fail_after(world.patience):
        await crash()
    known = len(world.log())
    await ENDS[end](world, name)
    await kind.meanwhile(world)
    await world.start(*keeping(world, *QUICK, *kind.flags))
    if end == "lives":
        await kind.later(world)
        name = (await world.bound("copy"))["metadata"]["name"]
        await settled(world)
        assert list(world.volumes().values()).count(name) == world.made().count(name) == 1
        assert not _told(world, known)
        return
    rest = {} if end == list(ENDS)[-1] else before  # with the namespace its source goes too

    async def over() -> bool:
        volumes, named = world.volumes().keys(), await handles(world)
        told = {volume for volume in volumes if volume in _told(world, known)}
        assert not told & named, "told what is not so"
        left = (volumes | named) - rest.keys()
        return rest.keys() <= volumes and left == (volumes & (named | told) - rest.keys() if kind.kept else set())

    await world.wait("nothing is left but what is kept", over)
    await settled(world)
    assert await over()
    assert kind.kept or not _told(world, known)


async def journal_goes(world: Real) -> None:
    """Another row has used the name: the first write would not be the one that is meant."""
    path = LEASES.format(ns=world.lease_namespace)
    for lease in (await world.api.get(path))["items"]:
        if lease["metadata"]["name"].startswith(world.driver.replace(".", "-")):
            await world.api.request("DELETE", f"{path}/{lease['metadata']['name']}")


async def handles(world: Real) -> set[str]:
    return {volume["spec"]["csi"]["volumeHandle"] for volume in (await world.own_volumes()).values()}


def _told(world: Real, known: int) -> str:
    """What was said since then of volumes that may be left over."""
    return "\n".join(line for line in world.log()[known:].splitlines() if TOLD in line)


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


@pytest.mark.parametrize("end", ENDS)
async def test_of_a_volume_that_a_kill_cut_off_nothing_is_left(
    control_plane: ControlPlane, tmp_path: Path, end: str
) -> None:
    limit, alone = trio.CapacityLimiter(AT_ONCE), trio.CapacityLimiter(1)

    async def row(number: int, kind: str, moment: str) -> None:
        folder = trio.Path(tmp_path / str(number))
        await folder.mkdir()
        # Of one in-tree driver there is one name, and one journal.
        async with alone if KINDS[kind].driver else limit:
            try:
                async with real(control_plane, Path(folder)) as world, gateway(control_plane) as gate:
                    server, file = f"http://127.0.0.1:{gate.port}", f"gateway-{gate.port}.kubeconfig"
                    world.kubeconfig = control_plane.kubeconfig("provisioner", server=server, file=file)
                    world.patience = 120.0
                    await lived(world, gate, KINDS[kind], moment, end)
            except BaseException as error:
                error.add_note(f"{kind}, killed {moment}, the claim {end}")
                raise

    # Side by side in one cluster: the provisioners of other drivers must let a source be that an entry of ours names.
    async with trio.open_nursery() as nursery:
        for number, (kind, moment) in enumerate(rows(end)):
            nursery.start_soon(row, number, kind, moment)
