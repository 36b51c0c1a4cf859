"""No silent leak: a volume that nobody will ever name is said once, counted, and told in full."""

import trio

from tests.faults.scrape import metric
from tests.journeys.embedded import Embedded
from tests.journeys.objects import CLAIM
from tests.journeys.world import Rule

WARNING = "A volume may be left over"


async def test_an_undo_that_failed(sandbox_world: Embedded) -> None:
    world = sandbox_world
    world.rules(Rule(match="/data$", capacity=1, times=3), Rule("DeleteVolume", error="INTERNAL", times=15))
    port = await world.start_with_metrics()
    await world.storage_class()
    await world.claim("data")
    await world.bound("data")
    assert world.log().count(WARNING) == 1
    [volume] = world.volumes().items()
    [line] = [line for line in world.log().splitlines() if WARNING in line]
    assert all(text in line for text in (*volume, world.driver, f"{world.api.ns}/data"))
    assert await metric(port, "csi_provisioner_suspected_orphans_total") == 1


async def test_a_claim_that_is_gone_when_the_process_ends(sandbox_world: Embedded) -> None:
    world = sandbox_world
    world.rules(Rule(error="DEADLINE_EXCEEDED", done=True))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.asked("CreateVolume")
    await world.delete(CLAIM, "data")
    await world.gone(CLAIM, "data")
    await trio.sleep(60)
    assert WARNING not in world.log()
    assert await world.stop() == 0
    assert world.log().count(WARNING) == 1
    [name] = world.volumes().values()
    assert name in world.log().partition(WARNING)[2]


async def test_a_claim_that_is_gone_when_the_grace_is_used_up(sandbox_world: Embedded) -> None:
    world = sandbox_world
    await world.start("--shutdown-grace-period=5s", "--timeout=1h")
    world.rules(Rule(delay=1800.0))
    await world.storage_class()
    await world.claim("data")
    await world.asked("CreateVolume")
    await world.delete(CLAIM, "data")
    await world.gone(CLAIM, "data")
    started = trio.current_time()
    assert await world.stop() == 0
    assert trio.current_time() - started < 10
    assert world.log().count(WARNING) == 1


async def test_no_suspicion_while_tries_go_on_under_a_changed_driver(sandbox_world: Embedded) -> None:
    """A claim that is gone is remembered when the loops start over, and what comes of it is reclaimed."""
    world = sandbox_world
    world.rules(Rule(error="DEADLINE_EXCEEDED", done=True))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.asked("CreateVolume")
    await world.delete(CLAIM, "data")
    await world.gone(CLAIM, "data")
    await world.stop_driver()
    world.rules()
    await world.start_driver(controller=("CREATE_DELETE_VOLUME",))
    await world.asked("DeleteVolume")
    await world.nothing_left()
    assert await world.stop() == 0
    assert WARNING not in world.log()
