"""A cluster that goes back to a backup while a leader is at work: who sees it, and what is read then."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.kube.reflector import Reflector
from csi_provisioner.kube.store import Store
from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from tests.kube.fake_api import FakeApi
from tests.kube.leases import LeaseApi, candidates
from tests.kube.objects import claim


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.mark.parametrize("gone", [False, True], ids=["older", "not there yet"])
async def test_a_leader_sees_by_its_own_lease_that_the_cluster_was_restored(gone: bool) -> None:
    api = LeaseApi()
    told: list[float] = []
    async with candidates(api) as (start, _):
        a = await start("a")
        await trio.sleep(1)
        backup, version = api.lease, api.version
        await trio.sleep(21)
        a.elector.went_back = lambda: told.append(trio.current_time())
        api.lease, api.version = None if gone else backup, version
        restored = trio.current_time()
        await trio.sleep(40)
        [noticed] = told
        assert noticed < restored + 5.1
        assert a.lost is None


@pytest.mark.parametrize("alone", [False, True], ids=["", "leases have an etcd of their own"])
async def test_a_leader_sees_by_what_it_was_shown_that_a_backup_is_younger_than_its_renewal(alone: bool) -> None:
    api, told, shown = LeaseApi(), list[float](), [-1]
    async with candidates(api) as (start, _):
        a = await start("a")
        a.elector.seen = lambda: shown[0]
        a.elector.went_back = lambda: told.append(trio.current_time())
        await trio.sleep(1)
        shown = [api.version + 100 * alone]
        await trio.sleep(21)
        shown = [api.version + 100]
        restored = trio.current_time()
        await trio.sleep(40)
        assert [restored < moment < restored + 5.1 for moment in told] == [True] * (not alone)


async def test_who_learns_that_the_cluster_was_restored_has_it_listed_at_once() -> None:
    api, store = FakeApi(), Store[PersistentVolumeClaim]()
    reflector = Reflector(api, PersistentVolumeClaim, store)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(reflector.run)
        for again in ("y", "z"):
            await trio.sleep(1)
            api.version, api.objects, api.history = 5, {}, []
            api.write(again)
            reflector.look_again()
            await trio.sleep(0.1)
            assert [one.metadata.name for one in store.values()] == [again]
        nursery.cancel_scope.cancel()
    assert api.watches == []


async def test_a_list_that_had_come_when_the_restore_was_noticed_is_not_believed() -> None:
    class Late(FakeApi):
        async def list_page(self, *arguments: Any, **named: Any) -> Any:
            page = await super().list_page(*arguments, **named)
            if self.asked.count("list") == 1:
                self.objects = {}
                reflector.look_again()
            return page

    api, store, listed = Late(), Store[PersistentVolumeClaim](), list[int]()
    api.write("of the lost future")
    reflector = Reflector(api, PersistentVolumeClaim, store, on_list=lambda: listed.append(len(store)))  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(reflector.run)
        assert listed == [0]
        nursery.cancel_scope.cancel()


async def test_what_was_written_and_never_shown_is_told_as_gone_after_a_restore() -> None:
    api, store, told = FakeApi(), Store[PersistentVolumeClaim](), list[tuple[str, bool, bool]]()
    api.write("kept")
    reflector = Reflector(api, PersistentVolumeClaim, store)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(reflector.run)
        store.subscribe(lambda key, old, new: told.append((key, old is not None, new is not None)))
        store.remember(claim("lost", api.version + 5))
        reflector.look_again()
        store.remember(claim("late", api.version + 6))
        await trio.sleep(1)
        # And what is there as it was is told again: what was done for it may be undone.
        assert told == [("ns/lost", True, False), ("ns/kept", True, True)]
        assert [one.metadata.name for one in store.values()] == ["kept"]
        store.remember(claim("new", api.version + 1))
        assert "ns/new" in store
        nursery.cancel_scope.cancel()
