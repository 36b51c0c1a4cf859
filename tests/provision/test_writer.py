"""The volume journal's writer: take-over, one write for all who wait, whose the term is, and the end (design.md 6)."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import trio

from csi_provisioner.fatal import Fatal
from csi_provisioner.planning import entries
from csi_provisioner.provision.writer import ANOTHER_LOOK, JournalWriter
from tests.kube.wire import Asked
from tests.provision.journal_api import JournalApi, always, entry, once, writing

THEIRS = {"pvc-1": entries.encode(entry("old", when=7))}


@pytest.fixture
def api() -> JournalApi:
    return JournalApi()


# ---- take-over


async def test_the_first_take_over_makes_one_object(api: JournalApi) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        assert api.names() == {0: set()}
        assert (journal.off, journal.inherited, journal.is_whole) == ("", {}, True)
        assert process.asked_to_renew == 1  # the mark of a whole journal is to be written at once
        meta = api.leases["lock-journal-00"]["metadata"]
        assert meta["labels"] == {"app.kubernetes.io/managed-by": "csi-provisioner"}


async def test_a_take_over_puts_its_term_into_every_object_and_makes_the_missing_and_the_next_one(
    api: JournalApi,
) -> None:
    api.write(0, {})
    api.write(3, THEIRS)
    async with writing(api) as process:
        journal = await process.lead()
        assert api.names() == {0: set(), 1: set(), 2: set(), 3: {"pvc-1"}, 4: set()}
        assert [number for _, number in api.writes()] == ["00", "03", "01", "02", "04"]
        assert len({api.term(number) for number in range(5)}) == 1
        assert api.term(0) != "theirs"
        assert set(journal.inherited) == {"pvc-1"}


async def test_a_take_over_has_00_for_certain_and_then_asks_for_three_at_a_time(api: JournalApi) -> None:
    for number in range(8):
        api.write(number, {})
    api.slow = 1.0
    async with writing(api) as process:
        began = trio.current_time()
        assert (await process.lead()).is_whole
        assert trio.current_time() - began == 3 + 1 + 3 + 1  # looks, 00, the other seven, 00 once more
    assert api.writes()[0] == ("PUT", "00")


async def test_a_take_over_that_another_one_overtakes_ends_the_process(api: JournalApi) -> None:
    def overtaken(asked: Asked) -> None:
        if asked.method == "GET" and asked.target.endswith("00") and len(api.asked) > 8:
            api.write(0, {}, "another")

    api.fault = overtaken
    with pytest.raises(ExceptionGroup) as caught:
        async with writing(api) as process:
            await process.lead()
    assert caught.group_contains(Fatal, match="another process has taken over")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("what", ["lost", "hang", 500, 429])
async def test_a_take_over_goes_on_after_a_request_without_an_answer(
    api: JournalApi, method: str, what: int | str
) -> None:
    api.fault = once(method, what)
    async with writing(api) as process:
        journal = await process.lead()
        assert journal.is_whole
        assert api.names() == {0: set()}


async def test_what_others_wrote_into_an_object_stays(api: JournalApi) -> None:
    api.write(0, {}, note="keep me")
    api.leases["lock-journal-00"]["spec"] = {"holderIdentity": "nobody"}
    async with writing(api) as process:
        journal = await process.lead()
        assert await journal.enter("pvc-1", entry())
        lease = api.leases["lock-journal-00"]
        assert lease["metadata"]["annotations"]["note"] == "keep me"
        assert lease["spec"] == {"holderIdentity": "nobody"}


async def test_an_object_of_a_newer_version_only_gets_our_term(api: JournalApi) -> None:
    newer = {"pvc-9": b'{"v":9,"all":"new"}'}
    api.write(0, newer)
    async with writing(api) as process:
        journal = await process.lead()
        assert await journal.enter("pvc-1", entry())
        assert api.names() == {0: {"pvc-9"}, 1: {"pvc-1"}}
        assert api.term(0) == api.term(1)
        assert api.leases["lock-journal-00"]["metadata"]["annotations"]["csi-provisioner.io/journal-entries"] == (
            entries.pack(newer)
        )


# ---- one write for all who wait


async def test_an_entry_is_in_the_api_server_before_enter_returns(api: JournalApi) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        assert await journal.enter("pvc-1", entry())
        assert api.names()[0] == {"pvc-1"}
        assert journal.holds("pvc-1")


async def test_a_hundred_claims_share_two_writes(api: JournalApi) -> None:
    """The first goes alone, all who come while it is under way are in the second."""
    async with writing(api) as process:
        journal = await process.lead()
        before, api.slow = len(api.writes()), 0.05
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(journal.enter, f"pvc-{number}", entry(f"c{number}"))
                if number == 0:
                    await trio.sleep(0.01)
        assert len(api.names()[0]) == 100
        assert len(api.writes()) - before == 2


async def test_tasks_that_are_ready_together_are_in_one_write(api: JournalApi) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        before = len(api.writes())
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(journal.enter, f"pvc-{number}", entry(f"c{number}"))
        assert len(api.writes()) - before == 1


async def test_a_large_write_is_followed_by_a_pause_as_long_as_it_is_large(api: JournalApi) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        large = bytes(i * 7919 % 251 for i in range(60_000))
        await journal.enter("pvc-1", entry(request=large))
        written = trio.current_time()
        size = len(api.leases["lock-journal-00"]["metadata"]["annotations"]["csi-provisioner.io/journal-entries"])
        await journal.enter("pvc-2", entry("two"))
        assert trio.current_time() - written >= size / 1024 / 128 > 0


async def test_what_leaves_goes_with_what_enters_or_after_five_seconds(api: JournalApi) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        await journal.enter("pvc-1", entry())
        journal.leave("pvc-1")
        await journal.enter("pvc-2", entry("two"))
        assert api.names()[0] == {"pvc-2"}
        journal.leave("pvc-2")
        await trio.sleep(4)
        assert api.names()[0] == {"pvc-2"}
        await trio.sleep(2)
        assert api.names()[0] == set()


async def test_who_is_cancelled_while_it_waits_leaves_no_entry(api: JournalApi) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        api.slow = 1.0
        with trio.move_on_after(0.5):
            await journal.enter("pvc-1", entry())
        await trio.sleep(10)
        assert api.names()[0] == set()


# ---- whose the term is


async def test_a_try_that_follows_soon_needs_no_write_and_one_after_silence_does(api: JournalApi) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        await journal.enter("pvc-1", entry())
        before = len(api.writes())
        await journal.enter("pvc-1", entry())
        assert len(api.writes()) == before
        process.renewing = False
        await trio.sleep(6)
        await journal.enter("pvc-1", entry())
        assert len(api.writes()) == before + 1


async def test_the_first_try_of_an_entry_that_was_found_waits_for_a_write(api: JournalApi) -> None:
    api.write(0, THEIRS)
    async with writing(api) as process:
        journal = await process.lead()
        before = len(api.writes())
        await journal.enter("pvc-1", entry("old"))
        await journal.enter("pvc-1", entry("old"))
        assert len(api.writes()) == before + 1
        assert await journal.confirm("pvc-1")
        assert len(api.writes()) == before + 2
        found = journal.entry("pvc-1")
        assert found is not None
        assert found.uncertain


async def test_the_entry_of_a_volume_that_is_tried_for_long_says_so_again(api: JournalApi) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        await journal.enter("pvc-1", entry())
        first = journal.entry("pvc-1")
        await trio.sleep(400)
        await journal.enter("pvc-1", entry())
        again = journal.entry("pvc-1")
        assert first is not None
        assert again is not None
        assert api.writes()[-2:] == [("PUT", "00"), ("PUT", "00")]


@pytest.mark.parametrize("what", [None, "lost", 409])
async def test_a_write_that_finds_another_term_ends_the_process_before_anybody_goes_on(
    api: JournalApi, what: int | str | None
) -> None:
    went_on = False

    async def claim() -> None:
        nonlocal went_on
        async with writing(api) as process:
            journal = await process.lead()
            api.write(0, {}, "another")
            api.fault = once("PUT", what) if what else api.fault
            await journal.enter("pvc-1", entry())
            went_on = True

    with pytest.raises(ExceptionGroup) as caught:
        await claim()
    assert caught.group_contains(Fatal, match="another process has taken over the volume journal: it leads now")
    assert not went_on
    assert api.names()[0] == set()


async def test_without_an_election_another_term_switches_the_journal_off_for_good(
    api: JournalApi, capsys: pytest.CaptureFixture[str]
) -> None:
    async with writing(api, elected=False) as process:
        journal = await process.lead()
        api.write(0, {}, "another")
        assert not await journal.enter("pvc-1", entry())
        assert "another process" in journal.off
        await trio.sleep(2 * ANOTHER_LOOK)
        assert api.term(0) == "another"
        assert not await journal.enter("pvc-1", entry())
    assert "at the next start" in capsys.readouterr().err


# ---- what was found


async def test_what_was_found_stays_until_its_hold_is_over_whatever_its_end(api: JournalApi) -> None:
    api.write(0, THEIRS)
    async with writing(api) as process:
        journal = await process.lead()
        journal.leave("pvc-1")
        await trio.sleep(24)
        assert api.names()[0] == {"pvc-1"}
        assert "pvc-1" in journal.inherited
        await trio.sleep(2)
        assert journal.inherited == {}
        await trio.sleep(5)
        assert api.names()[0] == set()


async def test_what_was_found_and_came_to_its_end_and_is_tried_again_stays(api: JournalApi) -> None:
    api.write(0, THEIRS)
    async with writing(api) as process:
        journal = await process.lead()
        assert await journal.enter("pvc-1", entry("old"))
        journal.leave("pvc-1")
        assert await journal.enter("pvc-1", entry("old"))
        await trio.sleep(60)
        assert api.names()[0] == {"pvc-1"}


async def test_after_a_gap_a_journal_is_whole_once_nothing_from_before_it_is_left(api: JournalApi) -> None:
    """Else the next leader would believe what this one did not."""
    api.write(0, THEIRS | {"pvc-2": entries.encode(entry("two"))})
    async with writing(api, gap=True) as process:
        journal = await process.lead()
        assert not journal.is_whole
        await trio.sleep(30)
        journal.leave("pvc-1")
        assert not journal.is_whole
        await journal.enter("pvc-2", entry("two"))
        assert journal.is_whole


async def test_a_term_whose_journal_was_off_has_a_gap(api: JournalApi) -> None:
    api.write(0, THEIRS)
    api.fault = always("PUT", 403)
    async with writing(api) as process:
        journal = await process.lead()
        assert not journal.is_whole
        api.fault = lambda _asked: None
        await trio.sleep(ANOTHER_LOOK + 1)
        assert (journal.off, set(journal.inherited), journal.gap, journal.is_whole) == ("", {"pvc-1"}, True, False)


# ---- the end


async def stopped(api: JournalApi, act: Callable[[JournalWriter], Any]) -> None:
    async with writing(api) as process, trio.open_nursery() as term:
        journal = process.journal()
        await term.start(journal.run)
        await act(journal)
        term.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await journal.finish()


async def test_at_a_stop_what_left_and_what_was_never_begun_goes_and_the_rest_stands(api: JournalApi) -> None:
    async def act(journal: JournalWriter) -> None:
        for name in ("pvc-1", "pvc-2", "pvc-3"):
            await journal.enter(name, entry(name))
        journal.begin("pvc-3")
        journal.drop("pvc-3")
        journal.leave("pvc-1")
        journal.drop("pvc-2")

    await stopped(api, act)
    assert api.names()[0] == {"pvc-3"}


async def test_at_a_stop_a_write_under_way_is_made_certain_first(api: JournalApi) -> None:
    async def act(journal: JournalWriter) -> None:
        await journal.enter("pvc-1", entry())
        api.slow = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.enter, "pvc-2", entry("two"))
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        journal.leave("pvc-1")

    await stopped(api, act)
    assert api.names()[0] == set()


async def test_at_a_stop_after_another_leader_came_nothing_is_written(api: JournalApi) -> None:
    async def act(journal: JournalWriter) -> None:
        await journal.enter("pvc-1", entry())
        api.write(0, THEIRS, "another")
        journal.leave("pvc-1")

    await stopped(api, act)
    assert api.names()[0] == {"pvc-1"}
    assert api.term(0) == "another"


async def test_who_lost_the_lease_knows_which_calls_were_begun_since_it_was_certain(api: JournalApi) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        for name in ("pvc-1", "pvc-2", "pvc-3"):
            await journal.enter(name, entry(name))
            if name != "pvc-3":
                journal.begin(name)
            await trio.sleep(10)
        journal.begin("pvc-2")
        process.renewing = False
        assert journal.begun_unconfirmed() == []
        journal.lost = lambda: True
        assert journal.begun_unconfirmed() == ["pvc-2"]


async def test_after_a_restore_every_object_is_as_the_leader_knows_it_before_the_journal_counts_as_whole(
    api: JournalApi,
) -> None:
    api.write(1, THEIRS)
    async with writing(api) as process:
        journal = await process.lead()
        await journal.enter("pvc-2", entry())
        backup = copy.deepcopy(api.leases)
        await trio.sleep(journal.hold)
        for name in ("pvc-1", "pvc-2"):
            journal.leave(name)
        await trio.sleep(20)
        assert api.names() == {0: set(), 1: set(), 2: set()}
        api.leases = backup
        journal.rewrite()
        assert not journal.is_whole
        await trio.sleep(1)
        assert api.names() == {0: set(), 1: set(), 2: set()}
        assert journal.is_whole
