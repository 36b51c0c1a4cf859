"""Whole parts go away under load, on the real control plane: every claim ends Bound, and no volume is left over."""

import ssl

import pytest
import trio

from tests.faults.gateway import Gateway
from tests.faults.spoiler import spoiler
from tests.journeys.objects import CLAIM, CLASS, from_claim
from tests.journeys.real import Real
from tests.journeys.world import Rule
from tests.kube.wire import reply

pytestmark = pytest.mark.cluster

LOAD = [f"data-{number}" for number in range(20)]
HALF = len(LOAD) // 2


async def loaded(world: Real) -> None:
    """All claims are there, and the driver is at work on half of them."""
    world.rules(Rule(delay=0.3))
    await world.storage_class()
    for name in LOAD:
        await world.claim(name)
    await world.start("--worker-threads=5")
    await world.asked("CreateVolume", lambda calls: len(calls) > HALF)


async def one_volume_each(world: Real) -> None:
    await world.bound(*LOAD)
    assert len(world.volumes()) == len(await world.own_volumes()) == len(LOAD)
    assert len(world.made()) == len(LOAD)


async def all_given_back(world: Real) -> None:
    await world.delete(CLAIM, *LOAD)
    await world.nothing_left()


async def test_the_api_server_is_killed_and_comes_back(real_world: Real) -> None:
    world = real_world
    await loaded(world)
    await trio.to_thread.run_sync(world.plane.restart_apiserver)
    await one_volume_each(world)
    world.rules(Rule("DeleteVolume", delay=0.3))
    await world.delete(CLAIM, *LOAD)
    await world.asked("DeleteVolume")
    await trio.to_thread.run_sync(world.plane.restart_apiserver)
    await world.nothing_left()
    assert await world.stop() == 0


async def test_the_provisioner_is_killed_again_and_again(real_world: Real) -> None:
    world = real_world
    await loaded(world)
    for _ in range(3):
        await world.kill()
        made = len(world.made())
        await world.start("--worker-threads=5")
        await world.asked("CreateVolume", lambda _, made=made: len(world.made()) > min(made + 2, len(LOAD) - 1))
    await one_volume_each(world)
    await all_given_back(world)


async def test_a_stale_claim_cache_makes_no_second_volume(real_world: Real, gate: Gateway) -> None:
    """design.md 3, rule 1: bound, deleted and reclaimed while the claim watch is held back."""
    world = real_world
    world.rules(Rule(delay=1.0))
    await world.storage_class()
    await world.claim("data")
    await world.start()
    await world.asked("CreateVolume")
    release = gate.hold("^GET /api/v1/persistentvolumeclaims.*watch")
    await world.bound("data")
    await world.delete(CLAIM, "data")
    await world.nothing_left()
    await world.delete(CLASS, world.class_name)  # made anew, it wakes up the claims that seem to wait for it
    await world.storage_class()
    await world.claim("next")
    release.set()
    await world.bound("next")
    assert len(world.calls("CreateVolume")) == len(world.made()) == 2
    await world.delete(CLAIM, "next")
    await world.nothing_left()


Answer = tuple[int, str]
FORBIDDEN = '{"kind":"Status","code":403,"reason":"Forbidden","message":"may not watch"}'
PREV_KV = '{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd event received with PrevKv=nil"}}\n'
STRANGE = '{"type":"ADDED","object":{"metadata":{"name":5}}}\n'


@pytest.mark.parametrize(
    ("claims", "volumes", "classes", "lines"),
    [((200, ""), (403, FORBIDDEN), (200, STRANGE), 2), ((200, PREV_KV), (200, STRANGE), (200, ""), 1)],
    ids=["end at once", "an error"],
)
async def test_what_happens_is_seen_though_no_watch_gets_on(
    real_world: Real, gate: Gateway, claims: Answer, volumes: Answer, classes: Answer, lines: int
) -> None:
    world = real_world
    await world.start()
    await world.storage_class()
    await world.claim("before")
    await world.bound("before")
    for plural, (code, text) in {"claims": claims, "volumes": volumes, "classes": classes}.items():
        gate.answer(f"^GET /.*{plural}.*watch=", text, code)
    await world.claim("data")
    await world.delete(CLAIM, "before")
    await world.bound("data")
    with trio.fail_after(world.patience):
        while len(world.volumes()) > 1:  # noqa: ASYNC110 - of the driver, which tells nothing
            await trio.sleep(0.1)
    assert world.log().count("trying on") == lines, "one for each cause"
    gate.answer_no_more()
    await world.claim("after")
    await world.bound("after")
    await trio.sleep(2)
    assert "Can watch again" in world.log()
    await world.delete(CLAIM, "data", "after")
    await world.nothing_left()


async def test_404s_of_a_load_balancer_are_the_end_of_nothing(real_world: Real) -> None:
    """Each write that lets an object go meets one, and the finalizers that keep sources too."""
    world, plane = real_world, real_world.plane
    page = reply(404, b"404 page not found\n", Content_Type="text/plain")
    left = dict.fromkeys(("delete persistentvolumes", "patch persistentvolumes", "update persistentvolumeclaims"), 3)

    def spoil(what: str) -> bytes | None:
        left[what] = left.get(what, 0) - 1
        return page if left[what] >= 0 else None

    async with spoiler(plane.port, spoil, ssl.create_default_context(cafile=str(plane.ca_file))) as between:
        world.kubeconfig = plane.kubeconfig(
            "provisioner", server=f"http://127.0.0.1:{between.port}", file="spoiled.kubeconfig"
        )
        await world.storage_class()
        await world.claim("data")
        await world.start()
        await world.bound("data")
        await world.claim("clone", **from_claim("data"))
        await world.bound("clone")
        await world.delete(CLAIM, "data", "clone")
        await world.nothing_left()
        assert max(left.values()) < 0
        assert await world.stop() == 0
