"""`orphans --delete`: another look, and the right secret (design.md 8)."""

import io
from collections.abc import Callable
from typing import Any

import pytest

from csi_provisioner.model.kubernetes import SecretReference
from csi_provisioner.planning import leftover
from tests.canary import held
from tests.commands.conftest import DROPPED, Ask, Storage
from tests.commands.test_orphans import served
from tests.installation import ATTACHMENT, CLAIM, NAMESPACE, VOLUME

NAMED = "csi_storage_k8s_io__pv__name"
LOGIN = SecretReference("login", NAMESPACE)


@pytest.fixture
def lost(storage: Storage) -> str:
    """A dropped volume among five with an owner."""
    storage.owned(5)
    handle = storage.made("lost")
    storage.leftover(handle, secret=LOGIN)
    storage.site.secret("login", user="u1")
    return handle


def volumes(storage: Storage) -> list[str]:
    return list(storage.site.driver.state.volumes)


async def test_it_is_deleted_with_its_secret_and_is_no_leftover_any_more(ask: Ask, storage: Storage, lost: str) -> None:
    answer = await ask("--delete", lost, "--yes")
    assert (answer.code, answer.out) == (0, f"Volume {lost} is deleted.\n")
    assert lost not in volumes(storage)
    [call] = storage.site.calls("DeleteVolume")
    assert call.request.secrets == held(user="u1")
    lease = storage.site.objects.find("Lease", DROPPED, NAMESPACE)
    assert lease is not None
    assert leftover.read(lease["metadata"]["annotations"]) == {}
    assert (await ask()).code == 0


async def test_without_a_terminal_it_asks_for_yes(ask: Ask, storage: Storage, lost: str) -> None:
    answer = await ask("--delete", lost)
    assert answer.code == 2
    assert "--yes" in answer.err
    assert storage.site.calls("DeleteVolume") == []


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("yes\n", 0), ("n\n", 1), ("\n", 1)])
async def test_at_a_terminal_it_asks(
    ask: Ask, storage: Storage, lost: str, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert (await ask("--delete", lost)).code == code
    assert (lost in volumes(storage)) == bool(code)


MEANWHILE: dict[str, Callable[[Storage, str], Any]] = {
    "PersistentVolume adopted": lambda storage, handle: storage.volume("adopted", handle),
    "PersistentVolume pvc-lost": lambda storage, _: storage.volume("pvc-lost", "another"),
    "claim default/data": lambda storage, _: storage.site.claim("data", "none", volumeName="pvc-lost"),
    "attached to node-1": lambda storage, _: storage.site.objects.create(
        ATTACHMENT,
        {
            "metadata": {"name": "a"},
            "spec": {
                "attacher": storage.site.config.name,
                "nodeName": "node-1",
                "source": {"persistentVolumeName": "pvc-lost"},
            },
        },
    ),
    "attached to node-2": lambda storage, handle: storage.site.driver.state.published.update({handle: ("node-2",)}),
    "not among": lambda storage, handle: storage.site.driver.state.delete_volume(handle),
}


@pytest.mark.parametrize("why", MEANWHILE)
async def test_what_is_found_at_the_second_look_keeps_it(ask: Ask, storage: Storage, lost: str, why: str) -> None:
    """It comes after the first look: with the second question for PersistentVolumes."""
    seen: list[int] = []

    def meanwhile(call: Any) -> None:
        if call.rpc == "ListVolumes" and call.running:
            seen.append(1)
            if len(seen) == 3:  # each look lists twice
                MEANWHILE[why](storage, lost)

    storage.site.driver.on_call = meanwhile
    answer = await ask("--delete", lost, "--yes")
    assert answer.code == 1
    assert why in answer.err
    assert storage.site.calls("DeleteVolume") == []


async def test_a_volume_with_an_owner_is_not_deleted(ask: Ask, storage: Storage, lost: str) -> None:
    own = next(id_ for id_ in volumes(storage) if id_ != lost)
    for flags in ([], ["--force"]):
        answer = await ask("--delete", own, "--yes", *flags)
        assert answer.code == 1
        assert "nothing is deleted" in answer.err
    assert storage.site.calls("DeleteVolume") == []


async def test_what_only_the_list_has_needs_force(ask: Ask, storage: Storage, lost: str) -> None:
    theirs = storage.made("theirs")
    answer = await ask("--delete", theirs, "--yes")
    assert answer.code == 1
    assert "another cluster may own it" in answer.err
    assert (await ask("--delete", theirs, "--yes", "--force")).code == 0
    assert lost in volumes(storage)


async def test_a_secret_can_be_given_and_one_that_is_gone_is_done_without(ask: Ask, storage: Storage) -> None:
    storage.owned(5)
    handle = storage.made("lost")
    storage.leftover(handle, secret=SecretReference("gone", NAMESPACE))
    storage.site.fault("UNAUTHENTICATED", rpc="DeleteVolume", times=1)
    answer = await ask("--delete", handle, "--yes")
    assert answer.code == 1
    assert "Secret default/gone is gone" in answer.err
    assert "Unauthenticated" in answer.err
    storage.site.secret("mine", user="u2")
    assert (await ask("--delete", handle, "--yes", f"--secret={NAMESPACE}/mine")).code == 0
    assert [call.request.secrets for call in storage.site.calls("DeleteVolume")] == [{}, held(user="u2")]


async def test_one_of_the_journal_is_deleted_with_the_secret_of_its_entry(ask: Ask, storage: Storage) -> None:
    await served(storage.site, ids_of_names=True)
    storage.owned(5)
    storage.site.secret("login", user="u1")
    handle = storage.made(storage.entry(secret=LOGIN))
    assert (await ask("--delete", handle, "--yes")).code == 0
    assert storage.site.calls("DeleteVolume")[0].request.secrets == held(user="u1")


async def test_where_the_driver_does_not_list_what_was_told_is_enough(ask: Ask, storage: Storage, lost: str) -> None:
    await served(storage.site, controller=("CREATE_DELETE_VOLUME",))
    assert (await ask("--delete", lost, "--yes")).code == 0
    assert lost not in volumes(storage)


async def test_without_the_right_to_change_the_list_it_is_deleted_all_the_same(
    ask: Ask, storage: Storage, lost: str
) -> None:
    storage.site.refuse("update", "Lease", 403)
    answer = await ask("--delete", lost, "--yes")
    assert answer.code == 0
    assert "stays in the list" in answer.err


async def test_lists_that_look_wrong_stop_it_too(ask: Ask, storage: Storage) -> None:
    handle = storage.made("lost")
    storage.leftover(handle)
    assert (await ask("--delete", handle, "--yes")).code == 1
    assert handle in volumes(storage)
    assert (await ask("--delete", handle, "--yes", "--force")).code == 0


async def test_a_claim_that_lost_its_volume_keeps_it_but_for_force(ask: Ask, storage: Storage, lost: str) -> None:
    storage.site.claim("data", "none", volumeName="pvc-lost")
    assert storage.site.find(CLAIM, "data")
    answer = await ask("--delete", lost, "--yes")
    assert "claim default/data" in answer.err
    assert (await ask("--delete", lost, "--yes", "--force")).code == 0
    assert storage.site.find(VOLUME, "pvc-lost") is None
