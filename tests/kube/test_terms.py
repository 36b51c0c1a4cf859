"""What the volume journal needs of the election: whose term it is, and what the one before kept (design.md 6)."""

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.kube.election import JOURNAL
from tests.kube.leases import LeaseApi, candidates


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.fixture
def api() -> LeaseApi:
    return LeaseApi()


async def test_of_two_processes_of_one_name_the_older_one_ends_when_it_sees_the_other(api: LeaseApi) -> None:
    async with candidates(api) as (start, _):
        older = await start("a")
        await trio.sleep(1)
        younger = await start("a")
        await trio.sleep(1)
        assert len(younger.leads) == 1
        await trio.sleep(5)
        assert older.lost is not None
        assert younger.lost is None
        assert api.lease is not None
        assert api.lease["spec"]["leaseTransitions"] == 0


async def test_a_leader_whose_own_acquiring_write_was_not_answered_is_no_twin(api: LeaseApi) -> None:
    async with candidates(api) as (start, _):
        api.fault = "lost"
        a = await start("a")
        await trio.sleep(40)
        assert len(a.leads) == 1
        assert a.lost is None


MARKS: dict[str, tuple[dict[str, str], int, bool]] = {
    "its number": ({JOURNAL: "3"}, 3, False),
    "of an earlier term: a leader without journal was there since": ({JOURNAL: "2"}, 3, True),
    "none": ({}, 3, True),
}


@pytest.mark.parametrize("row", MARKS.values(), ids=MARKS.keys())
async def test_a_new_leader_knows_whether_the_one_before_kept_a_journal(
    api: LeaseApi, row: tuple[dict[str, str], int, bool]
) -> None:
    annotations, transitions, gap = row
    spec = {"holderIdentity": "", "leaseTransitions": transitions}
    api.put({"metadata": {"name": "lock", "namespace": "ns", "annotations": {"a": "b", **annotations}}, "spec": spec})
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(1)
        assert (len(a.leads), a.elector.gap) == (1, gap)
        assert api.lease is not None
        assert api.lease["metadata"]["annotations"] == {"a": "b"}  # nothing is kept in this term yet


async def test_the_mark_of_a_whole_journal_is_written_by_renewals_and_taken_away_when_it_is_not_whole(
    api: LeaseApi,
) -> None:
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(6)
        assert api.lease is not None
        assert "annotations" not in api.lease["metadata"]
        a.elector.keeps_journal = lambda: True
        a.elector.renew_soon()
        await trio.sleep(0.1)
        assert api.lease["metadata"]["annotations"] == {JOURNAL: "0"}
        a.elector.keeps_journal = lambda: False
        await trio.sleep(6)
        assert api.lease["metadata"]["annotations"] == {}
        a.elector.keeps_journal = lambda: True
        a.stop.set()
        await trio.sleep(1)
        assert api.lease["metadata"]["annotations"] == {JOURNAL: "0"}
        assert api.holder == ""
