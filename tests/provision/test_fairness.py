"""Who makes calls, and how many: no class, kind of source or back end keeps the others waiting (design.md 7)."""

from pathlib import Path

import pytest
import trio

from csi_provisioner.planning.wellknown import SELECTED_NODE
from csi_provisioner.settings import ElectionSettings, LogSettings, RetrySettings
from csi_provisioner.supervisor.fairness import MAX_CALLS
from sandbox.driver import Config
from sandbox.driver.config import Backend
from tests.deletion.released import bound, released
from tests.installation import CLAIM, CLASS, NAMESPACE, VOLUME, Installation, installation
from tests.journeys.objects import VOLUME_FINALIZER

JOURNAL = ElectionSettings(enabled=True, namespace=NAMESPACE, own_namespace=NAMESPACE)
ALONE = ElectionSettings()
# Of which one is kept for others
FEW = RetrySettings(workers=8)


@pytest.mark.parametrize("election", [JOURNAL, ALONE], ids=["journal", "no journal"])
async def test_a_class_that_hangs_leaves_the_other_its_worker(site: Installation, election: ElectionSettings) -> None:
    site.storage_class("hangs")
    site.storage_class("quick")
    site.fault(match="hanging", hang=True)
    for number in range(20):
        site.claim(f"hanging-{number}", "hangs")
    await site.start(retries=FEW, election=election)
    await site.until(lambda: len(site.driver.made("CreateVolume", running=True)) == 7)
    await site.rest(2)
    for number in range(10):
        site.claim(f"quick-{number}", "quick")
    await site.rest(1)
    assert len(site.objects.all(VOLUME)) == 10
    assert len(site.driver.made("CreateVolume", running=True)) == 7


async def test_deletions_that_hang_leave_those_of_another_class_their_worker(site: Installation) -> None:
    site.storage_class("hangs")
    site.storage_class("quick")
    site.fault(rpc="DeleteVolume", match="hanging", hang=True)
    for number in range(20):
        released(site, f"hanging-{number}", storageClassName="hangs")
    await site.start(retries=FEW)
    await site.rest(2)
    for number in range(10):
        released(site, f"quick-{number}", storageClassName="quick")
    # Its finalizer is put on meanwhile, although the deletions of its class have no room.
    bound(site, "new", storageClassName="hangs", finalizers=())
    await site.rest(1)
    names = {volume["metadata"]["name"] for volume in site.objects.all(VOLUME)}
    assert not any(name.startswith("quick") for name in names)
    assert VOLUME_FINALIZER in site.finalizers(VOLUME, "new")
    assert len(site.driver.made("DeleteVolume", running=True)) == 7


def annotate(site: Installation, class_: str, text: str | None) -> None:
    site.edit(CLASS, class_, lambda obj: obj["metadata"].update(annotations={MAX_CALLS: text} if text else {}))


async def test_a_class_is_bounded_by_its_annotation_also_while_the_program_runs(site: Installation) -> None:
    site.storage_class()
    annotate(site, "fast", "2")
    site.fault(delay=5.0)
    for number in range(6):
        site.claim(f"data-{number}")
    await site.start(election=JOURNAL)
    await site.rest(2)
    assert len(site.driver.made("CreateVolume", running=True)) == 2
    series = await site.metrics()
    assert series['csi_provisioner_lane_bound{name="claims",class="fast",source=""}'] == 2
    assert series['csi_provisioner_lane_calls{name="claims",class="fast",source=""}'] == 2
    annotate(site, "fast", "4")
    await site.rest(0.5)
    assert len(site.driver.made("CreateVolume", running=True)) == 4
    annotate(site, "fast", "many")
    await site.rest(0.5)
    assert len(site.driver.made("CreateVolume", running=True)) == 6
    site.touch(CLASS, "fast", "1")
    await site.rest(0.5)
    assert len(site.logged("bounds nothing")) == 1
    await site.bound(*(f"data-{number}" for number in range(6)))
    series = await site.metrics()
    assert not any("lane" in name for name in series), "a series ends with its lane"


async def test_a_full_lane_holds_up_neither_events_nor_the_probe(site: Installation) -> None:
    """The flag bounds creations and deletions together, and an annotation less than that while the program runs."""

    def running() -> int:
        return sum(call.running for call in site.driver.calls)

    site.storage_class("slow")
    site.storage_class("quick")
    for rpc in ("CreateVolume", "DeleteVolume"):
        site.fault(rpc=rpc, match="slow", delay=20.0)
    for number in range(20):
        site.claim(f"slow-{number}", "slow")
        released(site, f"slow-{number}", storageClassName="slow")
    await site.start(retries=RetrySettings(class_workers=(("slow", 3),)), call_timeout=100.0)
    await site.rest(1)
    assert running() == 3
    series = await site.metrics()
    for queue in ("claims", "volumes"):
        assert series[f'csi_provisioner_lane_bound{{name="{queue}",class="slow",source=""}}'] == 3
    site.claim("quick", "quick")
    await site.rest(0.5)
    assert site.events("quick", "ProvisioningSucceeded"), "nothing of more weight waits that could be done"
    for _ in range(3):
        assert await site.scraped("/livez") == "[+] alive: ok\n"
        await site.rest(35)
    for annotated, expected in (("1", 1), ("5", 3)):
        annotate(site, "slow", annotated)
        await site.rest(21)
        assert running() == expected


async def test_nought_stops_creations_and_deletions_which_is_said(site: Installation) -> None:
    site.storage_class()
    await site.start(retries=RetrySettings(class_workers=(("fast", 3),)))
    annotate(site, "fast", "0")
    await site.rest(1)
    site.claim()
    released(site)
    event = await site.event("data", "Provisioning")
    assert "'fast' may have no calls" in event["message"]
    assert event["type"] == (await site.event("pv", "VolumeDelete"))["type"] == "Normal"
    await site.rest(2000)
    assert site.calls() == site.calls("DeleteVolume") == []
    annotate(site, "fast", None)
    await site.bound("data")
    await site.until(lambda: site.find(VOLUME, "pv") is None, limit=2)


async def test_a_class_that_is_gone_keeps_its_bound_until_no_volume_names_it(site: Installation) -> None:
    site.storage_class()
    annotate(site, "fast", "1")
    await site.start()
    site.fault(rpc="DeleteVolume", delay=5.0)
    for number in range(3):
        released(site, f"pv-{number}")
    since = trio.current_time()
    await site.rest(1)
    site.delete(CLASS, "fast")
    await site.until(lambda: not site.objects.all(VOLUME))
    assert trio.current_time() - since == pytest.approx(15, abs=1)
    for number in range(3):
        released(site, f"pv-{number}-later")
    await site.rest(2)
    assert len(site.driver.made("DeleteVolume", running=True)) == 3


@pytest.mark.parametrize("flag", [True, False], ids=["flag", "annotation"])
@pytest.mark.parametrize("existed", [True, False])
async def test_nought_stops_no_volume_whose_class_is_gone(site: Installation, flag: bool, existed: bool) -> None:
    """Nobody could let it go on."""
    if existed:
        site.storage_class()
        if not flag:
            annotate(site, "fast", "0")
    released(site)
    await site.start(retries=RetrySettings(class_workers=(("fast", 0),)) if flag else RetrySettings())
    if existed:
        await site.event("pv", "VolumeDelete")
        await site.rest(100)
        assert site.calls("DeleteVolume") == []
        site.delete(CLASS, "fast")
    await site.until(lambda: site.find(VOLUME, "pv") is None, limit=2)


async def test_a_slow_back_end_is_asked_for_what_it_answers_in_time(tmp_path: Path) -> None:
    """15 volumes in 22.5 s, one after the other: no call waits so long that it is given up."""
    async with installation(tmp_path, Config(backend=Backend(rate=2, requests=3, after_timeout="go_on"))) as site:
        site.storage_class()
        names = [f"data-{number}" for number in range(15)]
        for name in names:
            site.claim(name)
        since = trio.current_time()
        await site.start(retries=RetrySettings(adaptive=True), election=JOURNAL)
        await site.rest(3)
        series = await site.metrics()
        assert series['csi_provisioner_lane_bound{name="claims",class="fast",source=""}'] == 4
        assert series['csi_provisioner_lane_cuts_total{name="claims",class="fast",source=""}'] == 0
        await site.until(lambda: len(site.objects.all(VOLUME)) == 15)
        assert trio.current_time() - since < 24
        assert {call.code for call in site.calls()} == {"OK"}


async def test_a_claim_that_was_deleted_while_its_class_had_no_calls_is_gone_on_with(site: Installation) -> None:
    """The driver may be making its volume, which nobody else would delete."""
    site.storage_class()
    site.fault("DEADLINE_EXCEEDED", times=1, created=True)
    await site.start()
    site.claim()
    await site.until(lambda: site.calls())
    annotate(site, "fast", "0")
    await site.rest(30)
    site.delete(CLAIM, "data")
    await site.rest(30)
    assert len(site.calls()) == 1
    annotate(site, "fast", None)
    await site.until(lambda: not site.driver.state.volumes, limit=300)


@pytest.mark.parametrize(
    ("election", "moves"), [(JOURNAL, False), (ALONE, False), (ALONE, True)], ids=["journal", "no journal", "moves"]
)
async def test_a_claim_that_is_bound_or_moved_while_it_waits_for_a_worker_is_looked_at_again(
    site: Installation, election: ElectionSettings, moves: bool
) -> None:
    site.storage_class()
    site.fault(match="hangs", gate="long")
    site.claim("hangs")
    await site.start(
        retries=RetrySettings(workers=1), election=election, call_timeout=100.0, log=LogSettings(verbosity=2)
    )
    await site.until(lambda: site.calls())
    site.claim("waits")
    await site.rest(2)
    if moves:
        site.edit(CLAIM, "waits", lambda claim: claim["metadata"]["annotations"].update({SELECTED_NODE: "node-2"}))
    else:
        site.edit(CLAIM, "waits", lambda claim: claim["spec"].update(volumeName="another"))
    site.driver.faults.gate("long").set()
    await site.bound("hangs")
    await site.rest(10)
    assert len(site.logged("Claim is left alone")) == 1
    assert len(site.calls()) == 1 + moves
    assert (site.find(VOLUME, site.volume_of("waits")) is not None) == moves
