"""Leader election: its decisions as tables, its loop on the wire and on virtual time (process.md 6 and 10.2)."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.kube.client import connect
from csi_provisioner.kube.election import (
    Acquire,
    Create,
    Decision,
    LeaderElector,
    LeaseLostError,
    Renew,
    Wait,
    decide,
    lock_name,
    unique_identity,
    written,
)
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import LeaseSpec
from csi_provisioner.settings import ClusterSettings, ElectionSettings
from tests.kube.wire import Asked, HangupError, Server, reply, serving

THEIRS = LeaseSpec(holderIdentity="them", leaseDurationSeconds=15, acquireTime="then", leaseTransitions=3)
OURS = LeaseSpec(holderIdentity="us", leaseDurationSeconds=15, acquireTime="then", leaseTransitions=3)


# ---- decisions

DECISIONS: dict[str, tuple[LeaseSpec | None, float, Decision]] = {
    "no lease": (None, 100, Create()),
    "ours": (OURS, 100, Renew()),
    "ours, long ago": (OURS, 1000, Renew()),
    "theirs, fresh": (THEIRS, 100, Wait("them", 115)),
    "theirs, just before its end": (THEIRS, 114.9, Wait("them", 115)),
    "theirs, silent for its duration": (THEIRS, 115, Acquire()),
    "given back": (LeaseSpec(holderIdentity="", leaseDurationSeconds=1), 100, Acquire()),
    "without a holder": (LeaseSpec(), 100, Acquire()),
    "without a duration": (LeaseSpec(holderIdentity="them"), 100, Acquire()),
}


@pytest.mark.parametrize("row", DECISIONS.values(), ids=DECISIONS.keys())
def test_decide(row: tuple[LeaseSpec | None, float, Decision]) -> None:
    lease, now, expected = row
    assert decide(lease, "us", seen=100, now=now) == expected


WRITTEN: dict[str, tuple[LeaseSpec | None, Create | Renew | Acquire, dict[str, object]]] = {
    "created": (None, Create(), {"acquireTime": "now", "leaseTransitions": 0}),
    "acquired": (THEIRS, Acquire(), {"acquireTime": "now", "leaseTransitions": 4}),
    "renewed": (OURS, Renew(), {"acquireTime": "then", "leaseTransitions": 3}),
}


@pytest.mark.parametrize("row", WRITTEN.values(), ids=WRITTEN.keys())
def test_written(row: tuple[LeaseSpec | None, Create | Renew | Acquire, dict[str, object]]) -> None:
    before, decision, expected = row
    always = {"holderIdentity": "us", "leaseDurationSeconds": 15, "renewTime": "now"}
    assert written(before, decision, "us", 15.9, "now") == always | expected


@pytest.mark.parametrize(
    ("driver", "name"), [("mock.csi.example.com", "mock-csi-example-com"), ("foo/bar_x.y.", "foo-bar-x-y-X")]
)
def test_lock_name(driver: str, name: str) -> None:
    assert lock_name(driver) == name


def test_identities_of_one_host_differ() -> None:
    assert unique_identity("host.example") != unique_identity("host.example")
    assert unique_identity("host.example").startswith("host-example-")


# ---- the loop


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


class LeaseApi:
    """Keeps one Lease under its resourceVersion. While `fault` is a status or "hang", that is the answer; "lost": the
    next write is done but not answered."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.asked: list[tuple[float, str]] = []
        self.fault: int | str | None = None
        self.events: list[dict[str, Any]] = []

    async def answer(self, asked: Asked, stream: trio.abc.Stream) -> None:
        if asked.target.endswith("/events"):
            self.events.append(json.loads(asked.body))
            await stream.send_all(reply(201, asked.body))
            return
        self.asked.append((trio.current_time(), asked.method))
        if self.fault == "hang":
            await trio.sleep_forever()
        code, body = (self.fault, None) if isinstance(self.fault, int) else self.do(asked)
        if self.fault == "lost" and asked.method != "GET":
            self.fault = None
            raise HangupError
        await stream.send_all(reply(code, json.dumps(body or {"kind": "Status", "code": code, "reason": "R"}).encode()))

    def do(self, asked: Asked) -> tuple[int, dict[str, Any] | None]:
        body = json.loads(asked.body) if asked.body else {}
        if asked.method == "GET":
            return (200, self.lease) if self.lease else (404, None)
        stored = (self.lease or {"metadata": {}})["metadata"].get("resourceVersion")
        if body["metadata"].get("resourceVersion") != stored:
            return 409, None
        self.put(body)
        return 200, self.lease

    def put(self, lease: dict[str, Any]) -> None:
        self.version += 1
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(self.version)}}

    @property
    def holder(self) -> str | None:
        return self.lease["spec"]["holderIdentity"] if self.lease else None


@pytest.fixture
def api() -> LeaseApi:
    return LeaseApi()


class Candidate:
    """One process: notes when it led; leads until told to stop."""

    def __init__(self, elector: LeaderElector) -> None:
        self.elector = elector
        self.stop = trio.Event()
        self.leads: list[float] = []
        self.ended: list[float] = []
        self.lost: float | None = None

    async def lead(self) -> None:
        self.leads.append(trio.current_time())
        try:
            await self.stop.wait()
        finally:
            self.ended.append(trio.current_time())

    async def run(self) -> None:
        try:
            await self.elector.run(self.lead)
        except LeaseLostError:
            self.lost = trio.current_time()


Start = Callable[..., Awaitable[Candidate]]


@asynccontextmanager
async def candidates(api: LeaseApi) -> AsyncIterator[tuple[Start, Server]]:
    async with serving(api.answer) as server, AsyncExitStack() as clients, trio.open_nursery() as nursery:

        async def start(identity: str, **settings: Any) -> Candidate:
            client = await connect(ClusterSettings(master=f"http://127.0.0.1:{server.port}"), user_agent="test/1")
            clients.push_async_callback(client.aclose)
            candidate = Candidate(
                LeaderElector(
                    client,
                    ElectionSettings(enabled=True, **settings),
                    name="lock",
                    namespace="ns",
                    identity=identity,
                    metrics=Metrics(),
                    random=lambda: 0.5,
                )
            )
            nursery.start_soon(candidate.run)
            return candidate

        yield start, server
        nursery.cancel_scope.cancel()


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
        client = await connect(ClusterSettings(master=f"http://127.0.0.1:{server.port}"), user_agent="test/1")
        settings = ElectionSettings(enabled=True)
        elector = LeaderElector(
            client, settings, name="lock", namespace="ns", identity="a", metrics=Metrics(), random=lambda: 0.5
        )
        with trio.move_on_after(moment):
            await elector.run(trio.sleep_forever)
        assert not api.holder
        assert trio.current_time() < moment + 1
        await client.aclose()


async def test_events_tell_who_leads(api: LeaseApi) -> None:
    async with serving(api.answer) as server, trio.open_nursery() as nursery:
        client = await connect(ClusterSettings(master=f"http://127.0.0.1:{server.port}"), user_agent="test/1")
        events = EventRecorder(client, "driver_host_1")
        await nursery.start(events.run)
        elector = LeaderElector(
            client,
            ElectionSettings(enabled=True),
            name="lock",
            namespace="ns",
            identity="a",
            metrics=Metrics(),
            events=events,
            component="driver/a",
        )
        await elector.run(events.wait_written)
        await events.wait_written()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await client.aclose()
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


async def test_health(api: LeaseApi) -> None:
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
