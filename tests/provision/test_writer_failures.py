"""The journal's writer where answers do not come, others change its objects, or it cannot be kept (design.md 6)."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import trio

from csi_provisioner.planning import entries
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.provision.journal_leases import TERM
from csi_provisioner.provision.writer import ANOTHER_LOOK
from tests.kube.wire import Asked
from tests.provision.journal_api import JournalApi, always, entry, once, writing

THEIRS = {"pvc-1": entries.encode(entry("old", when=7))}


@pytest.fixture
def api() -> JournalApi:
    return JournalApi()


# ---- answers that do not come, and objects that others change

LOST: dict[str, Any] = {
    "the write is done and its answer lost": once("PUT", "lost"),
    "the write is never answered": once("PUT", "hang"),
    "an internal error": once("PUT", 500),
    "too many requests": once("PUT", 429),
    "a load balancer without a server": once("PUT", 503),
}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
async def test_a_write_without_an_answer_is_made_certain(api: JournalApi, fault: Callable[[Asked], Any]) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        api.fault = fault
        assert await journal.enter("pvc-1", entry())
        assert api.names()[0] == {"pvc-1"}
        assert journal.is_whole


async def test_somebodys_label_ends_nothing_and_stays(api: JournalApi) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        await journal.enter("pvc-1", entry())
        lease = api.leases["lock-journal-00"]
        api.put("lock-journal-00", {**lease, "metadata": {**lease["metadata"], "labels": {"team": "storage"}}})
        assert await journal.enter("pvc-2", entry("two"))
        assert api.names()[0] == {"pvc-1", "pvc-2"}
        assert api.leases["lock-journal-00"]["metadata"]["labels"]["team"] == "storage"


@pytest.mark.parametrize("keeps_term", [True, False])
async def test_what_somebody_scribbled_is_written_over_from_memory(api: JournalApi, keeps_term: bool) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        await journal.enter("pvc-1", entry())
        annotations = {"csi-provisioner.io/journal-entries": "scribble"} | ({TERM: api.term(0)} if keeps_term else {})
        lease = api.leases["lock-journal-00"]
        api.put("lock-journal-00", {**lease, "metadata": {**lease["metadata"], "annotations": annotations}})
        assert await journal.enter("pvc-2", entry("two"))
        assert api.names()[0] == {"pvc-1", "pvc-2"}


async def test_an_object_that_somebody_deleted_is_made_anew_once_the_lease_is_seen_to_be_ours(api: JournalApi) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        await journal.enter("pvc-1", entry())
        api.leases.clear()
        process.renewing = False
        with trio.move_on_after(30) as waiting:
            await journal.enter("pvc-2", entry("two"))
        assert waiting.cancelled_caught
        assert api.leases == {}
        process.renewing = True
        assert await journal.enter("pvc-3", entry("three"))
        assert api.names()[0] == {"pvc-1", "pvc-3"}


# ---- where it cannot be kept


@pytest.mark.parametrize("code", [400, 403, 405, 413, 422])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_missing_right_switches_the_journal_off_and_is_looked_for_again(
    api: JournalApi, method: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    api.fault = always(method, code)
    async with writing(api) as process:
        journal = await process.lead()
        assert not await journal.enter("pvc-1", entry())
        assert (journal.is_whole, journal.holds("pvc-1")) == (False, False)
        said = capsys.readouterr().err
        assert "No volume journal" in said
        assert code != 403 or "grant get, create and update on leases" in said
        api.fault = lambda _asked: None
        await trio.sleep(ANOTHER_LOOK + 1)
        assert await journal.enter("pvc-1", entry())


async def test_the_right_to_create_alone_is_not_enough(api: JournalApi) -> None:
    api.fault = always("PUT", 403)
    async with writing(api) as process:
        journal = await process.lead()
        assert journal.off == ""  # there was nothing to update yet
        assert not await journal.enter("pvc-1", entry())
        assert "403" in journal.off


async def test_with_on_claims_wait_until_the_right_is_there(api: JournalApi) -> None:
    api.fault = always("POST", 403)
    async with writing(api, required=True) as process:
        journal = await process.lead()
        with trio.move_on_after(ANOTHER_LOOK - 10) as waiting:
            await journal.enter("pvc-1", entry())
        assert waiting.cancelled_caught
        api.fault = lambda _asked: None
        assert await journal.enter("pvc-1", entry())


@pytest.mark.parametrize("elected", [True, False])
async def test_while_only_the_journal_fails_work_goes_on_without_it_after_a_lease_duration(
    api: JournalApi, elected: bool
) -> None:
    async with writing(api, elected=elected) as process:
        journal = await process.lead()
        api.fault = always("PUT", 500)
        started = trio.current_time()
        assert not await journal.enter("pvc-1", entry())
        assert 15 <= trio.current_time() - started < 25
        assert not journal.is_whole
        assert not await journal.enter("pvc-2", entry("two"))
        api.fault = lambda _asked: None
        await trio.sleep(5)
        assert await journal.enter("pvc-3", entry("three"))
        await trio.sleep(10)
        assert journal.is_whole
        assert api.names()[0] == {"pvc-3"}


async def test_while_renewals_fail_too_claims_wait(api: JournalApi) -> None:
    async with writing(api) as process:
        journal = await process.lead()
        api.fault, process.renewing = always("PUT", 500), False
        with trio.move_on_after(60) as waiting:
            await journal.enter("pvc-1", entry())
        assert waiting.cancelled_caught


@pytest.mark.parametrize("required", [False, True])
async def test_an_entry_that_fits_nowhere(api: JournalApi, required: bool, capsys: pytest.CaptureFixture[str]) -> None:
    async with writing(api, required=required) as process:
        journal = await process.lead()
        huge = entry(request=bytes(600_000))
        for name in ("pvc-1", "pvc-2"):
            if not required:
                assert not await journal.enter(name, huge)
            else:
                with pytest.raises(Refusal, match="--volume-journal=on"):
                    await journal.enter(name, huge)
        assert await journal.enter("pvc-3", entry())
    assert len(re.findall("no room", capsys.readouterr().err)) == 1
