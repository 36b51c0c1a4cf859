"""The volume journal: what is in progress stands in Leases, and whoever comes next looks after it (design.md 6)."""

import trio

from tests.journeys.embedded import Embedded
from tests.journeys.objects import CLAIM, VOLUME, static_volume
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


# ---- what an administrator has done meanwhile


async def cut_off(world: World, *flags: str) -> str:
    """The id of a volume that is made, of which the driver never said so, and whose claim is gone."""
    world.rules(Rule(error="UNAVAILABLE", done=True))
    await world.start(*keeping(world, *flags, "--shutdown-grace-period=1s"))
    await world.storage_class()
    await world.claim("data")
    await world.asked("CreateVolume")
    # The term says that it keeps a journal: its lease was renewed since.
    await trio.sleep(10)
    assert await world.stop() == 0
    await world.delete(CLAIM, "data")
    world.rules()
    [volume_id] = world.volumes()
    return volume_id


async def judged(world: World, *flags: str) -> None:
    """A process has done with all that stood in the journal."""
    await world.start(*keeping(world, *(flags or QUICK)))

    async def empty() -> bool:
        return not await world.journal()

    await world.wait("no entry is left", empty)
    assert await world.stop() == 0


async def adopt(world: World, volume_id: str) -> None:
    volume = static_volume("adopted", world.class_name, world.driver, volume_id)
    volume["spec"]["persistentVolumeReclaimPolicy"] = "Retain"
    await world.create(VOLUME, volume)


async def test_a_volume_that_was_adopted_under_another_name_is_told_and_stays(sandbox_world: Embedded) -> None:
    world = sandbox_world
    volume_id = await cut_off(world)
    await adopt(world, volume_id)
    await judged(world)
    assert list(world.volumes()) == [volume_id]
    assert TOLD in world.log()


async def test_what_a_restored_backup_brings_back_is_told_and_stays(sandbox_world: Embedded) -> None:
    """Of two hours ago: who took the volume since is not in it."""
    world = sandbox_world
    volume_id = await cut_off(world)
    leases = await world.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{world.lease_namespace}/leases")
    [backup] = [lease for lease in leases["items"] if lease["metadata"]["name"].endswith("-journal-00")]
    await adopt(world, volume_id)
    await judged(world)
    await trio.sleep(7200)
    await world.delete(VOLUME, "adopted")
    path = f"/apis/coordination.k8s.io/v1/namespaces/{world.lease_namespace}/leases/{backup['metadata']['name']}"
    await world.api.patch(path, {"metadata": {"annotations": backup["metadata"]["annotations"]}})
    assert len(await world.journal()) == 1
    await judged(world)
    assert list(world.volumes()) == [volume_id]
    assert not world.calls("DeleteVolume")
    assert "minutes old" in world.log()


async def test_what_is_from_before_a_leader_with_the_journal_off_is_told_and_stays(sandbox_world: Embedded) -> None:
    world, election = sandbox_world, "--leader-election"
    volume_id = await cut_off(world, election)
    await world.start(f"--leader-election-namespace={world.lease_namespace}", "--volume-journal=off", election)
    await world.claim("more")
    await world.bound("more")
    assert await world.stop() == 0
    await judged(world, election)
    assert volume_id in world.volumes()
    assert not world.calls("DeleteVolume")
    assert "a leader without a volume journal" in world.log()
