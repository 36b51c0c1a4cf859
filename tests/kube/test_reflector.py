"""The reflector on virtual time against an API server in memory: what it asks, when, and what the store holds."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.reflector import Reflector
from csi_provisioner.kube.store import Store
from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from tests.hearing import heard
from tests.kube.fake_api import FORBIDDEN, GONE, NO_ANSWER, FakeApi
from tests.kube.objects import Told, claim, label, ours

Claims = Store[PersistentVolumeClaim]
IN_BETWEEN = "changes are listed 30 s apart; does the API server restart, or a proxy before it end or change watches?"
OUTAGE = "is the API server up and reachable, and does nothing on the way end connections?"


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@asynccontextmanager
async def following(api: FakeApi, store: Claims, **options: Any) -> AsyncIterator[None]:
    """A reflector whose store is whole; the random source always says one half."""
    reflector = Reflector(api, PersistentVolumeClaim, store, random=lambda: 0.5, **options)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(reflector.run)
        yield
        await trio.sleep(40)  # longer than any pause, shorter than the patience with a silent watch
        assert_same(api, store)
        nursery.cancel_scope.cancel()


def assert_same(api: FakeApi, store: Claims) -> None:
    expected = {f"ns/{n}": label(o) for n, o in api.objects.items() if ours(o)}
    assert {f"ns/{o.metadata.name}": label(o) for o in store.values()} == expected


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What people are told, with the advice they are given."""
    lines: list[str] = []

    def note(record: Any) -> None:
        extra = record["extra"]
        if extra["v"] in (None, 0):
            lines.append(f"{record['message']}: {extra['keys'].get('advice', '')}")

    with heard(note):
        yield lines


async def test_lists_in_pages_then_watches_from_that_version(api: FakeApi, store: Claims) -> None:
    async with following(api, store, page=2):
        assert len(store) == 5
        assert "ns/f" in store
        api.write("a")
        api.delete("b")
    assert api.asked == ["list", "list 16/2", "list 16/4", "watch 16"]


async def test_what_a_list_has_in_no_readable_form_stays_as_it_was(api: FakeApi, store: Claims) -> None:
    told: Told = []
    async with following(api, store):
        store.subscribe(lambda key, old, new: told.append((key, label(old), label(new))))
        api.compact()
        api.unreadable = {"a", "new"}
        api.watch_errors = [GONE]
        before = store.get("ns/a")
        api.end_watches()
        api.objects["new"] = claim("new", 1)
        await trio.sleep(5)
        assert store.get("ns/a") is before
        assert "ns/new" in store
        assert store.get("ns/new") is None
        del api.objects["new"]
    assert told == []


async def test_started_only_when_the_list_is_whole(api: FakeApi, store: Claims) -> None:
    api.list_errors = [NO_ANSWER, NO_ANSWER, KubeError(500)]
    begun = trio.current_time()
    async with following(api, store, page=2):
        assert trio.current_time() - begun == pytest.approx(0.8 + 1.6 + 3.2 + 6 * 0.01)


async def test_a_change_while_pages_are_read_is_shown_by_the_watch(api: FakeApi, store: Claims) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(at, 0.015, lambda: (api.write("a"), api.delete("c")))
        async with following(api, store, page=2):
            assert store.get("ns/c") is not None
    assert "ns/c" not in store


async def at(seconds: float, act: Callable[[], object]) -> None:
    await trio.sleep(seconds)
    act()


async def test_expired_page_token_starts_the_list_again(api: FakeApi, store: Claims) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(at, 0.025, lambda: (api.delete("a"), api.compact()))
        async with following(api, store, page=2):
            assert api.asked[:4] == ["list", "list 16/2", "list 16/4", "list"]
            assert "ns/a" not in store


async def test_resumes_from_the_last_version_shown(api: FakeApi, store: Claims) -> None:
    async with following(api, store):
        api.write("a")
        await trio.sleep(1)
        api.end_watches()
        api.write("b")
        await trio.sleep(1)
        api.end_watches(NO_ANSWER)
    assert api.asked == ["list", "watch 16", "watch 17", "watch 18"]


async def test_resumes_from_a_bookmark(api: FakeApi, store: Claims) -> None:
    async with following(api, store):
        api.version = 40
        api.bookmark()
        await trio.sleep(1)
        api.compact()
        api.end_watches()
    assert api.asked[-1] == "watch 40"


async def test_a_bookmark_of_a_server_that_lags_hides_nothing(api: FakeApi, store: Claims) -> None:
    async with following(api, store):
        api.write("a")
        await trio.sleep(1)
        api.lag()
        api.write("b")
        api.delete("c")
        api.bookmark()
        await trio.sleep(1)
        api.end_watches()
        await trio.sleep(1)
        assert api.asked[-1] == "watch 19"
        api.catch_up()
    assert "ns/c" not in store
    assert api.asked[-1] == "watch 19"


async def test_a_defect_in_what_hears_of_events_ends_nothing(api: FakeApi, store: Claims) -> None:
    def fails(_claim: PersistentVolumeClaim, _line: bytes) -> None:
        raise ValueError("a defect")

    async with following(api, store, on_event=fails):
        api.write("a")


@pytest.mark.parametrize("how", ["status", "event"])
async def test_expired_version_lists_again_and_tells_the_difference(api: FakeApi, store: Claims, how: str) -> None:
    told: Told = []
    async with following(api, store):
        store.subscribe(lambda key, old, new: told.append((key, label(old), label(new))))
        await trio.sleep(60)
        api.delete("a")
        api.write("b")
        api.write("g")
        if how == "event":
            api.end_watches(GONE)
        else:
            api.compact()
            api.end_watches()
    assert api.asked[-2:] == ["list", "watch 19"]
    assert told == [("ns/a", "a-11@11", None), ("ns/b", "b-12@12", "b-12@18"), ("ns/g", None, "g-19@19")]


async def test_a_silent_connection_is_given_up_and_the_second_time_listed(
    api: FakeApi, store: Claims, lines: list[str]
) -> None:
    async with following(api, store):
        for _ in range(3):
            api.version += 1
            api.bookmark()
            await trio.sleep(60)
        assert api.asked == ["list", "watch 16"], "a line each minute is enough"
        api.deaf = True
        await trio.sleep(10 + 0.8 + 70 + 1.6 + 70 + 3.2 + 1)
        assert api.asked == ["list", "watch 16", "watch 19", "watch 19", "list", "watch 19"]
        api.deaf = False
        api.write("a")
    assert lines == [f"Cannot follow, trying on: {OUTAGE}", "Can watch again: "]


async def test_a_server_that_goes_down_twice_is_two_outages(api: FakeApi, store: Claims, lines: list[str]) -> None:
    async with following(api, store):
        for _ in range(2):
            await trio.sleep(20)
            api.watch_errors = [NO_ANSWER] * 2
            api.end_watches(NO_ANSWER)
        await trio.sleep(20)
        api.write("a")
    assert [OUTAGE in line for line in lines] == [True, False] * 2


async def test_a_server_without_bookmarks_is_given_the_watchs_own_time(api: FakeApi, store: Claims) -> None:
    async with following(api, store):
        api.deaf = True
        await trio.sleep(450)
        assert api.asked == ["list", "watch 16"]
        await trio.sleep(11)
        assert api.asked == ["list", "watch 16", "watch 16"]
        api.deaf = False


TROUBLES = {
    "ends at once": None,
    "error": KubeError(500, "InternalError", "etcd event received with PrevKv=nil"),
    "not understood": KubeError(0, "InvalidAnswer", "the event cannot be understood: invalid utf-8"),
    "reset": NO_ANSWER,
    "expired": GONE,
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
async def test_where_no_watch_gets_on_lists_show_what_happens(
    api: FakeApi, store: Claims, lines: list[str], trouble: KubeError | None
) -> None:
    async with following(api, store):
        api.ending = [trouble]
        await trio.sleep(3)
        assert api.asked.count("list") == 2
        for name in "xyz":
            api.write(name)
            await trio.sleep(40)
            assert f"ns/{name}" in store
        await trio.sleep(600)
        assert api.asked.count("list") <= 2 + (3 + 120 + 600) / 30
        assert lines == [f"Cannot follow, trying on: {OUTAGE if trouble is NO_ANSWER else IN_BETWEEN}"]
        api.ending = []
        await trio.sleep(40)
        api.write("a")
        await trio.sleep(1)
        assert lines[1:] == ["Can watch again: "]


async def test_where_watches_are_forbidden_lists_show_what_happens(
    api: FakeApi, store: Claims, lines: list[str]
) -> None:
    async with following(api, store):
        await trio.sleep(1)
        api.watch_errors = [FORBIDDEN] * 10
        api.end_watches(NO_ANSWER)
        await trio.sleep(3)
        api.write("x")
        await trio.sleep(40)
        assert "ns/x" in store
        assert api.asked.count("list") == 3
        assert [line.partition(":")[0] for line in lines] == ["Cannot watch, trying on"]
        await trio.sleep(300)
        assert [line.partition(":")[0] for line in lines[1:]] == ["Can watch again"]


async def test_an_outage_of_any_length_resumes_the_watch(api: FakeApi, store: Claims, lines: list[str]) -> None:
    async with following(api, store):
        api.write("a")
        await trio.sleep(1)
        api.watch_errors = [NO_ANSWER, KubeError(503)] * 20
        api.end_watches(NO_ANSWER)
        await trio.sleep(1200)
        assert not api.watch_errors
    assert set(api.asked[2:]) == {"watch 17"}
    assert [line.partition(":")[0] for line in lines] == ["Cannot watch, trying on", "Can watch again"]


@pytest.mark.parametrize("seconds", [1, 45, 10**9])
async def test_retry_after_is_the_least_that_is_waited(api: FakeApi, store: Claims, seconds: int) -> None:
    async with following(api, store):
        api.write("a")
        await trio.sleep(1)
        api.watch_errors = [KubeError(429, "TooManyRequests", retry_after=seconds)]
        api.end_watches()
        await trio.sleep(min(seconds, 600) - 0.1)
        assert len(api.asked) == 3
        await trio.sleep(0.2)
        assert len(api.asked) == 4


async def test_a_proxy_that_ends_watches_that_got_on_costs_no_list(api: FakeApi, store: Claims) -> None:
    async with following(api, store):
        for _ in range(20):
            api.write("a")
            await trio.sleep(0.5)
            api.end_watches()
            await trio.sleep(6)
            api.end_watches()
    assert api.asked.count("list") == 1


async def test_events_that_cannot_be_understood_are_passed_by_a_list(api: FakeApi, store: Claims) -> None:
    """The watch gets on until it comes to the event, each time it is asked from before it."""
    async with following(api, store):
        api.poison = api.write("b").metadata.resourceVersion
        await trio.sleep(5)
        api.write("x")
    assert api.asked == ["list", "watch 16", "watch 16", "list", "watch 17"]


async def test_backoff_after_trouble_starts_small_again(api: FakeApi, store: Claims) -> None:
    async with following(api, store):
        api.watch_errors = [NO_ANSWER] * 5
        api.end_watches(NO_ANSWER)
        await trio.sleep(0.8 + 1.6 + 3.2 + 6.4 + 12.8 + 25.6 + 1)
        assert not api.watch_errors
        api.write("a")
        await trio.sleep(1)
        api.watch_errors = [NO_ANSWER]
        api.end_watches(NO_ANSWER)
        await trio.sleep(0.9)
        assert not api.watch_errors


async def test_watches_last_between_five_and_ten_minutes(api: FakeApi, store: Claims) -> None:
    async with following(api, store):
        assert api.timeouts == [450]


async def test_resync_calls_handlers_for_every_kept_object(api: FakeApi, store: Claims) -> None:
    told: list[str] = []
    async with following(api, store, resync=900):
        store.subscribe(lambda key, old, new: told.append(key) if old is new else None)
        await trio.sleep(1801)
    assert sorted(told) == sorted(2 * [f"ns/{name}" for name in "abcde"])


@pytest.mark.parametrize("how", ["says so", "is silent", "sends bookmarks"])
async def test_a_server_behind_us_is_listed(api: FakeApi, store: Claims, how: str) -> None:
    """A cluster restored from a backup. A real server keeps a watch from a later version open, and shows nothing."""
    async with following(api, store):
        api.version, api.objects, api.history = 5, {}, []
        api.write("z")
        api.watch_errors = [KubeError(504, causes=("ResourceVersionTooLarge",))] * (how == "says so")
        api.end_watches(NO_ANSWER)
        await trio.sleep(99)
        if how == "sends bookmarks":
            api.bookmark()
        await trio.sleep(1)
        api.end_watches()
    assert api.asked[-2:] == ["list", "watch 6"]
    assert "ns/z" in store


async def test_credentials_that_cannot_be_had_are_not_the_servers_fault(
    api: FakeApi, store: Claims, lines: list[str]
) -> None:
    api.list_errors = [KubeError(0, "Credentials", "cannot read the token file /t")]
    async with following(api, store):
        await trio.sleep(5)
    assert lines[0].startswith("Cannot list, trying on: check the credentials")


async def test_missing_permission_is_told_once_and_waited_out(api: FakeApi, store: Claims, lines: list[str]) -> None:
    api.list_errors = [KubeError(401)] * 2 + [FORBIDDEN] * 4 + [KubeError(404, "NotFound")] * 3
    async with following(api, store):
        api.watch_errors = [FORBIDDEN] * 3
        api.end_watches(NO_ANSWER)
        await trio.sleep(60)
    grant = 'of API group "" in the whole cluster to the service account of this process'
    assert lines == [
        "Cannot list, trying on: check the credentials: the service account's token, or the user of the kubeconfig",
        f"Cannot list, trying on: grant get, list and watch on persistentvolumeclaims {grant}",
        "Cannot list, trying on: v1 persistentvolumeclaims is not served here: install what defines it",
        "Can list again: ",
        f"Cannot watch, trying on: grant get, list and watch on persistentvolumeclaims {grant}",
        "Can watch again: ",
    ]


@pytest.mark.parametrize("moment", [0.005, 0.015, 0.5, 80], ids=["list", "watch opening", "watch", "silence"])
async def test_cancelled_at_any_moment_it_leaves_no_watch_behind(api: FakeApi, store: Claims, moment: float) -> None:
    reflector = Reflector(api, PersistentVolumeClaim, store, resync=1)
    with trio.move_on_after(moment) as scope:
        await reflector.run()
    assert scope.cancelled_caught
    assert api.watches == []
