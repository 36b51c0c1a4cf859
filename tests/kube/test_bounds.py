"""Nothing that the API server sends is read without an end. In real time: here the kernel's buffers are full."""

from typing import Any

import pytest
import trio
import trio.testing

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim
from tests.bad_answers import ITEM
from tests.kube.test_client import chunk, client_of, line
from tests.kube.wire import Asked


async def watched(client: KubeClient) -> int:
    async with client.watch(PersistentVolumeClaim, resource_version="7", timeout_seconds=300) as events:
        return len([event async for event in events])


def endless(head: bytes, more: bytes) -> Any:
    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(head)
        while True:
            await stream.send_all(more)

    return answer


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MIB = b"x" * (1 << 20)


@pytest.mark.parametrize(
    ("head", "more", "reason"),
    [
        (CHUNKED, chunk(b" " * (1 << 20)), "the answer is larger than 64 MiB (TooLarge)"),
        (b"HTTP/1.1 502 Bad\r\n\r\n", MIB, "the answer is larger than 64 MiB (TooLarge)"),
        (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n" * 1000, "the head of the answer is longer than 64 KiB"),
        (b"HTTP/1.1 200 OK\r\nX-More: ", MIB, "the head of the answer is longer than 64 KiB"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, "the head of the answer is longer than 64 KiB"),
        (CHUNKED + chunk(b"{}") + b"0\r\n", b"X-More: 1\r\n" * 1000, "the head of the answer is longer than 64 KiB"),
        (CHUNKED + b"2;", MIB, "the head of the answer is longer than 64 KiB"),
    ],
    ids=["body", "error", "fields", "field", "interim", "trailers", "extension"],
)
async def test_an_answer_without_end_is_an_error(head: bytes, more: bytes, reason: str) -> None:
    async with client_of(endless(head, more)) as (client, server):
        with pytest.raises(KubeError) as caught:
            await client.get(PersistentVolume, "c")
        assert reason in str(caught.value)
        await trio.testing.wait_all_tasks_blocked()
        assert server.open == 0


async def test_an_event_without_end_is_an_error() -> None:
    async with client_of(endless(CHUNKED, chunk(MIB))) as (client, _server):
        with pytest.raises(KubeError, match=r"watch PersistentVolumeClaim: an event is larger than 8 MiB"):
            await watched(client)


async def test_a_watch_may_be_as_long_as_it_likes() -> None:
    """The bounds are of a head and of an event: what stands between chunks does not add up."""

    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(CHUNKED + chunk(line("MODIFIED", ITEM)) * 20_000 + b"0\r\n\r\n")

    async with client_of(answer) as (client, _server):
        assert await watched(client) == 20_000


async def test_a_page_that_is_too_large_is_asked_for_with_half_as_many_objects() -> None:
    async with client_of(endless(CHUNKED, chunk(b" " * (1 << 20)))) as (client, server):
        for _ in range(3):
            with pytest.raises(KubeError, match="TooLarge"):
                await client.list_page(PersistentVolumeClaim)
    assert [asked.target.partition("limit=")[2] for asked in server.asked] == ["500", "250", "125"]
