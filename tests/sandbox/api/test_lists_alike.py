"""Lists, pages, selectors and watches: what a real API server answers, and the sandbox with it."""

from typing import Any

import pytest
import trio.testing

from tests.cluster.controlplane import ControlPlane
from tests.sandbox.api.client import CONFIG_MAPS, EVENTS, SNAPSHOTS, STRATEGIC, Api, Object, config_map

# every namespace of a real cluster has a config map of its own: lists are told apart by a label
MINE = {"labelSelector": "mine=yes"}


@pytest.fixture
def anyio_backend(where: ControlPlane | None) -> object:
    return "trio" if where else ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


def names(body: Object) -> list[str]:
    return [item["metadata"]["name"] for item in body["items"]]


async def fill(api: Api, *wanted: str, **labels: str) -> None:
    for name in wanted:
        await api.create(CONFIG_MAPS, config_map(name, labels={"mine": "yes", **labels}))


async def test_pages_show_one_moment(api: Api) -> None:
    await fill(api, "b", "a", "d", "c", "e")
    code, first = await api.request("GET", CONFIG_MAPS, limit=2, **MINE)
    assert (code, first["kind"], first["apiVersion"]) == (200, "ConfigMapList", "v1")
    await fill(api, "bb", "z")
    await api.request("DELETE", f"{CONFIG_MAPS}/d")
    seen, page = names(first), first
    while token := page["metadata"].get("continue"):
        code, page = await api.request("GET", CONFIG_MAPS, limit=2, **{"continue": token}, **MINE)
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        seen += names(page)
    assert seen == ["a", "b", "c", "d", "e"]
    code, now = await api.request("GET", CONFIG_MAPS, **MINE)
    assert names(now) == ["a", "b", "bb", "c", "e", "z"]
    assert int(now["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])


async def test_remaining_items_are_counted_where_that_is_cheap(api: Api) -> None:
    await fill(api, "a", "b", "c")
    _, page = await api.request("GET", CONFIG_MAPS, limit=1)
    assert page["metadata"]["remainingItemCount"] >= 2
    _, page = await api.request("GET", CONFIG_MAPS, limit=1, **MINE)
    assert "remainingItemCount" not in page["metadata"]


async def test_items_of_built_in_kinds_do_not_say_their_kind(api: Api) -> None:
    await fill(api, "a")
    _, body = await api.request("GET", CONFIG_MAPS, **MINE)
    assert {"kind", "apiVersion"} & set(body["items"][0]) == set()
    snapshot = {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": "s"}}
    await api.create(SNAPSHOTS, {**snapshot, "spec": {}})
    _, body = await api.request("GET", SNAPSHOTS)
    assert (body["kind"], body["items"][0]["kind"]) == ("VolumeSnapshotList", "VolumeSnapshot")


async def test_lists_of_all_namespaces(api: Api) -> None:
    await fill(api, "a")
    _, body = await api.request("GET", "/api/v1/configmaps", labelSelector="mine=yes")
    assert (api.ns, "a") in [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in body["items"]]
    assert (await api.request("GET", "/api/v1/namespaces/nowhere/configmaps"))[1]["items"] == []


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("colour=red", ["a"]),
        ("colour==red", ["a"]),
        ("colour!=red,mine=yes", ["b", "c"]),
        ("colour", ["a", "b"]),
        ("!colour,mine", ["c"]),
        ("colour in (red, blue)", ["a", "b"]),
        ("colour notin (red),mine", ["b", "c"]),
        ("colour=", []),
        ("colour in (blue),mine=yes", ["b"]),
    ],
)
async def test_label_selectors(api: Api, selector: str, expected: list[str]) -> None:
    await fill(api, "a", colour="red")
    await fill(api, "b", colour="blue")
    await fill(api, "c")
    _, body = await api.request("GET", CONFIG_MAPS, labelSelector=selector)
    assert names(body) == expected


async def test_field_selectors(api: Api) -> None:
    await fill(api, "a", "b")
    _, body = await api.request("GET", CONFIG_MAPS, fieldSelector="metadata.name=b")
    assert names(body) == ["b"]
    _, body = await api.request("GET", CONFIG_MAPS, fieldSelector="metadata.name!=b", **MINE)
    assert names(body) == ["a"]
    _, body = await api.request("GET", "/api/v1/configmaps", fieldSelector=f"metadata.namespace={api.ns}", **MINE)
    assert names(body) == ["a", "b"]
    about = {"kind": "Pod", "namespace": api.ns, "name": "p", "uid": "u"}
    event = {"metadata": {"name": "e"}, "involvedObject": about, "reason": "R", "type": "Normal", "message": "m"}
    await api.create(EVENTS, {**event, "source": {"component": "me"}})
    for selector in ("involvedObject.uid=u,involvedObject.name=p", "reason=R,type=Normal", "source=me"):
        _, body = await api.request("GET", EVENTS, fieldSelector=selector)
        assert names(body) == ["e"], selector
    _, body = await api.request("GET", EVENTS, fieldSelector="involvedObject.uid=other")
    assert body["items"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"fieldSelector": "spec.nothing=x"},
        {"fieldSelector": "nonsense"},
        {"labelSelector": "a=b=c"},
        {"labelSelector": "a in"},
        {"continue": "nonsense"},
    ],
    ids=str,
)
async def test_unreadable_queries(api: Api, query: dict[str, str]) -> None:
    code, status = await api.request("GET", CONFIG_MAPS, **query)
    assert (code, status["reason"]) == (400, "BadRequest")


async def test_a_watch_tells_every_change(api: Api) -> None:
    one = f"{CONFIG_MAPS}/one"
    _, before = await api.request("GET", CONFIG_MAPS)
    version = before["metadata"]["resourceVersion"]
    async with api.watch(CONFIG_MAPS, resourceVersion=version, fieldSelector="metadata.name=one") as events:
        made = await api.create(CONFIG_MAPS, config_map("one"))
        added = await anext(events)
        assert (added["type"], added["object"]["metadata"]["uid"]) == ("ADDED", made["metadata"]["uid"])
        assert added["object"]["kind"] == "ConfigMap"
        await api.patch(one, {"metadata": {"labels": {"a": "b"}, "finalizers": ["a.test/x"]}})
        modified = await anext(events)
        assert (modified["type"], modified["object"]["metadata"]["labels"]) == ("MODIFIED", {"a": "b"})
        await api.request("DELETE", one)
        marked = await anext(events)
        assert marked["type"] == "MODIFIED"
        assert "deletionTimestamp" in marked["object"]["metadata"]
        await api.patch(one, {"metadata": {"finalizers": None}})
        gone = await anext(events)
        assert gone["type"] == "DELETED"
        versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in (added, modified, marked, gone)]
        assert versions == sorted(set(versions)), "the deletion has a version of its own"


async def test_a_watch_without_a_version_begins_with_what_is_there(api: Api) -> None:
    await fill(api, "a", "b")
    for query in ({}, {"resourceVersion": "0"}):
        async with api.watch(CONFIG_MAPS, **MINE, **query) as events:
            there = [await anext(events), await anext(events)]
            assert [(event["type"], event["object"]["metadata"]["name"]) for event in there] == [
                ("ADDED", "a"),
                ("ADDED", "b"),
            ]


async def test_a_watch_resumes(api: Api) -> None:
    made = await api.create(CONFIG_MAPS, config_map("a", labels={"mine": "yes"}))
    await fill(api, "b", "c")
    async with api.watch(CONFIG_MAPS, resourceVersion=made["metadata"]["resourceVersion"]) as events:
        seen = [await anext(events), await anext(events)]
    assert [event["object"]["metadata"]["name"] for event in seen] == ["b", "c"]


async def test_a_watch_with_a_selector_sees_objects_come_and_go(api: Api) -> None:
    _, before = await api.request("GET", CONFIG_MAPS)
    one = f"{CONFIG_MAPS}/one"
    version = before["metadata"]["resourceVersion"]
    async with api.watch(CONFIG_MAPS, resourceVersion=version, labelSelector="colour=red") as events:
        await api.create(CONFIG_MAPS, config_map("one", labels={"colour": "blue"}))
        await api.patch(one, {"metadata": {"labels": {"colour": "red"}}})
        await api.patch(one, {"metadata": {"labels": {"more": "x"}}}, STRATEGIC)
        await api.patch(one, {"metadata": {"labels": {"colour": "blue"}}})
        await api.request("DELETE", one)
        await api.create(CONFIG_MAPS, config_map("two", labels={"colour": "red"}))
        seen = [await anext(events) for _ in range(4)]
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in seen] == [
        ("ADDED", "one"),
        ("MODIFIED", "one"),
        ("DELETED", "one"),
        ("ADDED", "two"),
    ]


async def test_a_watch_of_one_object(api: Api) -> None:
    await fill(api, "a", "b")
    async with api.watch(CONFIG_MAPS, fieldSelector="metadata.name=b") as events:
        assert (await anext(events))["object"]["metadata"]["name"] == "b"
    assert (await api.request("GET", f"{CONFIG_MAPS}/b", watch="true"))[1]["metadata"]["name"] == "b"


async def test_a_watch_ends_when_its_time_is_up(api: Api) -> None:
    async with api.watch(CONFIG_MAPS, timeoutSeconds=1, **MINE) as events:
        assert [event async for event in events] == []


async def test_a_version_that_is_not_there_yet(api: Api) -> None:
    far = str(10**9)
    code, status = await api.request("GET", CONFIG_MAPS, resourceVersion=far)
    assert (code, status["reason"], status["details"]["retryAfterSeconds"]) == (504, "Timeout", 1)
    assert status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert (await api.request("GET", CONFIG_MAPS, resourceVersion="nonsense"))[0] == 400


async def test_a_watch_from_too_long_ago(api: Api) -> None:
    await api.forget()
    async with api.watch(CONFIG_MAPS, resourceVersion="1") as events:
        event: dict[str, Any] = await anext(events)
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
    assert event["object"]["message"].startswith("too old resource version: 1 (")


async def test_lists_at_an_exact_version(api: Api) -> None:
    await fill(api, "a")
    _, then = await api.request("GET", CONFIG_MAPS, **MINE)
    await fill(api, "b")
    query = {"resourceVersion": then["metadata"]["resourceVersion"], "resourceVersionMatch": "Exact", **MINE}
    assert names((await api.request("GET", CONFIG_MAPS, **query))[1]) == ["a"]
