"""`csi-provisioner orphans`: what is listed, with which evidence, and what is not (design.md 8)."""

from typing import Any

import msgspec
import pytest

from tests.commands.conftest import LEASE, UID, Ask, Storage
from tests.installation import NAMESPACE, VOLUME, Installation

NAMED = "csi_storage_k8s_io__pv__name"


async def served(site: Installation, **fields: Any) -> None:
    """The driver anew, with another Config."""
    site.kill_driver()
    await site.rest(1)
    site.config = msgspec.structs.replace(site.config, **fields)
    site.driver.config = site.config
    site.driver.state._config = site.config
    await site.serve(site.config)


async def test_where_every_volume_has_its_owner_none_is_listed(ask: Ask, storage: Storage) -> None:
    storage.owned(3)
    answer = await ask()
    assert answer.code == 0
    assert answer.json == {
        "version": 1,
        "driver": "sandbox.csi.example.com",
        "orphans": [],
        "inProgress": 0,
        "listed": 3,
        "unknown": 0,
        "notes": [],
    }
    assert (await ask(json=False)).out == "No volume of driver sandbox.csi.example.com is without an owner.\n"


async def test_an_entry_of_the_journal_whose_claim_is_gone_is_one(ask: Ask, storage: Storage) -> None:
    storage.owned(1)
    name = storage.entry()
    answer = await ask()
    assert answer.code == 3
    [orphan] = answer.orphans
    assert (orphan["volumeID"], orphan["persistentVolume"], orphan["claim"]) == ("", name, f"{NAMESPACE}/data")
    assert orphan["found"] == ["journal"]
    assert "2025-06-15T15:06:40Z" in orphan["evidence"][0]


@pytest.mark.parametrize("owner", ["claim", "volume"])
async def test_an_entry_at_work_or_done_is_none(ask: Ask, storage: Storage, owner: str) -> None:
    storage.owned(1)
    if owner == "claim":
        storage.entry(storage.claim().removeprefix("pvc-"))
    else:
        storage.volume(storage.entry(), "any")
    answer = await ask()
    assert answer.code == 0
    assert answer.json["inProgress"] == (owner == "claim")


async def test_an_entry_whose_claim_has_another_volume_is_one(ask: Ask, storage: Storage) -> None:
    storage.owned(1)
    name = storage.claim()
    storage.entry(name.removeprefix("pvc-"))
    storage.site.edit("PersistentVolumeClaim", "data", lambda claim: claim["spec"].update(volumeName="own-0"))
    assert [orphan["persistentVolume"] for orphan in (await ask()).orphans] == [name]


async def test_journals_of_nodes_that_are_gone_are_looked_at(ask: Ask, storage: Storage) -> None:
    storage.owned(1)
    storage.entry(lease=f"{LEASE}-node-7-journal-03")
    storage.leftover("vol-x", lease=f"{LEASE}-node-7-dropped")
    storage.entry(uid=UID.replace("1", "2"), lease="other-csi-example-com-journal-00")
    await served(storage.site, controller=("CREATE_DELETE_VOLUME",))
    assert [orphan["found"] for orphan in (await ask()).orphans] == [["journal"], ["dropped"]]


@pytest.mark.parametrize("kind", ["dropped", "suspect"])
async def test_what_was_told_is_listed_until_it_has_an_owner_or_is_gone(ask: Ask, storage: Storage, kind: str) -> None:
    storage.owned(5)
    handle = storage.made("lost")
    storage.leftover(handle, kind=kind)
    storage.leftover("vol-gone", "pvc-gone", kind=kind)
    [orphan] = (await ask()).orphans
    assert (orphan["volumeID"], orphan["found"], orphan["capacityBytes"]) == (handle, [kind, "listing"], 1 << 30)
    assert orphan["evidence"] == ["told at 2025-06-15T15:06:40Z: so"]
    storage.volume("adopted", handle)
    assert (await ask()).code == 0


async def test_a_suspect_whose_claim_waits_is_at_work(ask: Ask, storage: Storage) -> None:
    storage.owned(1)
    storage.leftover("", storage.claim(), kind="suspect")
    answer = await ask()
    assert (answer.code, answer.json["inProgress"]) == (0, 1)


async def test_the_drivers_list_tells_by_volume_context(ask: Ask, storage: Storage) -> None:
    await served(storage.site, context_of_parameters=True)
    storage.owned(5)
    lost = storage.made("a", **{NAMED: "pvc-lost"})
    storage.made("b", **{NAMED: storage.claim()})
    storage.made("theirs")
    answer = await ask()
    [orphan] = answer.orphans
    assert (orphan["volumeID"], orphan["persistentVolume"], orphan["found"]) == (lost, "pvc-lost", ["listing"])
    assert "volume_context names pvc-lost" in orphan["evidence"][0]
    assert (answer.json["inProgress"], answer.json["unknown"], answer.json["listed"]) == (1, 1, 8)


async def test_a_second_volume_of_a_persistent_volume_is_one(ask: Ask, storage: Storage) -> None:
    await served(storage.site, context_of_parameters=True)
    storage.owned(5)
    twin = storage.made("twin", **{NAMED: "own-0"})
    [orphan] = (await ask()).orphans
    assert orphan["volumeID"] == twin
    assert "which is of another volume" in orphan["evidence"][0]


async def test_the_drivers_list_tells_by_an_id_with_our_prefix_and_a_uid(ask: Ask, storage: Storage) -> None:
    await served(storage.site, ids_of_names=True)
    storage.owned(5)
    lost = storage.made(f"pvc-{UID}")
    storage.made(storage.claim())
    for other in (f"disk-{UID}", f"pvc-{UID[:-1]}", f"mypvc-{UID}"):
        storage.made(other)
    answer = await ask()
    assert [orphan["volumeID"] for orphan in answer.orphans] == [lost]
    assert (answer.json["inProgress"], answer.json["unknown"]) == (1, 3)


async def test_a_prefix_of_its_own_and_shortened_names_are_found(ask: Ask, storage: Storage) -> None:
    await served(storage.site, ids_of_names=True)
    storage.owned(5)
    lost = storage.made("kube-0123456789")
    assert [
        o["volumeID"] for o in (await ask("--volume-name-prefix=kube", "--volume-name-uuid-length=10")).orphans
    ] == [lost]


async def test_one_volume_is_one_line_with_all_its_evidence(ask: Ask, storage: Storage) -> None:
    await served(storage.site, ids_of_names=True)
    storage.owned(1)
    name = storage.entry()
    storage.made(name)
    storage.leftover("", name, kind="suspect")
    [orphan] = (await ask()).orphans
    assert orphan["volumeID"] == f"vol-{name}"
    assert orphan["found"] == ["journal", "suspect", "listing"]
    answer = await ask(json=False)
    header, line = answer.out.splitlines()
    assert header.split()[:2] == ["VOLUME", "ID"]
    assert f"vol-{name}" in line
    assert "journal,suspect,listing" in line


async def test_pages_are_read_to_the_end(ask: Ask, storage: Storage) -> None:
    await served(storage.site, page=2)
    storage.owned(7)
    assert (await ask()).json["listed"] == 7
    assert len(storage.site.calls("ListVolumes")) == 8


async def test_a_token_that_expires_begins_the_list_again(ask: Ask, storage: Storage) -> None:
    await served(storage.site, page=2)
    storage.owned(7)
    storage.site.fault("ABORTED", rpc="ListVolumes", match="4", times=1)
    assert (await ask()).json["listed"] == 7
    storage.site.fault("ABORTED", rpc="ListVolumes", match="2")
    answer = await ask()
    assert answer.code == 1
    assert "token expired 3 times" in answer.err


async def test_a_capability_that_is_announced_and_not_built_is_said(ask: Ask, storage: Storage) -> None:
    storage.owned(1)
    storage.site.fault("UNIMPLEMENTED", rpc="ListVolumes")
    storage.leftover("vol-x")
    answer = await ask()
    assert [orphan["volumeID"] for orphan in answer.orphans] == ["vol-x"]
    assert answer.json["listed"] is None
    assert "does not have it" in answer.json["notes"][0]


async def test_a_driver_that_does_not_list_is_not_asked(ask: Ask, storage: Storage) -> None:
    await served(storage.site, controller=("CREATE_DELETE_VOLUME",))
    answer = await ask()
    assert storage.site.calls("ListVolumes") == []
    assert "does not list its volumes" in answer.json["notes"][0]


async def test_a_list_that_fails_is_no_answer(ask: Ask, storage: Storage) -> None:
    storage.site.fault("INTERNAL", rpc="ListVolumes")
    answer = await ask()
    assert answer.code == 1
    assert "cannot be listed" in answer.err
    assert '"orphans"' not in answer.out


async def test_a_volume_that_is_deleted_while_we_look_is_none(ask: Ask, storage: Storage) -> None:
    await served(storage.site, context_of_parameters=True)
    storage.owned(5)
    handle = storage.made("going", **{NAMED: "pvc-going"})
    storage.site.driver.on_call = lambda call: (
        storage.site.driver.state.delete_volume(handle) if call.rpc == "ListVolumes" and not call.running else None
    )
    assert (await ask()).code == 0


@pytest.mark.parametrize(
    ("owned", "lost", "text"),
    [(0, 1, "no PersistentVolume at all"), (7, 2, "2 of the 9 volumes")],
)
async def test_lists_that_look_wrong_stop_it(ask: Ask, storage: Storage, owned: int, lost: int, text: str) -> None:
    await served(storage.site, context_of_parameters=True)
    storage.owned(owned)
    for number in range(lost):
        storage.made(f"lost-{number}", **{NAMED: f"pvc-lost-{number}"})
    answer = await ask()
    assert answer.code == 1
    assert text in answer.err
    assert '"orphans"' not in answer.out
    assert len((await ask("--force")).orphans) == lost


async def test_without_the_right_to_list_leases_they_are_read_by_name(ask: Ask, storage: Storage) -> None:
    storage.owned(1)
    storage.site.refuse("list", "Lease", 403)
    storage.entry(lease=f"{LEASE}-journal-07")
    storage.leftover(storage.made("lost"))
    assert [orphan["found"] for orphan in (await ask()).orphans] == [["journal"], ["dropped", "listing"]]


async def test_without_a_driver_the_cluster_is_asked_by_its_name(ask: Ask, storage: Storage) -> None:
    storage.volume("own", "any")
    storage.leftover("vol-x")
    nobody = "--csi-address=/nowhere/csi.sock"
    answer = await ask(nobody, "--provisioner=sandbox.csi.example.com")
    assert (answer.code, len(answer.orphans)) == (3, 1)
    assert "the driver is not asked" in answer.json["notes"][0]
    answer = await ask(nobody)
    assert answer.code == 1
    assert "--provisioner NAME" in answer.err


async def test_entries_that_are_not_understood_are_said(ask: Ask, storage: Storage) -> None:
    storage.owned(1)
    storage.lease(f"{LEASE}-journal-00", entries_annotation(), '{"pvc-1":{"v":99}}')
    storage.lease(f"{LEASE}-journal-01", entries_annotation(), "scribble")
    answer = await ask()
    assert answer.code == 0
    assert len(answer.json["notes"]) == 2


def entries_annotation() -> str:
    return "csi-provisioner.io/journal-entries"


@pytest.mark.parametrize("kind", [VOLUME, "PersistentVolumeClaim"])
async def test_a_cluster_that_cannot_be_asked_is_no_answer(ask: Ask, storage: Storage, kind: str) -> None:
    storage.site.refuse("list", kind, 403)
    answer = await ask()
    assert answer.code == 1
    assert "list" in answer.err


@pytest.mark.parametrize(
    "flags", [["--output=xml"], ["--nonsense"], ["--delete=a", "--adopt=b"], ["--delete=a", "--secret=name"], ["--v=x"]]
)
async def test_wrong_flags_are_refused(ask: Ask, flags: list[str]) -> None:
    answer = await ask(*flags, json=False)
    assert answer.code == 2
    assert "orphans --help" in answer.err


async def test_help_lists_its_flags(ask: Ask) -> None:
    answer = await ask("--help")
    assert answer.code == 0
    for text in ("-o, --output", "--delete", "--adopt", "--csi-address"):
        assert text in answer.out


async def test_texts_of_others_cannot_fake_lines(ask: Ask, storage: Storage) -> None:
    storage.owned(1)
    storage.leftover("vol\nfake", reason="\x1b[31m")
    await served(storage.site, controller=("CREATE_DELETE_VOLUME",))
    answer = await ask(json=False)
    assert len(answer.out.splitlines()) == 2
    assert "\x1b" not in answer.out


async def test_a_list_without_an_end_is_noticed(ask: Ask, storage: Storage) -> None:
    """Its last page leads back to the first token."""
    await served(storage.site, page=2)
    storage.owned(5)
    storage.site.fault(rpc="ListVolumes", match="4", next_token="2")
    answer = await ask()
    assert answer.code == 1
    assert "has no end" in answer.err


async def test_a_list_of_the_cluster_that_expires_begins_again(ask: Ask, storage: Storage) -> None:
    for number in range(520):
        storage.volume(f"own-{number}", f"vol-{number}")
    storage.leftover("vol-3")
    storage.site.refuse("list", VOLUME, 410, times=1, skip=1)
    assert (await ask()).code == 0


async def test_a_node_reads_its_own_journal_without_that_right_too(ask: Ask, storage: Storage) -> None:
    storage.owned(1)
    storage.site.refuse("list", "Lease", 403)
    name = storage.entry(lease=f"{LEASE}-node-7-journal-02")
    assert (await ask()).code == 0
    assert [orphan["persistentVolume"] for orphan in (await ask("--node-deployment")).orphans] == [name]
