"""A standby sees the release of the lease at once, where it may watch it (process.md 6.5)."""

import re
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.kube.leases import Candidate, LeaseApi, candidates


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.fixture
def api() -> LeaseApi:
    return LeaseApi()


async def standing_by(start: Any) -> tuple[Candidate, Candidate]:
    a = await start("a")
    await trio.sleep(1)
    b = await start("b")
    await trio.sleep(20)
    assert a.leads
    assert not b.leads
    return a, b


async def takes_over(first: Candidate, second: Candidate) -> float:
    """Seconds from the release to the next leader."""
    first.stop.set()
    while not second.leads:  # noqa: ASYNC110 - virtual time
        await trio.sleep(0.01)
    return second.leads[0] - first.ended[0]


async def test_a_release_is_seen_at_once_where_the_lease_may_be_watched(api: LeaseApi) -> None:
    api.watchable = True
    async with candidates(api) as (start, _):
        a, b = await standing_by(start)
        assert await takes_over(a, b) < 1
        assert len(api.watched) == 1
        _, target = api.watched[0]
        assert target.startswith("/apis/coordination.k8s.io/v1/namespaces/ns/leases?")
        assert "fieldSelector=metadata.name%3Dlock" in target
        assert re.search("resourceVersion=[1-9]", target), "from what a look has found: no right to list is needed"
        await trio.sleep(30)
        assert len(api.watched) == 1, "a leader does not watch"


async def test_without_the_right_to_watch_looks_find_the_release(api: LeaseApi) -> None:
    async with candidates(api) as (start, _):
        a, b = await standing_by(start)
        tries = len(api.watched)
        assert 2 <= tries <= 6
        await trio.sleep(3600)
        assert len(api.watched) - tries < 20, "a right that is missing is asked for now and then"
        assert 0 < await takes_over(a, b) <= 11


async def test_a_lease_without_a_version_is_looked_at_all_the_same(api: LeaseApi) -> None:
    """What stands between us and the API server may answer so; it must not end the process."""
    api.watchable = True
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 60}
    api.lease = {"kind": "Lease", "metadata": {"name": "lock", "namespace": "ns"}, "spec": spec}
    async with candidates(api) as (start, _):
        b = await start("b")
        await trio.sleep(30)
        assert not b.leads
        assert api.watched == []


async def test_renewals_labels_and_a_deletion_are_no_release(api: LeaseApi) -> None:
    api.watchable = True
    async with candidates(api) as (start, _):
        await standing_by(start)
        looks = sum(method == "GET" for _, method in api.asked)
        api.tell("DELETED")
        api.tell("BOOKMARK")
        for _ in range(20):
            assert api.lease is not None
            api.tell("MODIFIED", metadata=api.lease["metadata"] | {"labels": {"a": "b"}})
        await trio.sleep(4)
        assert sum(method == "GET" for _, method in api.asked) - looks <= 1


async def test_a_release_that_is_only_seen_on_the_wire_takes_nothing(api: LeaseApi) -> None:
    """The event brings a look forward; what the look reads decides."""
    api.watchable = True
    async with candidates(api) as (start, _):
        a, b = await standing_by(start)
        assert api.lease is not None
        api.tell("MODIFIED", spec=api.lease["spec"] | {"holderIdentity": ""})
        await trio.sleep(30)
        assert not b.leads
        assert not a.ended
