"""What the embedded API makes of bytes: requests in any pieces, answers for clients old and new, and none for noise."""

import pytest
import trio
import trio.testing

from sandbox.api.server import ApiServer


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


LIST = b"/api/v1/namespaces/default/configmaps"


async def _talk(server: ApiServer, *pieces: bytes) -> bytes:
    """All that the server says until it closes the connection."""
    async with await trio.open_tcp_stream(server.host, server.port) as stream:
        for piece in pieces:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            return b"".join([data async for data in stream])


async def test_a_request_may_come_in_pieces_and_another_right_behind_it(server: ApiServer) -> None:
    body = b'{"metadata":{"name":"a%s"}}'
    first = b"POST %s?dryRun=All&fieldManager= HTTP/1.1\r\nHost: x\r\nContent-Length: 25\r\n\r\n" % LIST + body % b""
    second = first.replace(b"dryRun=All&", b"").replace(b"Host: x", b"Host: x\r\nConnection: close")
    said = await _talk(server, first[:20], first[20:50], first[50:-3], first[-3:] + second)
    assert said.count(b"HTTP/1.1 201 Created\r\n") == 2
    assert said.count(b"connection: close\r\n") == 1
    assert [call.verb for call in server.calls] == ["create", "create"]
    assert server.objects.find("ConfigMap", "a", "default") is not None


async def test_the_answer_to_head_has_no_body(server: ApiServer) -> None:
    said = await _talk(server, b"HEAD %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % LIST)
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: " in said
    assert said.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "noise",
    [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"],
    ids=["TLS", "h2c"],
)
async def test_what_is_no_http_is_said_and_ends_its_connection(server: ApiServer, noise: bytes) -> None:
    assert (await _talk(server, noise)).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_an_old_client_gets_a_stream_without_chunks(server: ApiServer) -> None:
    server.objects.create("ConfigMap", {"metadata": {"name": "a"}}, "default")
    said = await _talk(server, b"GET %s?watch=1&timeoutSeconds=1 HTTP/1.0\r\n\r\n" % LIST)
    head, _, lines = said.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert lines.startswith(b'{"type":"ADDED","object":{')
    assert lines.endswith(b"}\n")
