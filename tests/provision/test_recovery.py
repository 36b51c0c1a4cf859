"""What becomes of a volume that an earlier leader began, when nobody asks for it any more (design.md 6)."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from csi_provisioner.csi import wire
from csi_provisioner.csi.channel import Channel
from csi_provisioner.csi.driver import Driver as Client
from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.client import connect, resolve
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.kube.store import Store
from csi_provisioner.metrics import Metrics
from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim, SecretReference
from csi_provisioner.model.state import Lane
from csi_provisioner.planning import recovery
from csi_provisioner.planning.entries import ClaimName, Entry, SourceName
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.provision.orphans import Orphans
from csi_provisioner.provision.recovery import LANE, QUEUE, WORKERS, Recovery, Rules
from csi_provisioner.settings import ProvisioningSettings
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import Loop
from csi_provisioner.work.workers import Workers
from sandbox.driver.state import Wanted
from tests.canary import held
from tests.installation import CLAIM, NAMESPACE, VOLUME, Installation

HOLD, WRITTEN_AT = 25.0, 1_000_000
UID = "0d9f5c1e-3e2b-4a55-9f5a-7c6b7f0a1d11"
NAME = f"pvc-{UID}"


class Kept:
    """The journal as recovery sees it; `off` refuses to confirm."""

    def __init__(self, *entries: tuple[str, Entry]) -> None:
        self.inherited = dict(entries)
        self.taken_at: float | None = trio.current_time()
        self.doubted: set[str] = set()
        self.off = False
        self.confirmed: list[float] = []

    async def confirm(self, name: str) -> bool:
        await trio.lowlevel.checkpoint()
        self.confirmed.append(trio.current_time())
        return name in self.inherited and not self.off

    def leave(self, name: str) -> None:
        del self.inherited[name]


def entry(name: str = NAME, uid: str = UID, **fields: Any) -> Entry:
    mode = csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
    request = csi.CreateVolumeRequest(
        name=name,
        capacity_range=csi.CapacityRange(required_bytes=1 << 30),
        volume_capabilities=[
            csi.VolumeCapability(
                mount=csi.VolumeCapabilityMountVolume(), access_mode=csi.VolumeCapabilityAccessMode(mode=mode)
            )
        ],
    )
    given: dict[str, Any] = {
        "v": 1,
        "driver": "sandbox.csi.example.com",
        "claim": ClaimName(NAMESPACE, "data", uid),
        "storage_class": "fast",
        "reclaim_policy": "Delete",
        "request": wire.encode(request),
        "when": WRITTEN_AT,
    }
    return Entry(**given | fields)


class Site:
    """The parts around one recovery: the sandbox's API server and driver, and everything of ours but the journal."""

    def __init__(self, site: Installation, journal: Kept, found: Recovery, loop: Loop, metrics: Metrics) -> None:
        self.world, self.journal, self.recovery, self.loop, self._metrics = site, journal, found, loop, metrics
        self.under_way: set[str] = set()

    def outcomes(self) -> dict[str, int]:
        lines = self._metrics.render().decode().splitlines()
        marked = [line.split('"') for line in lines if line.startswith("csi_provisioner_recovered_volumes_total{")]
        return {outcome: int(rest[2:]) for _, outcome, rest in marked if rest != "} 0"}

    async def judged(self) -> dict[str, int]:
        """The outcomes, once no entry is left."""
        await self.world.until(lambda: not self.journal.inherited)
        return self.outcomes()

    def calls(self, rpc: str = "CreateVolume") -> list[Any]:
        return [call.request for call in self.world.driver.made(rpc)]

    def made(self, name: str = NAME) -> str:
        """The earlier leader's call had got through."""
        return self.world.driver.state.create_volume(Wanted(name, 1 << 30)).id

    def claim(self) -> str:
        """A living claim, and its entry in place of the others; the volume's name."""
        self.world.cluster.claim("data", "fast")
        annotation = {"volume.kubernetes.io/storage-provisioner": self.world.config.name}
        self.world.edit(CLAIM, "data", lambda claim: claim["metadata"].update(annotations=annotation))
        name = self.world.volume_of("data")
        self.journal.inherited = {name: entry(name, name.removeprefix("pvc-"))}
        return name

    def volume(self, name: str, handle: str) -> dict[str, Any]:
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": self.world.config.name, "volumeHandle": handle},
        }
        return self.world.objects.create(VOLUME, {"metadata": {"name": name}, "spec": spec}).obj


Recovering = Callable[..., Any]


@pytest.fixture
def recovering(site: Installation) -> Recovering:
    return partial(_recovering, site)


@asynccontextmanager
async def _recovering(
    site: Installation,
    *entries: tuple[str, Entry],
    age: float = 5.0,
    elected: bool = True,
    gap: bool = False,
    pool: Workers | None = None,
    before: Callable[[Site], Any] = lambda _site: None,
) -> AsyncIterator[Site]:
    """A leader that has just taken the journal over, with these entries in it (or one, of a claim that is gone)."""
    began, metrics, facts = trio.current_time(), Metrics(), DriverFacts(site.config.name)
    settings = site.cluster.settings(site.config)
    caches = Caches(claims=Store[PersistentVolumeClaim](index="uid"), volumes=Store[PersistentVolume]())
    journal = Kept(*(entries or [(NAME, entry())]))
    journal.doubted = {NAME} if gap else set()
    async with (
        Channel(settings.csi.address, on_lost=lambda: None, metrics=metrics) as channel,
        trio.open_nursery() as nursery,
    ):
        kube = connect(resolve(settings.cluster), user_agent="test")
        events = EventRecorder(kube, "test")
        rules = Rules(
            hold=HOLD,
            elected=elected,
            migratable=False,
            wants=partial(recovery.is_wanted, driver=facts, settings=ProvisioningSettings()),
            under_way=lambda uid: uid in one.under_way,
            clock=lambda: WRITTEN_AT + age + trio.current_time() - began - HOLD,
        )
        found = Recovery(
            journal=journal,
            rules=rules,
            kube=kube,
            driver=Client(channel, settings.csi),
            caches=caches,
            orphans=Orphans(site.config.name, metrics),
            events=events,
            metrics=metrics,
            workers=pool or Workers(100, fixed={LANE: WORKERS}),
        )
        loop = Loop(
            QUEUE,
            found.reconcile,
            workers=WORKERS,
            backoff=Backoff(1.0, 300.0),
            exclusive=Exclusive(),
            metrics=metrics.queue(QUEUE),
        )
        one = Site(site, journal, found, loop, metrics)
        before(one)
        nursery.start_soon(events.run)
        nursery.start_soon(loop.run)
        for name in journal.inherited:
            loop.wake(name)
        yield one
        nursery.cancel_scope.cancel()
        kube.close()


async def test_a_volume_whose_claim_is_gone_is_asked_for_again_and_deleted(recovering: Recovering) -> None:
    async with recovering(before=Site.made) as one:
        assert await one.judged() == {"deleted": 1}
        assert one.world.driver.state.volumes == {}
        assert [request.name for request in one.calls()] == [NAME]
        assert len(one.calls("DeleteVolume")) == 1


async def test_nothing_is_done_before_the_hold_is_over(recovering: Recovering) -> None:
    """A call of the leader before may still land."""
    async with recovering(before=Site.made) as one:
        asked = len(one.world.requests)
        await trio.sleep(HOLD - 0.1)
        assert one.calls() == []
        assert len(one.world.requests) == asked
        await one.judged()
        assert trio.current_time() == pytest.approx(one.journal.taken_at + HOLD, abs=1)


async def test_the_term_is_confirmed_before_every_call(recovering: Recovering) -> None:
    async with recovering() as one:
        await one.judged()
        assert len(one.journal.confirmed) == len(one.calls()) + len(one.calls("DeleteVolume")) == 2


async def test_while_the_journal_is_off_the_driver_is_not_asked(recovering: Recovering) -> None:
    def off(one: Site) -> None:
        one.journal.off = True

    async with recovering(before=off) as one:
        await trio.sleep(HOLD + 60)
        assert one.calls() == []
        one.journal.off = False
        assert await one.judged() == {"deleted": 1}


async def test_a_volume_with_its_persistent_volume_has_its_owner(recovering: Recovering) -> None:
    async with recovering(before=lambda one: one.volume(NAME, one.made())) as one:
        assert await one.judged() == {"owned": 1}
        assert one.calls() == []
        assert len(one.world.driver.state.volumes) == 1


async def test_what_a_living_claim_wants_is_left_to_its_own_loop(recovering: Recovering) -> None:
    async with recovering(before=Site.claim) as one:
        await trio.sleep(HOLD + 300)
        assert one.calls() == []
        one.world.delete(CLAIM, "data")
        assert await one.judged() == {"deleted": 1}


@pytest.mark.parametrize("change", ["bound elsewhere", "of another driver", "made anew"])
async def test_a_claim_that_wants_the_volume_no_more_is_as_good_as_gone(recovering: Recovering, change: str) -> None:
    def changed(one: Site) -> None:
        if change == "made anew":
            one.made()
            one.world.cluster.claim("data", "fast")
            return
        one.made(one.claim())
        edits: dict[str, Callable[[dict[str, Any]], Any]] = {
            "bound elsewhere": lambda claim: claim["spec"].update(volumeName="other"),
            "of another driver": lambda claim: claim["metadata"].update(annotations={}),
        }
        one.world.edit(CLAIM, "data", edits[change])

    async with recovering(before=changed) as one:
        assert await one.judged() == {"deleted": 1}
        assert one.world.driver.state.volumes == {}


async def test_a_claim_deleted_in_our_own_term_is_left_to_its_own_loop(recovering: Recovering) -> None:
    async with recovering(before=lambda one: one.under_way.add(UID)) as one:
        await trio.sleep(HOLD + 120)
        assert one.calls() == []
        one.under_way.clear()
        assert await one.judged() == {"deleted": 1}


async def test_a_volume_given_to_somebody_meanwhile_is_not_deleted(recovering: Recovering) -> None:
    """Between our call and our second look the PersistentVolume appears."""
    async with recovering(before=lambda one: one.world.fault(gate="made", times=1)) as one:
        await one.world.until(one.calls)
        one.volume(NAME, "any")
        one.world.driver.faults.gate("made").set()
        assert await one.judged() == {"owned": 1}
        assert one.calls("DeleteVolume") == []


async def test_a_volume_that_an_administrator_has_adopted_is_told(recovering: Recovering) -> None:
    async with recovering(before=lambda one: one.volume("adopted", one.made())) as one:
        assert await one.judged() == {"told": 1}
        assert one.calls("DeleteVolume") == []
        [line] = one.world.logged("A volume may be left over")
        assert line.keys["reason"] == "PersistentVolume adopted names it"
        [volume] = one.world.driver.state.volumes
        assert line.keys["volumeID"] == volume


TOLD: list[tuple[str, dict[str, Any], dict[str, Any], int]] = [
    ("reclaim policy Retain", {"reclaim_policy": "Retain"}, {}, 1),
    ("minutes old", {}, {"age": 3601.0}, 0),
    ("minutes old", {}, {"age": -3601.0}, 0),
    ("minutes old", {}, {"age": 601.0, "elected": False}, 0),
    ("without a volume journal", {}, {"gap": True}, 0),
]


@pytest.mark.parametrize(("why", "fields", "given", "asked"), TOLD)
async def test_what_may_be_somebodys_is_told_and_never_deleted(
    recovering: Recovering, why: str, fields: dict[str, Any], given: dict[str, Any], asked: int
) -> None:
    async with recovering((NAME, entry(**fields)), before=Site.made, **given) as one:
        assert await one.judged() == {"told": 1}
        assert len(one.calls()) == asked
        assert len(one.world.driver.state.volumes) == 1
        event = await one.world.event("data", "VolumeLeftOver")
        assert why in event["message"]
        assert NAME in event["message"]
        assert event["involvedObject"]["uid"] == UID


@pytest.mark.parametrize(("age", "elected"), [(3599.0, True), (599.0, False)])
async def test_a_young_entry_is_acted_on(recovering: Recovering, age: float, elected: bool) -> None:
    async with recovering(before=Site.made, age=age, elected=elected) as one:
        assert await one.judged() == {"deleted": 1}


async def test_an_entry_that_was_young_when_first_judged_stays_so(recovering: Recovering) -> None:
    """The driver is away for hours: what nobody else can have touched since is still deleted."""
    async with recovering(before=lambda one: one.made() and one.world.fault("UNAVAILABLE", times=40)) as one:
        await one.world.until(lambda: not one.journal.inherited, limit=36_000)
        assert one.outcomes() == {"deleted": 1}
        assert trio.current_time() - one.journal.taken_at > 7200


@pytest.mark.parametrize("code", ["ALREADY_EXISTS", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"])
async def test_what_the_driver_refuses_for_good_is_told(recovering: Recovering, code: str) -> None:
    """An earlier call was not certain, so nobody knows."""
    async with recovering(before=lambda one: one.world.fault(code)) as one:
        assert await one.judged() == {"told": 1}
        assert len(one.calls()) == 1


@pytest.mark.parametrize("rpc", ["CreateVolume", "DeleteVolume"])
@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN", "ABORTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"])
async def test_any_other_error_is_tried_again(recovering: Recovering, rpc: str, code: str) -> None:
    async with recovering(before=lambda one: one.world.fault(code, rpc=rpc, times=3)) as one:
        assert await one.judged() == {"deleted": 1}
        assert len(one.calls(rpc)) == 4
        assert one.world.driver.state.volumes == {}


async def test_the_secret_is_read_again_for_both_calls(recovering: Recovering) -> None:
    def secret(one: Site) -> None:
        one.world.secret("login", user="u1")

    with_secret = entry(secret=SecretReference("login", NAMESPACE))
    async with recovering((NAME, with_secret), before=secret) as one:
        assert await one.judged() == {"deleted": 1}
        assert [request.secrets for request in (*one.calls(), *one.calls("DeleteVolume"))] == [held(user="u1")] * 2


@pytest.mark.parametrize(("code", "outcome"), [("", "deleted"), ("UNAUTHENTICATED", "told"), ("INTERNAL", "told")])
async def test_a_secret_that_is_gone_is_done_without_once(recovering: Recovering, code: str, outcome: str) -> None:
    def refuses(one: Site) -> None:
        one.made()
        if code:
            one.world.fault(code)

    async with recovering((NAME, entry(secret=SecretReference("login", NAMESPACE))), before=refuses) as one:
        assert await one.judged() == {outcome: 1}
        assert [request.secrets for request in one.calls()] == [{}]


@pytest.mark.parametrize(("verb", "kind"), [("get", VOLUME), ("get", CLAIM), ("list", VOLUME)])
async def test_what_cannot_be_looked_up_is_not_deleted(recovering: Recovering, verb: str, kind: str) -> None:
    async with recovering(before=lambda one: one.world.refuse(verb, kind, times=3)) as one:
        await trio.sleep(HOLD + 2)
        assert one.calls("DeleteVolume") == []
        assert await one.judged() == {"deleted": 1}


async def test_an_answer_without_a_volume_is_told(recovering: Recovering) -> None:
    async with recovering(before=lambda one: one.world.fault(no_volume=True)) as one:
        assert await one.judged() == {"told": 1}
        assert one.calls("DeleteVolume") == []


async def test_only_four_are_recovered_at_a_time_within_the_workers(recovering: Recovering) -> None:
    uids = [f"{number:08}{UID[8:]}" for number in range(12)]
    entries, pool = [(f"pvc-{uid}", entry(f"pvc-{uid}", uid)) for uid in uids], Workers(6, fixed={LANE: WORKERS})
    async with recovering(*entries, pool=pool, before=lambda one: one.world.fault(delay=3.0)) as one:
        async with AsyncExitStack() as claims:
            for _ in range(4):
                await claims.enter_async_context(pool.call(Lane("fast")))
            while one.journal.inherited:
                assert len(one.world.driver.made("CreateVolume", running=True)) <= 2
                await trio.sleep(0.5)
        assert one.outcomes() == {"deleted": 12}


def test_the_source_of_an_entry_is_held_as_that_of_a_claim_at_work() -> None:
    snapshot = recovery.reader(entry(source=SourceName("VolumeSnapshot", "other", "snap")))
    assert snapshot.metadata.uid == UID
    assert snapshot.spec.dataSource is not None
    assert (snapshot.spec.dataSource.name, snapshot.spec.dataSource.namespace) == ("snap", "other")
    assert recovery.reader(entry()).spec.dataSource is None
