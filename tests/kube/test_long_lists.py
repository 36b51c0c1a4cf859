"""Long lists: read and told so that nobody waits for them for long."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.kube.reflector import Reflector
from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from tests.kube.fake_api import GONE, NO_ANSWER, FakeApi
from tests.kube.test_reflector import Claims, at, following


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


async def test_the_server_is_asked_for_a_page_before_the_one_before_is_taken_in(api: FakeApi, store: Claims) -> None:
    asked, admit, admitted = api.list_page, store.admit, list[str]()
    moments: list[tuple[int, int]] = []

    async def list_page(*arguments: Any, **named: Any) -> Any:
        before = len(admitted)
        page = await asked(*arguments, **named)
        moments.append((before, len(admitted)))
        return page

    api.list_page = list_page  # type: ignore[method-assign]
    store.admit = lambda obj, fresh: admitted.append(obj.metadata.name) or admit(obj, fresh)  # type: ignore[func-returns-value,method-assign]
    async with following(api, store, page=2):
        assert moments == [(0, 0), (0, 2), (2, 4)]
        assert admitted == list("abcdef")


async def test_of_a_page_that_is_not_answered_nothing_is_taken_in_twice(api: FakeApi, store: Claims) -> None:
    admit, admitted = store.admit, list[str]()
    store.admit = lambda obj, fresh: admitted.append(obj.metadata.name) or admit(obj, fresh)  # type: ignore[func-returns-value,method-assign]

    def fail() -> None:
        api.list_errors = [NO_ANSWER, NO_ANSWER]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(at, 0.015, fail)
        async with following(api, store, page=2):
            assert admitted == list("abcdef")
            assert api.asked[:5] == ["list", "list 16/2", "list 16/2", "list 16/2", "list 16/4"]


@contextmanager
def counted(told: list[Any]) -> Iterator[Callable[[], int]]:
    """The most that was told in one step of a task."""
    most = 0

    class Steps(trio.abc.Instrument):
        before = len(told)

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.before = len(told)

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal most
            most = max(most, len(told) - self.before)

    trio.lowlevel.add_instrument(steps := Steps())
    yield lambda: most
    trio.lowlevel.remove_instrument(steps)


async def test_while_a_long_first_list_is_told_others_get_their_turn_and_a_later_one_is_told_as_one(
    api: FakeApi, store: Claims
) -> None:
    told: list[str] = []
    store.subscribe(lambda key, old, new: told.append(key))
    for number in range(1000):
        api.write(f"n-{number}")
    with counted(told) as most:
        async with following(api, store, page=10_000):
            assert len(told) == 1005
            assert most() == 200
            api.end_watches(GONE)
            for number in range(1000):
                api.delete(f"n-{number}")
            api.compact()
            await trio.sleep(60)
            assert len(told) == 2005
            assert most() == 1000, "who decides by what handlers keep would see half of it"


async def test_whoever_is_to_look_again_while_a_list_is_told_tells_all_of_it_and_looks_at_once(
    api: FakeApi, store: Claims
) -> None:
    """What is gone by that list, the next one would not tell."""
    told: list[tuple[str, bool]] = []
    for number in range(1000):
        api.write(f"n-{number:03}")
    reflector = Reflector(api, PersistentVolumeClaim, store, random=lambda: 0.5)  # type: ignore[arg-type]
    synced: list[float] = []
    reflector.on_list = lambda: synced.append(trio.current_time())

    def hear(key: str, old: object, new: object) -> None:
        told.append((key, new is None))
        if len(told) == 300:
            reflector.look_again()

    async with trio.open_nursery() as nursery:
        await nursery.start(reflector.run)
        await trio.sleep(60)
        store.subscribe(hear)
        api.compact()
        api.watch_errors = [GONE]
        for number in range(1000):
            del api.objects[f"n-{number:03}"]
        lists, begun = api.asked.count("list"), trio.current_time()
        api.end_watches()
        await trio.sleep(1)
        assert [name for name, gone in told if gone] == [f"ns/n-{number:03}" for number in range(1000)]
        assert api.asked.count("list") == lists + 2
        assert len(synced) == 2, "the list that was told was not whole in the end"
        assert synced[1] < begun + 1
        nursery.cancel_scope.cancel()


async def test_who_is_to_look_again_while_the_first_list_is_told_is_told_of_all_of_it(
    api: FakeApi, store: Claims
) -> None:
    told: list[str] = []
    for number in range(1000):
        api.write(f"n-{number:03}")
    reflector = Reflector(api, PersistentVolumeClaim, store, page=10_000)  # type: ignore[arg-type]

    def hear(key: str, old: object, new: object) -> None:
        told.append(key)
        if len(told) == 300:
            reflector.look_again()

    store.subscribe(hear)
    async with trio.open_nursery() as nursery:
        await nursery.start(reflector.run)
        assert api.asked[:2] == ["list", "list"]
        assert {f"ns/n-{number:03}" for number in range(1000)} <= set(told[400:])
        nursery.cancel_scope.cancel()


async def test_what_a_list_has_told_becomes_records_in_pieces_also_if_it_is_to_be_listed_again(
    api: FakeApi, store: Claims
) -> None:
    cool, cooled = store.cool, list[str]()
    for number in range(1000):
        api.write(f"n-{number}")
    reflector = Reflector(api, PersistentVolumeClaim, store, random=lambda: 0.5)  # type: ignore[arg-type]

    def cool_and_look_again(keys: list[str]) -> None:
        cooled.extend(keys)
        cool(keys)
        if len(cooled) == 400:
            reflector.look_again()

    store.cool = cool_and_look_again  # type: ignore[assignment,method-assign]
    with counted(cooled) as most:
        async with trio.open_nursery() as nursery:
            await nursery.start(reflector.run)
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
        assert most() == 200
    assert {f"ns/n-{number}" for number in range(1000)} <= {*cooled}
    assert store.warm == {}
