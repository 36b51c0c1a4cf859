"""What KubeClient takes for an answer: the object that was asked for, and nothing else, whatever the server says."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from csi_provisioner.kube.client import KubeClient, KubeError, Scope
from csi_provisioner.model.kubernetes import (
    CSIStorageCapacity,
    Event,
    Lease,
    ObjectMeta,
    PersistentVolume,
    PersistentVolumeClaim,
    Secret,
)
from tests.bad_answers import BAD, ITEM, LIST, Bad, said
from tests.kube.test_client import client_of, says
from tests.kube.wire import Asked, HangupError, always, gone, reply

CHANGE = {"metadata": {"finalizers": ["f"]}}
NEW = CSIStorageCapacity(metadata=ObjectMeta(generateName="made-", namespace="n"))


async def watched(client: KubeClient, kind: Any = PersistentVolumeClaim) -> list[str]:
    async with client.watch(kind, resource_version="7", timeout_seconds=300) as events:
        return [event.object.metadata.name async for event, _line in events]


Call = Callable[[KubeClient], Awaitable[object]]
CALLS: dict[str, Call] = {
    "get PersistentVolumeClaim n/c": lambda c: c.get(PersistentVolumeClaim, "c", "n"),
    "get Secret n/c": lambda c: c.get(Secret, "c", "n"),
    "get PersistentVolume c": lambda c: c.get(PersistentVolume, "c"),
    "get Lease n/c": lambda c: c.get_untyped(Lease, "c", "n"),
    "list PersistentVolumeClaim": lambda c: c.list_page(PersistentVolumeClaim),
    "list PersistentVolume": lambda c: c.list_page(PersistentVolume),
    "list CSIStorageCapacity in n": lambda c: c.list_page(CSIStorageCapacity, Scope("n")),
    "watch PersistentVolumeClaim": watched,
    "watch PersistentVolume": lambda c: watched(c, PersistentVolume),
    "create PersistentVolume c": lambda c: c.create(PersistentVolume, PersistentVolume(metadata=ObjectMeta(name="c"))),
    "create CSIStorageCapacity in n": lambda c: c.create(CSIStorageCapacity, NEW),
    "create Event n/c": lambda c: c.create(Event, Event(metadata=ObjectMeta(name="c", namespace="n")), "n"),
    "update PersistentVolumeClaim n/c": lambda c: c.put_untyped(PersistentVolumeClaim, ITEM),
    "patch PersistentVolume c": lambda c: c.patch(PersistentVolume, "c", CHANGE),
    "delete PersistentVolume c": lambda c: c.delete(PersistentVolume, "c"),
    "delete CSIStorageCapacity n/c": lambda c: c.delete(CSIStorageCapacity, "c", "n"),
    "get /apis/storage.k8s.io/v1": lambda c: c.kinds("/apis/storage.k8s.io/v1"),
    "get Pod n/c": lambda c: c.read("/api/v1", "Pod", "pods", "c", "n"),
}
# For these it is no bad answer: only volumes have a topology that we read, and a watch may end at once
SOUND = {
    "bad-topology": ("Claim", "Secret", "Lease", "get", "create CSI", "create Event", "delete"),
    "other-namespace": (),
    "empty-body": ("watch",),
}


@pytest.fixture
def anyio_backend() -> Any:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_bad_answer_is_an_error_of_its_request(bad: Bad) -> None:
    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(raw)
        if bad.cut:
            raise HangupError

    sound = next((kinds for name, kinds in SOUND.items() if bad is BAD[name]), ())
    async with client_of(answer) as (client, _server):
        for doing, call in CALLS.items():
            if any(kind in doing for kind in sound):
                continue
            raw = bad.raw
            with pytest.raises(KubeError) as caught:
                await call(client)
            assert str(caught.value).startswith(f"{doing}: ")
            assert (caught.value.code, caught.value.not_found) == (bad.code, False)
        raw, bad = says({"metadata": {"name": "c", "uid": "5"}}), Bad(b"")
        assert (await client.get(PersistentVolume, "c")).metadata.uid == "5"


# ---- lists


BROKEN_ITEMS = {
    "wrong-type": {"metadata": {"name": "odd", "namespace": "n"}, "spec": {"resources": {"requests": {"storage": 5}}}},
    "wrong-metadata": {"metadata": {"name": "odd", "namespace": "n", "labels": {"a": 5}}},
}


@pytest.mark.parametrize("broken", BROKEN_ITEMS.values(), ids=BROKEN_ITEMS)
async def test_one_broken_object_does_not_hide_the_others(broken: object, capsys: pytest.CaptureFixture[str]) -> None:
    async with client_of(always(said(LIST | {"items": [ITEM, broken, ITEM]}))) as (client, _server):
        for _ in range(2):
            page = await client.list_page(PersistentVolumeClaim)
    assert [claim.metadata.name for claim in page.items] == ["c", "c"]
    assert list(page.unreadable) == ["n/odd"]
    [said_once] = [line for line in capsys.readouterr().err.splitlines() if "cannot be read" in line]
    assert 'kind="PersistentVolumeClaim" objects="n/odd" count=1 err="Expected `str`, got `int`' in said_once


@pytest.mark.parametrize(
    "item",
    [
        None,
        5,
        {},
        {"metadata": {}},
        {"metadata": {"name": "", "namespace": "n"}},
        {"metadata": {"name": "nowhere"}},
        {"kind": "ConfigMap", "metadata": {"name": "other", "namespace": "n"}},
    ],
    ids=["null", "number", "nothing", "no-name", "empty-name", "no-namespace", "other-kind"],
)
async def test_what_is_no_such_object_is_left_out(item: object) -> None:
    async with client_of(always(said(LIST | {"items": [item, ITEM]}))) as (client, _server):
        page = await client.list_page(PersistentVolumeClaim)
    assert [claim.metadata.name for claim in page.items] == ["c"]
    assert list(page.unreadable) == [""]


async def test_text_that_is_no_utf_8_spoils_its_object_only() -> None:
    items = b'[{"metadata":{"name":"\xff","namespace":"n"}},{"metadata":{"name":"c","namespace":"n"}}]'
    body = b'{"metadata":{"resourceVersion":"9"},"items":%b}' % items
    async with client_of(always(reply(200, body))) as (client, _server):
        page = await client.list_page(PersistentVolumeClaim)
    assert [claim.metadata.name for claim in page.items] == ["c"]


async def test_a_page_that_leads_to_itself_is_refused() -> None:
    body = {"metadata": {"resourceVersion": "9", "continue": "t"}, "items": []}
    async with client_of(always(said(body))) as (client, _server):
        await client.list_page(PersistentVolumeClaim)
        with pytest.raises(KubeError, match="its next page is this one again"):
            await client.list_page(PersistentVolumeClaim, continue_token="t")


async def test_no_answer_keeps_anybody_waiting_for_years() -> None:
    async with client_of(always(reply(429, Retry_After="9" * 400))) as (client, _server):
        with pytest.raises(KubeError) as caught:
            await client.get(PersistentVolume, "c")
    assert caught.value.floor == 3600


# ---- names


ASTRAY = ["", ".", "..", "../../other/secrets/s", "a/b", "a%2fb", "a?x=1", "a#b", "a\\b", "a b", "a\nb", "ä"]


@pytest.mark.parametrize("name", ASTRAY)
async def test_a_name_that_leads_elsewhere_is_not_asked_for(name: str) -> None:
    calls: list[Call] = [
        lambda c: c.get(PersistentVolume, name),
        lambda c: c.get_untyped(PersistentVolume, name),
        lambda c: c.delete(PersistentVolume, name),
        lambda c: c.patch(PersistentVolume, name, CHANGE),
        lambda c: c.put_untyped(PersistentVolume, {"metadata": {"name": name}}),
        lambda c: c.get(PersistentVolumeClaim, name, "n"),
        lambda c: c.get(PersistentVolumeClaim, "c", name),
        lambda c: c.create(CSIStorageCapacity, CSIStorageCapacity(metadata=ObjectMeta(name="c")), name),
        lambda c: c.read("/api/v1", "Pod", "pods", name, "n"),
        lambda c: c.read("/api/v1", "Pod", "pods", "c", name),
        lambda c: c.kinds(f"/apis/{name}/v1"),
    ]
    if name:  # none is all of them
        calls.append(lambda c: c.list_page(CSIStorageCapacity, Scope(name)))
    if "/" in name and ".." not in name:
        calls.pop(-2)  # to discovery it is two segments
    async with client_of(always(reply())) as (client, server):
        for call in calls:
            with pytest.raises(KubeError, match="cannot be a part of a URL"):
                await call(client)
    assert server.asked == []


async def test_an_object_without_its_namespace_is_not_asked_for() -> None:
    async with client_of(always(reply())) as (client, server):
        with pytest.raises(KubeError, match="cannot be a part of a URL"):
            await client.delete(PersistentVolumeClaim, "c")
    assert server.asked == []


# ---- 404


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (gone("persistentvolumeclaims", "c"), True),
        (gone("persistentvolumeclaims", "other"), False),
        (gone("persistentvolumes", "c"), False),
        (gone("namespaces", "n"), False),
        (gone("persistentvolumeclaims", "c") | {"reason": "Unknown"}, False),
        (gone("persistentvolumeclaims", "c") | {"details": {}}, False),
        (gone("persistentvolumeclaims", "c") | {"details": None}, False),
        (gone("persistentvolumeclaims", "c") | {"kind": "NoStatus"}, False),
    ],
    ids=["this", "other-name", "other-kind", "namespace", "other-reason", "no-details", "null-details", "no-status"],
)
async def test_gone_is_what_the_api_server_itself_says_of_this_object(status: Any, found: bool) -> None:
    async with client_of(always(reply(404, json.dumps(status).encode()))) as (client, _server):
        with pytest.raises(KubeError) as caught:
            await client.delete(PersistentVolumeClaim, "c", "n")
    assert caught.value.not_found is found
