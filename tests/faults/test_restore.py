"""etcd is restored from a backup while the provisioner leads: the cluster goes back in time, the storage does not."""

from functools import partial

import pytest
import trio

from tests.faults.test_journal import settled
from tests.journeys.objects import CLAIM, VOLUME, phase
from tests.journeys.real import Real
from tests.journeys.test_journal import keeping
from tests.journeys.world import Rule

pytestmark = pytest.mark.cluster

# It leads on over the restore, however slow the machine
PATIENT = (
    "--leader-election",
    "--leader-election-lease-duration=60s",
    "--leader-election-renew-deadline=40s",
    "--leader-election-retry-period=2s",
)
IN_DOUBT, NOTICED = "The election has trouble", "went back in time"


async def test_a_leader_that_sees_its_cluster_restored_deletes_nothing_of_it_and_tells_what_is_lost(
    real_world: Real,
) -> None:
    world = real_world
    await world.storage_class()
    await world.start(*keeping(world, *PATIENT, "--retry-interval-max=1s"))
    for name in ("kept", "wanted"):
        await world.claim(name)
    kept, wanted = await world.bound("kept"), await world.bound("wanted")
    await settled(world)
    await trio.to_thread.run_sync(world.plane.back_up)
    await world.claim("lost")
    lost = await world.bound("lost")
    # An administrator keeps one, and has not yet said for whom.
    await world.patch(VOLUME, kept["metadata"]["name"], {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    await world.delete(CLAIM, "kept")
    await world.until(VOLUME, kept["metadata"]["name"], lambda volume: phase(volume) == "Released")
    await world.delete(VOLUME, kept["metadata"]["name"])
    await world.gone(VOLUME, kept["metadata"]["name"])
    # Another one was deleted by mistake, which is what the backup is for; one is just being made.
    world.rules(Rule("DeleteVolume", error="ABORTED"), Rule("CreateVolume", delay=8.0, done=True, times=1))
    await world.delete(CLAIM, "wanted")
    await world.asked("DeleteVolume")
    await world.claim("cut")
    await world.asked("CreateVolume", lambda calls: len(calls) > 3)
    assert await world.get(VOLUME, wanted["metadata"]["name"])

    async def said(*texts: str) -> bool:
        return any(text in world.log() for text in texts)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, world.plane.restore)
        # It may be over between two renewals.
        await world.wait("renewals fail", partial(said, IN_DOUBT, NOTICED))
        world.rules()  # from now on the driver would delete it
    await world.wait("the leader notices", partial(said, NOTICED))
    await world.claim("later")
    await world.bound("later", "wanted", "kept")
    await settled(world)
    await world.event(lost["metadata"]["name"], "VolumeDropped")
    handles = {name: volume["spec"]["csi"]["volumeHandle"] for name, volume in (await world.own_volumes()).items()}
    assert set(handles) == {"kept", "wanted", "later"}
    assert set(world.volumes()) == {*handles.values(), lost["spec"]["csi"]["volumeHandle"]}
    assert await world.stop() == 0
