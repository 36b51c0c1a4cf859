"""What claims wait for and for how long (process.md 8.5): the rules, on stores in memory and virtual time."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.store import Store
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from csi_provisioner.model.outcome import Attempt, Outcome, Retry, RetryAt, State
from csi_provisioner.planning import pending, steps
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.provision.memory import ClaimMemory
from csi_provisioner.provision.waiting import Waiting
from tests.planning import objects
from tests.planning.objects import SNAPSHOT, but, driver

NODE = "volume.kubernetes.io/selected-node"
LATE = "WaitForFirstConsumer"
# The API server's clock at the beginning
NOW = 1_767_225_600.0
VOLUME = but(objects.volume(), "metadata.name", "pvc-1")
FAST = 'class="fast",source="",binding="Immediate"'


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


class World:
    """A leader's caches and the claims that wait; `away` are outages of the driver."""

    def __init__(self, node: str = "") -> None:
        self.memory, self.metrics, self.node = ClaimMemory(), Metrics(), node
        self.away: list[tuple[float, float]] = []
        self.version = 100
        self.term()

    def term(self) -> None:
        """With caches that nothing is in yet."""
        self.caches = Caches(claims=Store(index="uid"), volumes=Store())
        self.waiting = Waiting(
            self.caches,
            driver(),
            self.memory,
            self.metrics,
            server_time=lambda: NOW + trio.current_time(),
            away=lambda begin, end: sum(max(0.0, min(end, over) - max(begin, at)) for at, over in self.away),
            node=self.node,
        )

    def _new(self, obj: Any) -> Any:
        self.version += 1
        return but(obj, "metadata.resourceVersion", str(self.version))

    def storage_class(self, name: str = "fast", mode: str = "Immediate") -> None:
        made = but(objects.storage_class(volumeBindingMode=mode), "metadata.name", name)
        self.caches.storage_classes.put(self._new(made))

    def drop_class(self, name: str = "fast") -> None:
        self.caches.storage_classes.drop(self._new(self.caches.storage_classes.get(name)))

    def claim(self, uid: str = "a", *, age: float = 0.0, node: str = "", phase: str = "Pending", **spec: Any) -> None:
        """The watch shows it so."""
        made = objects.claim(uid, **spec)
        created = datetime.fromtimestamp(NOW + trio.current_time() - age, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        annotations = {**(made.metadata.annotations or {}), **({NODE: node} if node else {})}
        made.metadata = msgspec.structs.replace(
            made.metadata, uid=uid, annotations=annotations, creationTimestamp=created
        )
        made.status.phase = phase
        self.caches.claims.put(self._new(made))

    def bound(self, uid: str = "a") -> None:
        self.claim(uid, volumeName="pvc-1", phase="Bound")

    def get(self, uid: str = "a") -> PersistentVolumeClaim:
        found = self.caches.claims.by_uid(uid)
        assert found is not None
        return found

    def written(self, uid: str = "a") -> None:
        self.waiting.written(self.get(uid))

    async def call(self, seconds: float, outcome: Outcome | None = None, uid: str = "a", *, asked: bool = True) -> None:
        """A try with one call, which fails as `outcome` says."""
        self.waiting.resume(uid)
        with self.waiting.call(uid):
            await trio.sleep(seconds)
        if outcome is not None:
            refusal = Refusal(State.FINISHED, "no", step=steps.CALL if asked else steps.SECRET)
            self.waiting.failed(uid, refusal, outcome, Attempt(delay=4.0), asked=asked)

    def pending(self, *, driver_away: bool = False) -> dict[tuple[str, str], tuple[int, float]]:
        found = self.waiting.states(driver_away=driver_away)
        return {(each.class_, each.reason): (each.count, each.oldest) for each in found}

    def told(self) -> dict[str, float]:
        """Sums and counts of what was observed."""
        lines = [line.rpartition(" ") for line in self.metrics.render().decode().splitlines() if line[:3] == "csi"]
        found = {name.removeprefix("csi_provisioner_"): float(value) for name, _, value in lines if "_seconds_" in name}
        return {name: value for name, value in found.items() if "_bucket" not in name and found[_count(name)]}


def _count(series: str) -> str:
    return series.replace("_sum", "_count")


# ---- how long it took


async def test_a_claim_that_binds_at_once_is_ready_when_it_is_made() -> None:
    world = World()
    world.storage_class()
    await world.waiting.begin()
    world.claim(age=7, dataSource=SNAPSHOT)
    await trio.sleep(3)
    world.written()
    labels = '{class="fast",source="VolumeSnapshot",binding="Immediate"}'
    assert world.told() == {
        f"{family}_seconds_{what}{labels}": value
        for family in ("claim_to_volume", "overhead")
        for what, value in (("sum", 10), ("count", 1))
    }


@pytest.mark.parametrize(
    ("mode", "listed", "seconds"),
    [("Immediate", True, 13), (LATE, True, None), (LATE, False, 3)],
    ids=["made before", "a node before", "a node as seen"],
)
async def test_of_a_claim_that_binds_late_only_a_node_that_was_seen_to_come_is_a_beginning(
    mode: str, listed: bool, seconds: float | None
) -> None:
    world = World()
    world.storage_class(mode=mode)
    if not listed:
        await world.waiting.begin()
        world.claim(age=5)
        await trio.sleep(5)
    world.claim(age=10, node="n")
    await world.waiting.begin()
    await trio.sleep(1)
    world.claim(age=11)  # its node is taken back, and it gets another
    await trio.sleep(1)
    world.claim(age=12, node="m")
    await trio.sleep(1)
    world.written()
    found = [value for name, value in world.told().items() if name.startswith("claim_to_volume_seconds_sum")]
    assert found == ([] if seconds is None else [seconds])
    world.bound()
    assert world.told()["bind_wait_seconds_count"] == 1


async def test_a_node_that_was_chosen_before_is_no_beginning_either_where_the_try_is_first() -> None:
    """The work may begin before all claims of the first list have been looked at."""
    world = World()
    world.storage_class(mode=LATE)
    world.claim(age=10, node="n")
    world.waiting.resume("a")
    await world.waiting.begin()
    await trio.sleep(1)
    world.written()
    assert world.told() == {}


# A try from 10 to 12; the next one from `resumed` to `resumed` + 2, and then the volume.
@pytest.mark.parametrize(
    ("outcome", "asked", "resumed", "away", "overhead"),
    [
        (Retry("no"), True, 16, [], 10),
        (Retry("no"), True, 20, [], 14),
        (Retry("no"), True, 14, [], 10),
        (Retry("no", floor=30.0), True, 50, [], 18),
        (RetryAt(40.0, "no"), True, 40, [], 10),
        (Retry("no"), False, 16, [], 14),
        (Retry("no"), True, 16, [(0, 5)], 5),
        (Retry("no"), True, 20, [(11, 19)], 11),
        (Retry("no"), True, 20, [(15, 100)], 10),
        (Retry("no"), True, 16, [(-50, 3), (5, 9)], 3),
    ],
    ids=[
        "back-off", "later than its end", "earlier than its end", "what the driver's server asks for", "held off",
        "nobody's failure but ours", "away before", "away in call and back-off", "away since the back-off",
        "away twice",
    ],
)  # fmt: skip
async def test_calls_back_off_and_outages_of_the_driver_are_not_our_time(
    outcome: Outcome, asked: bool, resumed: float, away: list[tuple[float, float]], overhead: float
) -> None:
    world = World()
    world.away = away
    world.storage_class()
    await world.waiting.begin()
    world.claim()
    await trio.sleep_until(10)
    await world.call(2, outcome, asked=asked)
    await trio.sleep_until(resumed)
    await world.call(2)
    world.written()
    found = world.told()
    assert found[f"claim_to_volume_seconds_sum{{{FAST}}}"] == resumed + 2
    assert found[f"overhead_seconds_sum{{{FAST}}}"] == overhead


async def test_what_was_asked_before_a_claim_was_ours_is_a_call_too() -> None:
    world = World(node="n")
    world.storage_class()
    await world.waiting.begin()
    world.claim()
    assert world.pending() == {}
    await trio.sleep(5)
    world.claim(age=5, node="n")
    world.waiting.called("a", 2.0)
    world.written()
    assert world.told()[f"overhead_seconds_sum{{{FAST}}}"] == 3


@pytest.mark.parametrize("shown_first", [False, True])
async def test_the_volume_controllers_part_is_from_our_write_to_the_claim_bound(shown_first: bool) -> None:
    world = World()
    world.storage_class()
    await world.waiting.begin()
    world.claim()
    world.memory.keep_unsaved(VOLUME, world.get(), "id")
    if not shown_first:
        world.memory.note_written("pvc-1")
        world.written()
    await trio.sleep(2)
    world.claim(volumeName="pvc-1")
    assert world.pending() == {("fast", "bind"): (1, 2.0)}
    await trio.sleep(1)
    world.bound()
    if shown_first:  # the answer to the write comes last
        world.memory.note_written("pvc-1")
        world.written()
    assert world.told()["bind_wait_seconds_sum"] == (0 if shown_first else 3)
    assert world.told()[f"claim_to_volume_seconds_count{{{FAST}}}"] == 1
    assert (world.memory.waits, world.pending()) == ({}, {})


# ---- how many wait, and why


async def test_each_claim_is_counted_under_the_step_at_which_it_stands() -> None:
    """The same word as a walk over all claims would find."""
    world = World()
    world.storage_class()
    world.storage_class("late", LATE)
    world.claim("listed")
    await world.waiting.begin()
    for uid in ("queue", "call", "secret", "made", "save"):
        world.claim(uid)
    world.claim("theirs", annotations={})
    world.claim("missing", storageClassName="missing")
    world.claim("node", storageClassName="late")
    await world.call(1, Retry("no"), "call")
    await world.call(1, Retry("no"), "secret", asked=False)
    world.waiting.made("made")
    world.memory.keep_unsaved(VOLUME, world.get("save"), "id")
    world.waiting.see("save")
    assert world.pending() == {
        ("fast", "queue"): (2, 2.0),
        ("fast", "call"): (1, 2.0),
        ("fast", "secret"): (1, 2.0),
        ("fast", "bind"): (1, 2.0),
        ("fast", "save"): (1, 2.0),
        ("late", "node"): (1, 0.0),  # for nobody but the scheduler
        ("", "class"): (1, 2.0),
    }
    walked = [
        pending.reason(
            claim,
            world.caches.storage_classes.get(claim.spec.storageClassName or ""),
            driver(),
            unsaved=claim.metadata.uid == "save",
            written=claim.metadata.uid == "made",
            failed={"call": "call", "secret": "secret"}.get(claim.metadata.uid, ""),
        )
        for claim in world.caches.claims.values()
    ]
    counted = [reason for (_, reason), (count, _) in world.pending().items() for _ in range(count)]
    assert sorted(counted) == sorted(filter(None, walked))
    away = world.pending(driver_away=True)
    assert away[("fast", "driver")] == (4, 2.0)
    assert set(away) == {("fast", reason) for reason in ("driver", "bind", "save")} | {("late", "node"), ("", "class")}
    with world.waiting.call("queue"):
        assert world.pending()[("fast", "call")][0] == 2


async def test_claims_that_are_gone_or_bound_or_anothers_are_not_counted() -> None:
    world = World()
    world.storage_class()
    await world.waiting.begin()
    for uid in "abc":
        world.claim(uid)
    world.caches.claims.drop(world.get("a"))
    world.bound("b")
    world.claim("c", annotations={})
    assert (world.memory.waits, world.pending()) == ({}, {})
    # What a try that ends only now has to say changes nothing.
    for uid in "abc":
        await world.call(1, Retry("no"), uid)
    assert (world.memory.waits, world.pending()) == ({}, {})
    assert world.told() == {}


async def test_nothing_is_counted_before_the_caches_are_complete_and_then_everything() -> None:
    world = World()
    world.claim()
    assert world.pending() == {}
    world.storage_class()
    await world.waiting.begin()
    assert world.pending() == {("fast", "queue"): (1, 0.0)}


async def test_a_long_first_list_is_counted_with_pauses_for_others() -> None:
    world = World()
    world.storage_class()
    for number in range(500):
        world.claim(f"uid-{number}")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await trio.lowlevel.checkpoint()
        before = turns
        await world.waiting.begin()
        assert turns > before
        nursery.cancel_scope.cancel()
    assert world.pending() == {("fast", "queue"): (500, 0.0)}


async def test_another_term_goes_on_with_what_is_known_and_drops_what_went_meanwhile() -> None:
    world = World()
    world.storage_class()
    world.storage_class("late", LATE)
    await world.waiting.begin()
    for uid in "ab":
        world.claim(uid, storageClassName="late", node="n")
    await trio.sleep(5)
    world.term()
    world.storage_class("late", LATE)
    world.claim("b", storageClassName="late", node="n")
    await world.waiting.begin()
    assert world.pending() == {("late", "queue"): (1, 5.0)}
    assert list(world.memory.waits) == ["b"]
    world.written("b")
    assert world.told()['claim_to_volume_seconds_sum{class="late",source="",binding="WaitForFirstConsumer"}'] == 5


async def test_series_of_a_class_go_with_it_and_its_claims_wait_for_a_class() -> None:
    world = World()
    world.storage_class()
    world.storage_class("other")
    await world.waiting.begin()
    for uid, name in (("a", "fast"), ("b", "fast"), ("c", "other")):
        world.claim(uid, storageClassName=name)
    world.written("a")
    world.written("c")
    world.drop_class()
    assert 'class="fast"' not in world.metrics.render().decode()
    assert any('class="other"' in name for name in world.told())
    assert world.pending() == {("", "class"): (1, 0.0), ("", "bind"): (1, 0.0), ("other", "bind"): (1, 0.0)}
    world.written("b")  # its call was under way
    assert 'class="fast"' not in world.metrics.render().decode()
    # One that went while nobody looked goes when somebody does again.
    world.term()
    await world.waiting.begin()
    assert not any(name.startswith("claim_to_volume") for name in world.told())


async def test_a_class_that_comes_late_counts_from_the_claims_beginning() -> None:
    world = World()
    await world.waiting.begin()
    world.claim()
    await trio.sleep(4)
    assert world.pending() == {("", "class"): (1, 4.0)}
    world.storage_class()
    world.waiting.see("a")
    world.written()
    assert world.told()[f"claim_to_volume_seconds_sum{{{FAST}}}"] == 4
