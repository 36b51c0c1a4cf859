"""Histories of `world.py` that are written, not drawn: each goes wrong without the rule that it is named for."""

from functools import partial
from typing import Any

import pytest
import trio

from .people import bound
from .server import CLAIMS, LEASES
from .ways import TIMEOUT
from .world import AGE, DRIVER, HOLD, LEASE, RETRY, Process, Volume
from .written import Sends, Written, lived, refused, slow, tardy

ENTRIES = f"^PUT .*{DRIVER}-journal-00"
SAVE = "^POST .*persistentvolumes"


async def entered(world: Written) -> None:
    """Killed as the driver has made it, and nobody asks for it any more."""
    await world.starts()
    world.at("CreateVolume", world.killed_after)
    uid = world.claims()
    await world.ended()
    world.deleted(uid)
    await world.starts()


async def clock(world: Written) -> None:
    """Its machine sleeps with the journal's answer in hand, and another one leads: it does not ask for the volume."""
    await world.starts()
    uid = world.claims()
    world.at(ENTRIES, world.asleep(lambda: world.deleted(uid)))
    await world.ended()


async def final(world: Written) -> None:
    """The driver makes it, and nobody hears of it; then it refuses, without a look at what it has."""
    await world.starts()
    world.at("CreateVolume", world.unanswered)
    uid = world.claims()

    async def refuses(process: Process, sends: Sends) -> None:
        world.deleted(uid)
        await refused(process, sends)

    world.at("CreateVolume", refuses)
    await trio.sleep(2 * TIMEOUT)


async def told(world: Written) -> None:
    """The driver refuses to make it again, so that nobody learns its id."""
    await world.starts()
    world.at("CreateVolume", world.killed_after)
    uid = world.claims()
    await world.ended()
    world.deleted(uid)
    world.at("CreateVolume", refused)
    await world.starts()


async def wanted(world: Written) -> None:
    """Meanwhile the claim has got another volume."""
    await world.starts()
    world.at("CreateVolume", world.killed_after)
    uid = world.claims()
    await world.ended()
    world.server.edit(CLAIMS, f"claim-{uid}", partial(bound, name="other"))
    await world.starts()


async def term(world: Written) -> None:
    """Of two of one name the older one hears nothing of its lease. The younger one's take-over keeps it from asking for
    a volume of which that one would know nothing."""
    older = await world.starts()
    world.at("CreateVolume", world.unanswered)
    world.claims()
    await trio.sleep(RETRY)
    world.behind(4 * HOLD)

    async def deaf(process: Process, sends: Sends) -> Any:
        if process is older:
            await trio.sleep_forever()
        return await sends()

    for _ in range(20):
        world.at(f"^PUT .*/{DRIVER}$", deaf)
    await world.starts()
    uid = world.claims()
    world.at(f"CreateVolume pvc-{uid}", world.killed_after)
    await world.until(lambda: older not in world.processes)
    world.deleted(uid)
    await trio.sleep(2 * LEASE)


async def hold(world: Written) -> None:
    """The call of the killed leader arrives when the next one, which has its name, leads already."""
    arrives = trio.Event()
    await world.starts()
    world.at("CreateVolume", world.arrives(arrives))
    uid = world.claims()
    await world.ended()
    world.deleted(uid)
    await world.starts()
    await trio.sleep(TIMEOUT - 2)
    arrives.set()


async def touch_first(world: Written) -> None:
    """A recovery has looked, its machine is paused, and another leader ends all. It must not make the volume anew."""
    await world.starts()
    world.at("CreateVolume", world.killed_after)
    uid = world.claims()
    await world.ended()
    world.deleted(uid)
    next_one = await world.starts()
    world.at(f"^GET .*/claim-{uid}", world.paused(lambda: None))
    world.at("CreateVolume", world.killed_after)
    await world.until(lambda: next_one not in world.processes)


async def durable(world: Written) -> None:
    """The driver refuses, the entry is on its way out, and the next try is under way as it goes."""
    leader = await world.starts()
    world.at("CreateVolume", refused)
    for _ in range(20):
        world.at("CreateVolume", world.unanswered)
    uid = world.claims()
    await trio.sleep(7)
    world.kill(leader)
    world.silent()
    world.deleted(uid)


async def late_told(world: Written) -> None:
    """The machine is paused between the journal's answer and the call, and its clocks with it: the call goes out."""
    await world.starts()
    uid = world.claims()
    world.at(ENTRIES, world.paused(lambda: world.deleted(uid)))
    world.at("CreateVolume", world.unanswered)
    await world.ended()


async def exists(world: Written) -> None:
    """While the driver works somebody makes a PersistentVolume of that name, for another volume."""
    await world.starts()

    async def meanwhile(_process: Process, sends: Sends) -> Any:
        answer = await sends()
        world.volumes["other"] = Volume("other", kept=True)
        world._volume(f"pvc-{uid}", "other", "Retain", world.server.get(CLAIMS, f"claim-{uid}"))
        return answer

    world.at("CreateVolume", meanwhile)
    uid = world.claims()
    await trio.sleep(10)


async def uid_(world: Written) -> None:
    """A write of the killed leader arrives after somebody has deleted the object that the next one has taken over."""
    arrives = trio.Event()
    await world.starts()
    world.at(ENTRIES, world.arrives(arrives))
    world.claims()
    await world.ended()
    leader = await world.starts()
    await trio.sleep(1)
    world.server.delete(LEASES, world.journal())
    arrives.set()
    await trio.sleep(1)
    world.claims()
    await trio.sleep(2)
    world.must("I7 ended for nothing", leader in world.processes)


async def own409(world: Written) -> None:
    """Somebody labels the journal between two writes."""
    leader = await world.starts()
    world.server.edit(LEASES, world.journal(), world._labelled)
    world.claims()
    await trio.sleep(3)
    world.must("I7 ended for nothing", leader in world.processes)


async def gap(world: Written) -> None:
    """A program without a journal gives the volume its owner, who keeps it."""
    await world.starts()
    world.at("CreateVolume", world.killed_after)
    uid = world.claims()
    await world.ended()
    world._go()
    await world.kept(uid)
    await world.starts()


async def retain(world: Written) -> None:
    """What the class says to keep is not for a program to delete."""
    await world.starts()
    world.at("CreateVolume", world.killed_after)
    uid = world.claims("r")
    await world.ended()
    world.deleted(uid)
    await world.starts()


async def handle_(world: Written) -> None:
    """An administrator finds the volume before the next leader does, and gives it to somebody by another name."""
    await world.starts()
    world.at("CreateVolume", world.killed_after)
    uid = world.claims()
    await world.ended()
    world.deleted(uid)
    [volume_id] = world.volumes
    world._volume("adopted", volume_id, "Retain", None)
    await world.starts()


async def age(world: Written) -> None:
    """The entry is left over though its PersistentVolume was written; when the next leader comes an administrator has
    long since taken the volume, whose PersistentVolume is still to be made."""
    await world.starts()
    world.at(SAVE, world.killed_after)
    uid = world.claims()
    await world.ended()
    await trio.sleep(AGE)
    await world.kept(uid)
    await world.starts()


async def fence_next(world: Written) -> None:
    """The first object is full; the write that makes the second one arrives when the next leader has taken over."""
    arrives = trio.Event()
    await world.starts()
    await world.large()
    world.at("CreateVolume", world.unanswered)
    world.claims()
    await trio.sleep(1)
    world.at("^POST .*leases", world.arrives(arrives))
    world.claims()
    await world.ended()
    leader = await world.starts()
    arrives.set()
    await trio.sleep(3)
    world.must("I7 ended for nothing", leader in world.processes)


async def all_numbers(world: Written) -> None:
    """The first object is empty by now and somebody deletes it; an entry stands in the second."""
    leader = await world.starts()
    await world.large()
    world.at("CreateVolume", slow)
    world.claims()
    await trio.sleep(1)
    for _ in range(10):
        world.at("CreateVolume", world.unanswered)
    second = world.claims()
    await trio.sleep(12)
    world.kill(leader)
    world.silent()
    world.deleted(second)
    world.server.delete(LEASES, world.journal())


async def twin(world: Written) -> None:
    """Two processes have one name: one of them ends, and the other leads."""
    older = await world.starts()
    newer = await world.starts()
    await trio.sleep(2 * LEASE)
    world.must("I7 ended for nothing", [one for one in (older, newer) if one in world.processes] == [newer])


async def live(world: Written) -> None:
    """The killed leader's PersistentVolume is written within the hold, and the watch shows it long after. Nobody is
    told of a volume that may be left over: none is."""
    arrives = trio.Event()
    await world.starts()
    world.at(SAVE, world.arrives(arrives))
    uid = world.claims()
    await world.ended()
    world.deleted(uid)
    world.behind(4 * HOLD)
    await world.starts()
    await trio.sleep(1)
    arrives.set()
    await trio.sleep(2 * HOLD)
    world.must("told what is not so", f"pvc-{uid}" not in world.told)


async def confirm(world: Written) -> None:
    """Its machine is paused in the middle of the take-over, and another one leads: what is released is no longer its to
    delete, which it finds before its renewal does."""
    leader = await world.starts()
    uid = world.claims()
    await world.until(lambda: world.server.get(CLAIMS, f"claim-{uid}")["spec"].get("volumeName"))
    world.kill(leader)
    await world.ended()
    world.deleted(uid)
    world.at(ENTRIES, world.paused(lambda: world.at(f"^PUT .*/{DRIVER}$", tardy)))
    world._begin()
    next_one = world.processes[-1]

    async def late(process: Process, sends: Sends) -> Any:
        world.must("I5 late call", process is not next_one)
        return await sends()

    world.at("DeleteVolume", late)
    await world.until(lambda: next_one not in world.processes)


async def takes_late(world: Written) -> None:
    """Of two of one name the older comes to the journal when the younger has it already, which it has not heard of. The
    younger has nothing to write, and would never see what the older begins in the journal that it takes away."""
    world.kill(await world.starts())
    await world.ended()
    world.claims()
    world._begin()
    older = world.processes[0]

    async def late(_process: Process, sends: Sends) -> Any:
        world._begin()
        younger = world.processes[-1]
        await world.until(lambda: younger.journal is not None and younger.journal.taken_at is not None)
        return await sends()

    async def deaf(process: Process, sends: Sends) -> Any:
        if process is older:
            await trio.sleep_forever()
        return await sends()

    world.at(ENTRIES, late)
    world.at("^GET .*persistentvolumeclaims$", slow)
    await world.until(lambda: older.leads)
    for _ in range(20):
        world.at(f"^PUT .*/{DRIVER}$", deaf)
    await world.until(lambda: older not in world.processes)


HISTORIES = {
    "an entry is in before the driver is asked": (entered,),
    "the end of the lease is looked at before every call": (clock,),
    "a final answer after an uncertain one is no certainty": (final,),
    "what the driver refuses to make again is told": (told,),
    "a claim that is bound elsewhere counts as gone": (wanted,),
    "a take-over writes a word that nobody else has": (term, "twins"),
    "what was found is judged when no call of the old leader can land any more": (hold, "twins"),
    "a recovery asks the driver only after a write of its own": (touch_first, "pause"),
    "an entry that is being taken out is no entry": (durable,),
    "who loses the lease tells what it has begun since": (late_told, "pause"),
    "a PersistentVolume of that name is ours only with our volume": (exists,),
    "a write makes no deleted object anew": (uid_, "twins"),
    "a conflict is looked at before it ends anything": (own409,),
    "what is older than a leader without journal is told": (gap,),
    "what a class retains is told": (retain,),
    "a volume that any PersistentVolume names is somebody's": (handle_,),
    "what is old is told": (age,),
    "a take-over makes the next object too": (fence_next, "twins"),
    "a take-over reads all numbers": (all_numbers,),
    "of two of one name the older ends": (twin, "twins"),
    "a recovery asks the API server, not the caches": (live, "twins"),
    "a take-over ends with another look at its first object": (confirm, "pause"),
    "a take-over that meets another one looks whether it still has the lease": (takes_late, "twins"),
}


@pytest.mark.parametrize("rule", HISTORIES)
def test_a_written_history_goes_well(rule: str) -> None:
    script, *faults = HISTORIES[rule]
    history = lived(script, *faults)
    trace = "\n".join(" ".join(map(str, line)) for line in history.trace[-80:])
    assert not history.violations, trace
