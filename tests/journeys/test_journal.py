"""The volume journal: what is in progress stands in Leases, and whoever comes next looks after it (design.md 6)."""

from tests.journeys.objects import CLAIM
from tests.journeys.world import Rule, World

TOLD = "may be left over"
# A hold of two seconds: the shortest after which a call of the process before surely has landed
QUICK = ("--leader-election-lease-duration=1s", "--timeout=1s")


def keeping(world: World, *flags: str) -> tuple[str, ...]:
    return (f"--leader-election-namespace={world.lease_namespace}", "--volume-journal=on", *flags)


async def test_an_entry_stands_while_the_driver_works_and_goes_once_the_volume_is_written(world: World) -> None:
    world.rules(Rule(delay=2.0))
    await world.start(*keeping(world))
    await world.storage_class()
    made = await world.claim("data")
    await world.asked("CreateVolume")
    [(name, entry)] = (await world.journal()).items()
    assert name == f"pvc-{made['metadata']['uid']}"
    assert entry["claim"] == {"namespace": world.api.ns, "name": "data", "uid": made["metadata"]["uid"]}
    assert (entry["driver"], entry["storage_class"], entry["reclaim_policy"]) == (
        world.driver,
        world.class_name,
        "Delete",
    )
    await world.bound("data")

    async def empty() -> bool:
        return not await world.journal()

    await world.wait("the entry is gone", empty)
    assert await world.stop() == 0


async def test_a_volume_that_a_stop_cut_off_is_deleted_by_the_next_one_when_its_claim_is_gone(world: World) -> None:
    """No process remembers the claim, and nobody is told of a volume that may be left over: none is."""
    world.rules(Rule(delay=300.0, done=True))
    await world.start(*keeping(world, "--shutdown-grace-period=1s", "--timeout=1h"))
    await world.storage_class()
    await world.claim("data")
    await world.asked("CreateVolume")
    assert await world.stop() == 0
    assert len(await world.journal()) == 1
    await world.delete(CLAIM, "data")
    await world.gone(CLAIM, "data")
    world.rules()
    await world.start(*keeping(world, *QUICK))
    await world.asked("DeleteVolume")
    await world.nothing_left()

    async def empty() -> bool:
        return not await world.journal()

    await world.wait("the entry is gone", empty)
    assert TOLD not in world.log()
