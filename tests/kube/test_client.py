"""KubeClient on the wire: what it asks, what it makes of answers, how it waits and when it gives up."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from csi_provisioner.kube.client import KubeClient, KubeError, Scope, TokenBucket, connect, resolve
from csi_provisioner.model.kubernetes import ObjectMeta, PersistentVolume, PersistentVolumeClaim, StorageClass
from csi_provisioner.settings import ClusterSettings
from tests.kube.wire import Answer, Asked, HangupError, Server, always, gone, reply, serving

CLAIM = {"metadata": {"name": "c", "namespace": "n", "resourceVersion": "7"}, "spec": {}, "unknown": {"kept": True}}


@pytest.fixture
def anyio_backend() -> Any:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


@asynccontextmanager
async def client_of(answer: Answer, **options: Any) -> AsyncIterator[tuple[KubeClient, Server]]:
    async with serving(answer) as server:
        settings = ClusterSettings(master=f"http://127.0.0.1:{server.port}/prefix/")
        client = connect(resolve(settings), user_agent="test/1", **options)
        try:
            yield client, server
        finally:
            client.close()


def says(obj: object, status: int = 200, **headers: str) -> bytes:
    return reply(status, json.dumps(obj).encode(), **headers)


def status(code: int, reason: str, message: str = "no", **more: object) -> dict[str, object]:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message, **more}


ASKED: dict[str, tuple[Callable[[KubeClient], Any], str, object]] = {
    "get": (lambda c: c.get(StorageClass, "s"), "GET /apis/storage.k8s.io/v1/storageclasses/s", None),
    "get-namespaced": (
        lambda c: c.get(PersistentVolumeClaim, "c", "n"),
        "GET /api/v1/namespaces/n/persistentvolumeclaims/c",
        None,
    ),
    "create": (
        lambda c: c.create(PersistentVolume, PersistentVolume(metadata=ObjectMeta(name="v"))),
        "POST /api/v1/persistentvolumes",
        {"metadata": {"name": "v"}, "spec": {}, "apiVersion": "v1", "kind": "PersistentVolume"},
    ),
    "create-untyped": (
        lambda c: c.create(PersistentVolumeClaim, {"metadata": {"name": "c", "namespace": "n"}, "x": 1}),
        "POST /api/v1/namespaces/n/persistentvolumeclaims",
        {"metadata": {"name": "c", "namespace": "n"}, "x": 1, "apiVersion": "v1", "kind": "PersistentVolumeClaim"},
    ),
    "put": (
        lambda c: c.put_untyped(PersistentVolumeClaim, CLAIM),
        "PUT /api/v1/namespaces/n/persistentvolumeclaims/c",
        CLAIM,
    ),
    "patch": (
        lambda c: c.patch(PersistentVolume, "v", {"metadata": {"finalizers": ["f"]}}),
        "PATCH /api/v1/persistentvolumes/v",
        {"metadata": {"finalizers": ["f"]}},
    ),
    "delete": (lambda c: c.delete(PersistentVolume, "v"), "DELETE /api/v1/persistentvolumes/v", None),
    "list": (
        lambda c: c.list_page(PersistentVolumeClaim),
        "GET /api/v1/persistentvolumeclaims?limit=500",
        None,
    ),
    "list-on": (
        lambda c: c.list_page(PersistentVolumeClaim, Scope("n", "a in (b,c)"), limit=5, continue_token="a="),
        "GET /api/v1/namespaces/n/persistentvolumeclaims?limit=5&continue=a%3D&labelSelector=a+in+%28b%2Cc%29",
        None,
    ),
    "discover": (lambda c: c.discover("/apis/storage.k8s.io/v1"), "GET /apis/storage.k8s.io/v1", None),
}


@pytest.mark.parametrize(("call", "line", "body"), ASKED.values(), ids=ASKED)
async def test_each_call_asks_with_its_method_path_and_body(
    call: Callable[[KubeClient], Any], line: str, body: object
) -> None:
    method, _, target = line.partition(" ")
    name = target.rpartition("/")[2] if method != "POST" else body["metadata"]["name"]  # type: ignore[index]
    where = {"namespace": "n"} if "/namespaces/n/" in target else {}
    obj = {"metadata": {"name": name, "resourceVersion": "7", **where}, "items": []}
    async with client_of(always(says(obj))) as (client, server):
        await call(client)
    [asked] = server.asked
    assert (asked.method, asked.target) == (method, f"/prefix{target}")
    assert (json.loads(asked.body) if asked.body else None) == body
    assert asked.headers["user-agent"] == "test/1"
    assert asked.headers["accept"] == "application/json"


@pytest.mark.parametrize("strategy", ["strategic", "merge"])
async def test_the_strategy_of_a_patch_is_its_content_type(strategy: Any) -> None:
    async with client_of(always(says(CLAIM))) as (client, server):
        await client.patch(PersistentVolumeClaim, "c", {}, "n", strategy=strategy)
    wanted = {
        "strategic": "application/strategic-merge-patch+json",
        "merge": "application/merge-patch+json",
        "json": "application/json-patch+json",
    }
    assert server.asked[0].headers["content-type"] == wanted[strategy]


async def test_a_page_has_objects_a_version_and_a_way_to_the_next() -> None:
    answer = {"metadata": {"resourceVersion": "12", "continue": "more"}, "items": [CLAIM, CLAIM]}
    async with client_of(always(says(answer))) as (client, _server):
        page = await client.list_page(PersistentVolumeClaim)
    assert [claim.metadata.name for claim in page.items] == ["c", "c"]
    assert (page.resource_version, page.continue_token) == ("12", "more")


# ---- changing


async def test_a_change_keeps_what_is_not_modelled() -> None:
    def edit(obj: dict[str, Any]) -> bool:
        obj["metadata"]["finalizers"] = ["f"]
        return True

    async with client_of(always(says(CLAIM))) as (client, server):
        changed = await client.change(PersistentVolumeClaim, "c", "n", seen="7", edit=edit)
    assert changed is not None
    assert [asked.method for asked in server.asked] == ["GET", "PUT"]
    wanted = {**CLAIM, "metadata": {**CLAIM["metadata"], "finalizers": ["f"]}}  # type: ignore[dict-item]
    assert json.loads(server.asked[1].body) == wanted


async def test_a_change_of_another_version_is_a_conflict() -> None:
    async with client_of(always(says(CLAIM))) as (client, server):
        with pytest.raises(KubeError, match="change PersistentVolumeClaim n/c: it has changed") as caught:
            await client.change(PersistentVolumeClaim, "c", "n", seen="6", edit=lambda _: True)
    assert caught.value.conflict
    assert [asked.method for asked in server.asked] == ["GET"]


@pytest.mark.parametrize("seen", ["7", ""])
async def test_a_change_of_nothing_writes_nothing(seen: str) -> None:
    async with client_of(always(says(CLAIM))) as (client, server):
        assert await client.change(PersistentVolumeClaim, "c", "n", seen=seen, edit=lambda _: False) is None
    assert [asked.method for asked in server.asked] == ["GET"]


# ---- errors


@pytest.mark.parametrize(
    ("raw", "text", "properties"),
    [
        pytest.param(
            says(gone("persistentvolumeclaims", "c"), 404),
            'get PersistentVolumeClaim n/c: persistentvolumeclaims "c" not found (404 NotFound)',
            {"not_found"},
            id="not-found",
        ),
        pytest.param(
            says(status(409, "AlreadyExists"), 409), "no (409 AlreadyExists)", {"already_exists"}, id="exists"
        ),
        pytest.param(says(status(409, "Conflict"), 409), "no (409 Conflict)", {"conflict"}, id="conflict"),
        pytest.param(says(status(403, "Forbidden"), 403), "no (403 Forbidden)", {"forbidden"}, id="forbidden"),
        pytest.param(says(status(429, "TooManyRequests"), 429), "(429 TooManyRequests)", {"unavailable"}, id="429"),
        pytest.param(reply(502, b"<html>\n bad\n gateway"), "<html> bad gateway (502)", {"unavailable"}, id="page"),
        pytest.param(reply(302, b""), "c: 302", set(), id="redirect"),
        pytest.param(reply(200, b"<html>"), "cannot be understood", {"unavailable"}, id="not-json"),
        pytest.param(says({"metadata": 3}), "cannot be understood: Expected `object`", {"unavailable"}, id="bad-type"),
        pytest.param(b"nonsense", "the answer is not HTTP/1.1", {"unavailable"}, id="not-http"),
    ],
)
async def test_errors_say_what_was_done_and_answered(raw: bytes, text: str, properties: set[str]) -> None:
    async with client_of(always(raw)) as (client, _server):
        with pytest.raises(KubeError) as caught:
            await client.get(PersistentVolumeClaim, "c", "n")
    assert str(caught.value).startswith("get PersistentVolumeClaim n/c")
    assert text in str(caught.value)
    every = ("not_found", "already_exists", "conflict", "forbidden", "unavailable")
    assert {name for name in every if getattr(caught.value, name)} == properties


async def test_an_error_keeps_causes_and_the_wait_that_its_status_tells() -> None:
    details = {"causes": [{"reason": "ResourceVersionTooLarge", "message": "x"}], "retryAfterSeconds": 1}
    async with client_of(always(says(status(504, "Timeout", details=details), 504))) as (client, _server):
        with pytest.raises(KubeError) as caught:
            await client.list_page(PersistentVolume)
    assert caught.value.causes == ("ResourceVersionTooLarge",)
    assert caught.value.retry_after == 1


async def test_an_api_server_that_is_not_there_is_an_error_of_each_request() -> None:
    client = connect(resolve(ClusterSettings(master="http://127.0.0.1:1")), user_agent="x")
    with pytest.raises(KubeError, match=r"delete PersistentVolume v: cannot connect to 127\.0\.0\.1 port 1") as caught:
        await client.delete(PersistentVolume, "v")
    assert caught.value.code == 0
    with pytest.raises(KubeError, match="watch PersistentVolume: cannot connect"):
        await opened(client)


async def test_every_request_has_a_deadline() -> None:
    async def never(_asked: Asked, _stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with client_of(never) as (client, _server):
        for call in (client.get(PersistentVolume, "v"), client.discover("/x"), opened(client)):
            before = trio.current_time()
            with pytest.raises(KubeError, match=r"no answer within 30 s \(Timeout\)"):
                await call
            assert trio.current_time() - before == 30


async def opened(client: KubeClient) -> None:
    async with client.watch(PersistentVolume, resource_version="1", timeout_seconds=300):
        pass


# ---- a server that wants to be left alone


def after(refusals: int, refusal: bytes) -> Answer:
    count = 0

    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        nonlocal count
        count += 1
        await stream.send_all(refusal if count <= refusals else says(CLAIM))

    return answer


async def test_retry_after_is_obeyed() -> None:
    async with client_of(after(2, reply(429, Retry_After="4"))) as (client, server):
        before = trio.current_time()
        await client.create(PersistentVolumeClaim, CLAIM)
        assert trio.current_time() - before == 8
    assert [asked.method for asked in server.asked] == ["POST"] * 3


@pytest.mark.parametrize(("pause", "asked_for"), [("31", 1), ("20", 2), ("0", 11), ("soon", 1)])
async def test_retry_after_is_not_obeyed_beyond_the_deadline_nor_for_ever(pause: str, asked_for: int) -> None:
    async with client_of(always(reply(429, Retry_After=pause))) as (client, server):
        with pytest.raises(KubeError) as caught:
            await client.get(PersistentVolumeClaim, "c", "n")
    assert caught.value.code == 429
    assert caught.value.retry_after == (float(pause) if pause.isdecimal() else None)
    assert len(server.asked) == asked_for


@pytest.mark.parametrize(("call", "asked_for"), [("get", 2), ("post", 1)])
async def test_a_503_is_waited_out_only_where_asking_twice_is_safe(call: str, asked_for: int) -> None:
    async with client_of(after(1, reply(503, Retry_After="1"))) as (client, server):
        if call == "get":
            await client.get(PersistentVolumeClaim, "c", "n")
        else:
            with pytest.raises(KubeError):
                await client.create(PersistentVolumeClaim, CLAIM)
    assert len(server.asked) == asked_for


async def test_waiting_for_the_server_can_be_cancelled() -> None:
    async with client_of(always(reply(429, Retry_After="9"))) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.get, PersistentVolumeClaim, "c", "n")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert len(server.asked) == 1


async def test_nobody_waits_longer_than_the_caller_can() -> None:
    async with client_of(always(reply(429, Retry_After="9"))) as (client, _server):
        with trio.fail_after(8), pytest.raises(KubeError) as caught:
            await client.get(PersistentVolumeClaim, "c", "n")
    assert caught.value.code == 429


async def test_the_limit_counts_all_but_watches() -> None:
    watch = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(watch if "watch=true" in asked.target else says(CLAIM))

    async with client_of(answer, limit=TokenBucket(1, 1)) as (client, _server):
        before = trio.current_time()
        for _ in range(3):
            await opened(client)
            await client.get(PersistentVolumeClaim, "c", "n")
        assert trio.current_time() - before == 2


async def test_waiting_for_the_limit_is_not_waiting_for_an_answer() -> None:
    async with client_of(always(says(CLAIM)), limit=TokenBucket(0.01, 1)) as (client, server):
        for _ in range(2):
            await client.get(PersistentVolumeClaim, "c", "n")
    assert len(server.asked) == 2


# ---- watching


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def line(type_: str, obj: object) -> bytes:
    return json.dumps({"type": type_, "object": obj}).encode() + b"\n"


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BOOKMARK = {
    "kind": "PersistentVolumeClaim",
    "metadata": {"resourceVersion": "9", "creationTimestamp": None},
    "spec": {},
}


async def seen(client: KubeClient) -> list[tuple[str, str, str]]:
    found = []
    async with client.watch(PersistentVolumeClaim, resource_version="7", timeout_seconds=300) as events:
        async for event, _line in events:
            meta = event.object.metadata
            found.append((event.type, meta.name, meta.resourceVersion))
    return found


@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
async def test_the_events_of_a_watch_in_chunks_of_any_size(size: int) -> None:
    raw = line("ADDED", CLAIM) + line("MODIFIED", CLAIM) + line("BOOKMARK", BOOKMARK) + line("DELETED", CLAIM)

    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(HEAD)
        for start in range(0, len(raw), size):
            await stream.send_all(chunk(raw[start : start + size]))
        await stream.send_all(b"0\r\n\r\n")

    async with client_of(answer) as (client, server):
        found = await seen(client)
    assert found == [("ADDED", "c", "7"), ("MODIFIED", "c", "7"), ("BOOKMARK", "", "9"), ("DELETED", "c", "7")]
    assert server.asked[0].target == (
        "/prefix/api/v1/persistentvolumeclaims?resourceVersion=7&timeoutSeconds=300&allowWatchBookmarks=true&watch=true"
    )


@pytest.mark.parametrize(
    ("raw", "code", "text"),
    [
        pytest.param(line("ERROR", status(410, "Expired", "too old")), 410, "too old (410 Expired)", id="expired"),
        pytest.param(line("ADDED", {"metadata": []}), 0, "cannot be understood", id="wrong-type"),
        pytest.param(b"nonsense\n", 0, "cannot be understood", id="not-json"),
        pytest.param(b'{"type": "AD', 0, "ended within an event", id="cut-in-an-event"),
    ],
)
async def test_a_watch_that_goes_wrong_ends_with_what_went_wrong(raw: bytes, code: int, text: str) -> None:
    async with client_of(always(HEAD + chunk(raw) + b"0\r\n\r\n")) as (client, _server):
        with pytest.raises(KubeError) as caught:
            await seen(client)
    assert caught.value.code == code
    assert str(caught.value).startswith("watch PersistentVolumeClaim:")
    assert text in str(caught.value)


async def test_a_watch_whose_connection_breaks() -> None:
    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(HEAD + chunk(line("ADDED", CLAIM)))
        raise HangupError

    async with client_of(answer) as (client, _server):
        with pytest.raises(KubeError, match="closed the connection within its answer") as caught:
            await seen(client)
    assert caught.value.unavailable


async def test_a_watch_that_is_refused() -> None:
    async with client_of(always(says(status(410, "Gone"), 410))) as (client, _server):
        with pytest.raises(KubeError) as caught:
            await seen(client)
    assert caught.value.code == 410


async def test_leaving_a_watch_ends_its_connection() -> None:
    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(HEAD + chunk(line("ADDED", CLAIM)))

    async with client_of(answer) as (client, server):
        with trio.move_on_after(60):
            await seen(client)
        await trio.testing.wait_all_tasks_blocked()
        assert server.open == 0
