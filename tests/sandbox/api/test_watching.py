"""Watches of the sandbox over time: bookmarks, compaction, slow and stalled watchers, cut connections."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from sandbox.api import watching
from sandbox.api.objects import Objects
from sandbox.api.server import ApiServer
from sandbox.api.storage import Storage
from tests.sandbox.api.client import config_map
from tests.sandbox.api.conftest import running
from tests.sandbox.api.lines import Lines, stream

PATH = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


@pytest.fixture
async def small() -> AsyncIterator[ApiServer]:
    """A server that remembers only the last ten changes of a kind."""
    async with running(Objects(Storage(history=10), seed=1)) as server:
        yield server


def watch(server: ApiServer, **query: Any) -> AbstractAsyncContextManager[Lines]:
    return stream(server.url, PATH, {"watch": "true", **query}, headers={})


def put(server: ApiServer, name: str) -> None:
    server.objects.create("ConfigMap", config_map(name), "default")


async def types(lines: Lines) -> list[str]:
    return [event["type"] async for event in lines]


async def test_bookmarks_come_every_minute_and_carry_the_newest_version(server: ApiServer) -> None:
    began = trio.current_time()
    version = server.objects.storage.number
    async with watch(server, resourceVersion=version, allowWatchBookmarks="true", timeoutSeconds=150) as lines:
        first = await anext(lines)
        assert first["type"] == "BOOKMARK"
        assert first["object"]["metadata"]["resourceVersion"] == str(version)
        assert trio.current_time() - began == pytest.approx(60, abs=1)
        server.objects.create("Secret", {"metadata": {"name": "s"}}, "default")  # another kind moves the version on
        second = await anext(lines)
        assert second["object"]["metadata"]["resourceVersion"] == str(version + 1)
        assert await types(lines) == []
    assert trio.current_time() - began == pytest.approx(150, abs=1)


async def test_no_bookmarks_unasked(server: ApiServer) -> None:
    async with watch(server, timeoutSeconds=300) as lines:
        assert await types(lines) == []


async def test_what_is_forgotten_cannot_be_watched_from(server: ApiServer) -> None:
    version = server.objects.storage.number
    put(server, "a")
    server.objects.storage.compact()
    async with watch(server, resourceVersion=version) as lines:
        event = await anext(lines)
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await types(lines) == []
    async with watch(server, resourceVersion=version + 1) as lines:
        put(server, "b")
        assert (await anext(lines))["object"]["metadata"]["name"] == "b"


async def test_history_is_bounded(small: ApiServer) -> None:
    version = small.objects.storage.number
    for number in range(11):
        put(small, f"c{number}")
    async with watch(small, resourceVersion=version) as lines:
        assert (await anext(lines))["object"]["code"] == 410


async def test_a_watcher_that_missed_history_is_dropped(small: ApiServer) -> None:
    async with watch(small, resourceVersion=small.objects.storage.number) as lines:
        small.faults.stall_watches("ConfigMap")
        for number in range(11):
            put(small, f"c{number}")
        small.faults.resume_watches()
        assert await types(lines) == []


async def test_a_watcher_that_lags_is_dropped(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LAG", 3)
    async with watch(server, resourceVersion=server.objects.storage.number) as lines:
        server.faults.stall_watches()
        for number in range(4):
            put(server, f"c{number}")
        server.faults.resume_watches()
        assert await types(lines) == []


async def test_a_stalled_watch_is_silent_and_goes_on(server: ApiServer) -> None:
    server.faults.stall_watches("ConfigMap")
    async with watch(server, resourceVersion=server.objects.storage.number, allowWatchBookmarks="true") as lines:
        put(server, "a")
        with trio.move_on_after(1000) as silence:
            await anext(lines)
        assert silence.cancelled_caught
        server.faults.resume_watches()
        assert (await anext(lines))["object"]["metadata"]["name"] == "a"


async def test_a_replica_that_lags_shows_changes_after_a_bookmark_that_is_newer(server: ApiServer) -> None:
    version = server.objects.storage.number
    async with watch(server, resourceVersion=version, allowWatchBookmarks="true") as lines:
        put(server, "a")
        assert (await anext(lines))["object"]["metadata"]["name"] == "a"
        server.objects.lag("ConfigMap")
        put(server, "b")
        newest = server.objects.storage.number
        bookmark = await anext(lines)
        assert (bookmark["type"], bookmark["object"]["metadata"]["resourceVersion"]) == ("BOOKMARK", str(newest))
        async with watch(server, resourceVersion=newest) as later:
            server.objects.catch_up("ConfigMap")
            assert [(await anext(each))["object"]["metadata"]["name"] for each in (lines, later)] == ["b", "b"]


async def test_open_watches_can_be_cut(server: ApiServer) -> None:
    async with watch(server) as lines:
        assert server.faults.cut_watches("Secret") == 0
        assert server.faults.cut_watches("ConfigMap") == 1
        with pytest.raises(trio.BrokenResourceError):
            await anext(lines)
    await trio.testing.wait_all_tasks_blocked()
    assert not server.faults.watches


async def test_a_watch_ends_with_its_client(server: ApiServer) -> None:
    async with watch(server):
        assert len(server.faults.watches) == 1
    await trio.testing.wait_all_tasks_blocked()
    assert not server.faults.watches


async def test_a_client_that_does_not_read_does_not_keep_the_server() -> None:
    with trio.fail_after(10):
        async with running() as server, watch(server, resourceVersion=server.objects.storage.number):
            for number in range(200):
                big = {"metadata": {"name": f"big-{number}"}, "data": {"x": "x" * 100_000}}  # 20 MB fill any buffer
                server.objects.create("ConfigMap", big, "default")
                await trio.testing.wait_all_tasks_blocked()
            await server.stop()


async def test_initial_events_are_refused_so_that_clients_fall_back(server: ApiServer) -> None:
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    async with watch(server, **query) as lines:
        assert lines.code == 422
