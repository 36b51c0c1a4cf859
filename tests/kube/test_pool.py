"""Connections over time: kept, found closed, cut off by cancellation, waited for; and what a caller gets to see."""

import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from csi_provisioner.kube.transport import Transport
from tests.kube.wire import Asked, HangupError, always, in_memory, pool, reply, request, serving, whole


@pytest.fixture
def anyio_backend() -> Any:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


async def ask(transport: Transport, method: str = "GET", **extensions: object) -> bytes:
    return await whole(await transport.handle_async_request(request(method, **extensions)))


async def test_a_connection_is_kept_for_ever() -> None:
    async with serving(always(reply())) as server, pool(server) as transport:
        for _ in range(3):
            await ask(transport)
            await trio.sleep(3600)
    assert server.connections == 1


@pytest.mark.parametrize("closes", [False, True])
async def test_connections_need_no_sockets(closes: bool) -> None:
    """How one is opened is said from outside."""

    async def late(_asked: Asked, stream: trio.abc.Stream) -> None:
        await trio.sleep(100)
        await stream.send_all(reply())
        if closes:
            raise HangupError

    async with in_memory(late) as (server, connect), Transport("api.test", 443, open=connect) as transport:
        for _ in range(3):
            assert await ask(transport) == b"{}"
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(httpx2.ReadTimeout):
            await ask(transport, timeout={"read": 50})
    assert (trio.current_time(), server.connections) == (350, 4 if closes else 1)


async def test_a_connection_found_closed_is_replaced_without_a_word() -> None:
    async def once(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(reply())
        raise HangupError

    async with serving(once) as server, pool(server) as transport:
        for method in ("GET", "POST", "POST"):
            assert await ask(transport, method) == b"{}"
            await trio.testing.wait_all_tasks_blocked()
    assert server.connections == 3


async def test_all_kept_connections_may_be_closed() -> None:
    """As when the server has been restarted."""
    gate = trio.Event()

    async def once(_asked: Asked, stream: trio.abc.Stream) -> None:
        await gate.wait()
        await stream.send_all(reply())
        raise HangupError

    async with serving(once) as server, pool(server) as transport, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask, transport)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert await ask(transport, "POST") == b"{}"
        assert server.connections == 6


async def silent_after_first(asked: Asked, stream: trio.abc.Stream) -> None:
    """The server that closes a kept connection just when the next request is on its way."""
    if asked.target == "/first" or asked.connection > 0:
        await stream.send_all(reply())
        return
    raise HangupError


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_closed_before_an_answer_safe_methods_are_sent_again(method: str) -> None:
    async with serving(silent_after_first) as server, pool(server) as transport:
        await transport.handle_async_request(request(target="/first"))
        response = await transport.handle_async_request(request(method, "/second"))
        assert response.status_code == 200
    assert [asked.target for asked in server.asked] == ["/first", "/second", "/second"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_closed_before_an_answer_others_are_not_sent_again(method: str) -> None:
    async with serving(silent_after_first) as server, pool(server) as transport:
        await transport.handle_async_request(request(target="/first"))
        with pytest.raises(httpx2.RemoteProtocolError, match="without an answer"):
            await transport.handle_async_request(request(method, "/second"))
    assert [asked.target for asked in server.asked] == ["/first", "/second"]


async def test_a_new_connection_without_an_answer_is_an_error_at_once() -> None:
    async def never(_asked: Asked, _stream: trio.abc.Stream) -> None:
        raise HangupError

    async with serving(never) as server, pool(server) as transport:
        with pytest.raises(httpx2.RemoteProtocolError, match="without an answer"):
            await ask(transport)
    assert server.connections == 1


def reset(stream: trio.abc.Stream) -> None:
    """Ends the connection as a dying machine does, without a farewell of TCP."""
    assert isinstance(stream, trio.SocketStream)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise HangupError


@pytest.mark.parametrize(
    ("sent", "error"),
    [(b"", httpx2.RemoteProtocolError), (reply()[:20], httpx2.ReadError), (reply()[:-1], httpx2.ReadError)],
)
async def test_a_connection_reset_by_the_server(sent: bytes, error: type[Exception]) -> None:
    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(sent)
        await trio.sleep(1)
        reset(stream)

    async with serving(answer) as server, pool(server) as transport:
        with pytest.raises(error, match="the connection broke"):
            await ask(transport, "POST")


async def test_a_request_the_server_never_had_whole_is_sent_again() -> None:
    """Whatever its method: what was cut cannot have been acted on."""
    heads = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal heads
        async with stream:
            async for data in stream:
                if not data.startswith(b"POST"):
                    continue
                heads += 1
                if heads == 2:  # the second on the kept connection: hung up on while its body is on the way
                    return
                await stream.send_all(reply())

    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        async with Transport("127.0.0.1", listener.socket.getsockname()[1]) as transport:
            for body in (b"small", bytes(50_000_000)):
                response = await transport.handle_async_request(request("POST", body=body))
                assert response.status_code == 200
        nursery.cancel_scope.cancel()
    assert heads == 3


@pytest.mark.parametrize("when", ["before-the-head", "in-the-head", "in-the-body"])
async def test_a_cancelled_request_ends_its_connection(when: str) -> None:
    sent = {"before-the-head": 0, "in-the-head": 20, "in-the-body": len(reply()) - 1}[when]

    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(reply()[:sent] if asked.connection == 0 else reply())

    async with serving(answer) as server, pool(server, requests=1) as transport:
        with trio.move_on_after(5) as scope:
            await ask(transport)
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert server.open == 0
        assert await ask(transport) == b"{}"
    assert server.connections == 2


async def test_an_answer_that_is_not_read_ends_its_connection() -> None:
    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(reply()[:-1])

    async with serving(answer) as server, pool(server, requests=1) as transport:
        response = await transport.handle_async_request(request())
        await response.aclose()
        await response.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert server.open == 0
        await (await transport.handle_async_request(request())).aclose()


@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        ("read", httpx2.ReadTimeout, "waiting for the answer took longer than 3 s"),
        ("pool", httpx2.PoolTimeout, "waiting for a free connection took longer than 3 s"),
    ],
)
async def test_limits(limit: str, error: type[Exception], message: str) -> None:
    async def never(_asked: Asked, _stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with serving(never) as server, pool(server, requests=1) as transport, trio.open_nursery() as nursery:
        if limit == "pool":
            nursery.start_soon(ask, transport)
            await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        with pytest.raises(error, match=message):
            await transport.handle_async_request(request(timeout={limit: 3.0}))
        assert trio.current_time() - before == 3
        nursery.cancel_scope.cancel()


async def test_the_write_limit() -> None:
    async def deaf(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        nursery.start_soon(trio.serve_listeners, deaf, [listener])
        async with Transport("127.0.0.1", listener.socket.getsockname()[1]) as transport:
            with pytest.raises(httpx2.WriteTimeout):
                await transport.handle_async_request(request("POST", body=bytes(50_000_000), timeout={"write": 3.0}))
        nursery.cancel_scope.cancel()


async def test_a_hundred_at_once_share_the_pool() -> None:
    at_once = most = 0

    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await trio.sleep(1)
        at_once -= 1
        await stream.send_all(reply())

    async with serving(answer) as server, pool(server) as transport:
        before = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask, transport)
        assert trio.current_time() - before == 7  # 100 / 16, rounded up
    assert len(server.asked) == 100
    assert (server.connections, most) == (16, 16)


async def test_streams_have_their_own_bound() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(head if asked.target == "/watch" else reply())

    async with serving(answer) as server, pool(server, requests=1, streams=2) as transport:
        watches = [await transport.handle_async_request(request(target="/watch", stream=True)) for _ in range(2)]
        assert await ask(transport) == b"{}"
        with pytest.raises(httpx2.PoolTimeout):
            await transport.handle_async_request(request(target="/watch", stream=True, timeout={"pool": 1.0}))
        await watches[0].aclose()
        watches[0] = await transport.handle_async_request(request(target="/watch", stream=True))
        for watch in watches:
            await watch.aclose()
    assert server.connections == 3


async def test_nobody_listens() -> None:
    async with Transport("127.0.0.1", 1) as transport:
        with pytest.raises(httpx2.ConnectError, match=r"cannot connect to 127.0.0.1 port 1: .*[Cc]onnection refused"):
            await ask(transport)


async def test_what_can_be_no_host() -> None:
    async with Transport("api..example.test", 1) as transport:
        with pytest.raises(httpx2.ConnectError, match=r"cannot connect to api\.\.example\.test port 1: .*label"):
            await ask(transport)


async def test_a_closed_transport_keeps_nothing() -> None:
    gate = trio.Event()

    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await gate.wait()
        await stream.send_all(reply())

    async with serving(answer) as server:
        transport = Transport("127.0.0.1", server.port)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, transport)
            await trio.testing.wait_all_tasks_blocked()
            await transport.aclose()
            gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert server.open == 0
        with pytest.raises(httpx2.ConnectError, match="closed"):
            await ask(transport)


async def test_against_hypercorn() -> None:
    """A server that is not ours: hypercorn, through httpx2's own client on our transport."""

    async def endpoint(asked: Request) -> StreamingResponse:
        body = await asked.body() * 1000

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield body

        return StreamingResponse(chunks())

    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    config = Config()
    config.bind = ["127.0.0.1:0"]
    async with trio.open_nursery() as nursery:
        [bound] = await nursery.start(serve, app, config)
        port = int(bound.rpartition(":")[2])
        async with httpx2.AsyncClient(transport=Transport("127.0.0.1", port)) as client:
            for _ in range(3):
                response = await client.post(f"http://127.0.0.1:{port}/", content=b"0123456789")
                assert response.content == b"0123456789" * 20_000
        nursery.cancel_scope.cancel()
