"""Leader election: its decisions as tables, its loop on the wire and on virtual time (process.md 6 and 10.2)."""

from datetime import UTC, datetime

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.kube.client import connect, resolve
from csi_provisioner.kube.election import LeaderElector
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.kube.holding import taken_until, written
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import LeaseSpec
from csi_provisioner.settings import ClusterSettings, ElectionSettings
from tests.kube.leases import LeaseApi, candidates
from tests.kube.wire import serving

THEIRS = LeaseSpec(holderIdentity="them", leaseDurationSeconds=15, acquireTime="then", leaseTransitions=3)
OURS = LeaseSpec(holderIdentity="us", leaseDurationSeconds=15, acquireTime="then", leaseTransitions=3)


# ---- decisions

FREE = float("-inf")
TAKEN: dict[str, tuple[LeaseSpec | None, float]] = {
    "no lease": (None, FREE),
    "ours": (OURS, FREE),
    "theirs, for its duration": (THEIRS, 115),
    "given back": (LeaseSpec(holderIdentity="", leaseDurationSeconds=1), FREE),
    "without a holder": (LeaseSpec(), FREE),
    "without a duration": (LeaseSpec(holderIdentity="them"), 100),
}


@pytest.mark.parametrize("row", TAKEN.values(), ids=TAKEN.keys())
def test_another_holder_has_the_lease_for_its_duration(row: tuple[LeaseSpec | None, float]) -> None:
    lease, expected = row
    assert taken_until(lease, "us", seen=100) == expected


WRITTEN: dict[str, tuple[LeaseSpec | None, dict[str, object]]] = {
    "created": (None, {"acquireTime": "now", "leaseTransitions": 0}),
    "acquired": (THEIRS, {"acquireTime": "now", "leaseTransitions": 4}),
    "acquired, given back": (LeaseSpec(holderIdentity=""), {"acquireTime": "now", "leaseTransitions": 1}),
    "acquired, counted as far as the API can": (
        LeaseSpec(holderIdentity="them", leaseTransitions=2**31 - 1),
        {"acquireTime": "now", "leaseTransitions": 2**31 - 1},
    ),
    "renewed": (OURS, {"acquireTime": "then", "leaseTransitions": 3}),
}


@pytest.mark.parametrize("row", WRITTEN.values(), ids=WRITTEN.keys())
def test_a_lease_is_written_with_its_times_and_transitions(row: tuple[LeaseSpec | None, dict[str, object]]) -> None:
    before, expected = row
    always = {"holderIdentity": "us", "leaseDurationSeconds": 15, "renewTime": "now"}
    assert written(before, "us", 15.9, "now") == always | expected


def test_what_an_earlier_process_of_our_name_left_is_a_new_term_and_no_change_of_hands() -> None:
    taken = written(OURS, "us", 15, "now", leading=False)
    assert (taken["acquireTime"], taken["leaseTransitions"]) == ("now", 3)


# ---- the loop


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.fixture
def api() -> LeaseApi:
    return LeaseApi()


async def test_the_first_leads_and_renews_in_place(api: LeaseApi) -> None:
    async with candidates(api) as (start, _):
        a = await start("a", labels=(("team", "storage"),))
        await trio.sleep(21)
        assert len(a.leads) == 1
        assert [method for _, method in api.asked] == ["GET", "POST", "PUT", "PUT", "PUT", "PUT", "PUT"]
        assert api.lease is not None
        spec, meta = api.lease["spec"], api.lease["metadata"]
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("a", 15, 0)
        assert meta["labels"] == {"team": "storage"}
        assert spec["renewTime"].endswith("Z")
        assert len(spec["renewTime"]) == len("2026-01-01T00:00:00.000000Z")


async def test_one_leads_at_a_time_and_hands_over(api: LeaseApi) -> None:
    async with candidates(api) as (start, _):
        a, b = await start("a"), await start("b")
        await trio.sleep(100)
        first, second = (a, b) if a.leads else (b, a)
        assert second.leads == []
        first.stop.set()
        await trio.sleep(11)
        assert len(second.leads) == 1
        assert second.leads[0] >= first.ended[0]
        assert api.lease is not None
        assert api.lease["spec"]["leaseTransitions"] == 1


async def test_giving_back_writes_an_empty_holder(api: LeaseApi) -> None:
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(1)
        a.stop.set()
        await trio.sleep(1)
        assert api.lease is not None
        spec = api.lease["spec"]
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("", 1, 0)
        assert a.lost is None


async def test_a_silent_holder_is_waited_out_on_our_own_clock(api: LeaseApi) -> None:
    """Its renewTime lies in the future and counts for nothing."""
    spec = {"holderIdentity": "old", "leaseDurationSeconds": 15, "renewTime": "2999-01-01T00:00:00.000000Z"}
    api.put({"metadata": {"name": "lock", "namespace": "ns", "labels": {"kept": "yes"}}, "spec": spec})
    async with candidates(api) as (start, _):
        begun = trio.current_time()
        a = await start("a", labels=(("team", "storage"),))
        await trio.sleep(60)
        assert 15 <= a.leads[0] - begun <= 15 + 2.2 * 5
        assert api.lease is not None
        assert api.lease["metadata"]["labels"] == {"kept": "yes", "team": "storage"}


@pytest.mark.parametrize("fault", [500, 403, 404, "hang"])
async def test_a_lease_that_cannot_be_renewed_is_lost_in_time(api: LeaseApi, fault: int | str) -> None:
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(12)
        renewed = api.asked[-1][0]
        api.fault = fault
        await trio.sleep(60)
        assert a.lost == pytest.approx(renewed + 10, abs=0.01)
        assert a.ended == [a.lost]
        assert a.elector.health() is None
        assert api.holder == "a", "what is lost is not given back"
        tries = {time for time, _ in api.asked if time > renewed}
        assert len(tries) >= 2, "one bad try is not the end"


async def test_a_short_trouble_is_survived(api: LeaseApi) -> None:
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(12)
        api.fault = 503
        await trio.sleep(7)
        api.fault = None
        await trio.sleep(60)
        api.fault = "lost"
        await trio.sleep(60)
        assert (len(a.leads), a.ended, a.lost) == (1, [], None)


async def test_a_renewal_that_meets_a_defect_is_a_failed_try(api: LeaseApi, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as a clock that cannot be written down: one line, and the lease is kept once the next try works."""
    broken = 0

    def now() -> datetime:
        nonlocal broken
        if broken:
            broken -= 1
            raise OverflowError("year 10000 is out of range")
        return datetime(2026, 1, 1, tzinfo=UTC)

    async with candidates(api) as (start, _):
        a = await start("a", now=now)
        await trio.sleep(12)
        broken = 4
        await trio.sleep(60)
        assert (len(a.leads), a.ended, a.lost) == (1, [], None)
        a.stop.set()
        broken = 1
        await trio.sleep(1)
        assert len(a.ended) == 1
    said = capsys.readouterr().err
    assert said.count("OverflowError: year 10000") == 2, "once while it renewed, once as it gave the lease back"
    assert "Unexpected error in the election, trying on" in said


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (403, "grant get, create and update on leases of API group coordination.k8s.io in namespace ns"),
        (404, "is there a namespace ns? It is --leader-election-namespace, else that of the pod"),
        (503, "is the API server up and reachable, and does nothing on the way end connections?"),
    ],
)
async def test_what_to_do_about_a_trouble_is_said(
    api: LeaseApi, capsys: pytest.CaptureFixture[str], fault: int, advice: str
) -> None:
    api.write_fault = fault
    async with candidates(api) as (start, _):
        await start("a")
        await trio.sleep(60)
    assert capsys.readouterr().err.count(f'advice="{advice}') == 1


async def test_another_holder_ends_it_at_once(api: LeaseApi) -> None:
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(12)
        assert api.lease is not None
        api.put({**api.lease, "spec": {**api.lease["spec"], "holderIdentity": "b"}})
        taken = trio.current_time()
        await trio.sleep(60)
        assert a.lost is not None
        assert a.lost - taken <= 5
        assert api.holder == "b"


async def test_a_lease_that_somebody_emptied_is_taken_back_by_its_leader(api: LeaseApi) -> None:
    """Nobody holds it, and the resourceVersion sees to it that nobody can in between: no reason to end (6.5)."""
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(12)
        assert api.lease is not None
        api.put({**api.lease, "spec": {**api.lease["spec"], "holderIdentity": ""}})
        await trio.sleep(20)
        assert api.holder == "a"
        assert api.lease["spec"]["leaseTransitions"] == 1
        assert (a.ended, a.lost) == ([], None)


async def test_a_lease_that_another_one_has_given_back_is_lost(api: LeaseApi) -> None:
    """A machine that was paused knows nothing of the other's term: what it holds for true is from before."""
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(12)
        assert api.lease is not None
        given_back = {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": "2030-01-01T00:00:00.000000Z"}
        api.put({**api.lease, "spec": {**api.lease["spec"], **given_back}})
        taken = trio.current_time()
        await trio.sleep(60)
        assert a.lost is not None
        assert a.lost - taken <= 5


@pytest.mark.parametrize("fault", [409, 403])
async def test_a_leader_whose_writes_were_refused_a_while_still_gives_back(api: LeaseApi, fault: int) -> None:
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(12)
        api.write_fault = fault
        await trio.sleep(5)
        api.write_fault = None
        await trio.sleep(20)
        a.stop.set()
        await trio.sleep(1)
        assert (a.lost, api.holder) == (None, "")


@pytest.mark.parametrize("fault", [409, 403, 404])
async def test_a_candidate_that_was_refused_has_nothing_to_give_back(api: LeaseApi, fault: int) -> None:
    api.write_fault = fault
    async with candidates(api) as (start, _):
        await start("a")
        await trio.sleep(30)
        asked = len(api.asked)
    assert len(api.asked) == asked


async def test_a_deleted_lease_is_made_again_by_its_leader(api: LeaseApi) -> None:
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(12)
        api.lease = None
        await trio.sleep(20)
        assert api.holder == "a"
        assert a.ended == []


async def test_an_acquisition_whose_answer_is_lost_is_found_out(api: LeaseApi) -> None:
    async with candidates(api) as (start, _):
        api.fault = "lost"
        a = await start("a")
        await trio.sleep(30)
        assert api.fault is None
        assert len(a.leads) == 1


@pytest.mark.parametrize("moment", [0.001, 1.0, 6.0])
async def test_cancelled_it_gives_back_what_it_may_hold(api: LeaseApi, moment: float) -> None:
    async with serving(api.answer) as server:
        client = connect(resolve(ClusterSettings(master=f"http://127.0.0.1:{server.port}")), user_agent="test/1")
        settings = ElectionSettings(enabled=True, namespace="ns")
        elector = LeaderElector(client, settings, name="lock", identity="a", metrics=Metrics(), random=lambda: 0.5)
        with trio.move_on_after(moment):
            await elector.run(trio.sleep_forever)
        assert not api.holder
        assert trio.current_time() < moment + 1
        client.close()


async def test_a_change_in_between_does_not_keep_it_from_being_given_back(api: LeaseApi) -> None:
    """A renewal of its own that was still under way, or a label of somebody's."""
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(12)
        api.touched_after_get = True
        a.stop.set()
        await trio.sleep(1)
        assert api.holder == ""


async def test_events_tell_who_leads(api: LeaseApi) -> None:
    async with serving(api.answer) as server, trio.open_nursery() as nursery:
        client = connect(resolve(ClusterSettings(master=f"http://127.0.0.1:{server.port}")), user_agent="test/1")
        events = EventRecorder(client, "driver_host_1")
        await nursery.start(events.run)
        elector = LeaderElector(
            client,
            ElectionSettings(enabled=True, namespace="ns"),
            name="lock",
            identity="a",
            metrics=Metrics(),
            events=events,
            component="driver/a",
        )
        await elector.run(events.wait_written)
        await events.wait_written()
        nursery.cancel_scope.cancel()
        client.close()
    assert [event["message"] for event in api.events] == ["a became leader", "a stopped leading"]
    event = api.events[0]
    assert (event["type"], event["reason"], event["source"]) == ("Normal", "LeaderElection", {"component": "driver/a"})
    about = event["involvedObject"]
    assert (about["kind"], about["apiVersion"]) == ("Lease", "coordination.k8s.io/v1")
    assert (about["namespace"], about["name"]) == ("ns", "lock")


async def test_giving_back_is_not_waited_for_longer_than_the_lease_is_safe(api: LeaseApi) -> None:
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(1)
        api.fault = "hang"
        a.stop.set()
        begun = trio.current_time()
    assert trio.current_time() - begun == pytest.approx(5)
    assert a.lost is None


async def test_a_leader_that_cannot_renew_is_unhealthy_some_time_after_its_lease(api: LeaseApi) -> None:
    """A leader whose work cannot be stopped: the one thing the check is for."""
    async with candidates(api) as (start, _):
        a = await start("a")
        assert a.elector.health() is None
        release = trio.Event()

        async def stubborn() -> None:
            with trio.CancelScope(shield=True):
                await release.wait()

        a.lead = stubborn  # type: ignore[method-assign]
        await trio.sleep(12)
        api.fault = 500
        await trio.sleep(15)
        assert a.elector.health() is None
        await trio.sleep(30)
        assert "failed election to renew leadership on lease lock" in (a.elector.health() or "")
        release.set()
        await trio.sleep(1)
        assert a.elector.health() is None
