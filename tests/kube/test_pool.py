"""Connections over time: kept, found closed, cut off by cancellation, waited for; and what a caller gets to see."""

import math
import socket
import struct
from contextlib import closing
from typing import Any

import pytest
import trio
import trio.testing

from csi_provisioner.kube.connection import Wire
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.transport import REQUESTS, Route, Transport
from tests.kube.wire import Asked, HangupError, always, in_memory, pool, reply, send, serving


@pytest.fixture
def anyio_backend() -> Any:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


async def ask(transport: Transport, method: str = "GET", **how: Any) -> bytes:
    return await (await send(transport, method, **how)).whole()


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

    async with in_memory(late) as (server, connect):
        transport = Transport(Route(("api.test", 443), open=connect))
        for _ in range(3):
            assert await ask(transport) == b"{}"
            await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(50):
            await ask(transport)
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


async def test_closed_before_an_answer_a_question_is_sent_again() -> None:
    async with serving(silent_after_first) as server, pool(server) as transport:
        await send(transport, target="/first")
        response = await send(transport, "GET", "/second")
        assert response.status == 200
    assert [asked.target for asked in server.asked] == ["/first", "/second", "/second"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_closed_before_an_answer_others_are_not_sent_again(method: str) -> None:
    async with serving(silent_after_first) as server, pool(server) as transport:
        await send(transport, target="/first")
        with pytest.raises(KubeError, match="without an answer"):
            await send(transport, method, "/second")
    assert [asked.target for asked in server.asked] == ["/first", "/second"]


async def test_a_new_connection_without_an_answer_is_an_error_at_once() -> None:
    async def never(_asked: Asked, _stream: trio.abc.Stream) -> None:
        raise HangupError

    async with serving(never) as server, pool(server) as transport:
        with pytest.raises(KubeError, match="without an answer"):
            await ask(transport)
    assert server.connections == 1


def reset(stream: trio.abc.Stream) -> None:
    """Ends the connection as a dying machine does, without a farewell of TCP."""
    assert isinstance(stream, trio.SocketStream)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise HangupError


@pytest.mark.parametrize(
    ("sent", "when"),
    [(b"", "before an answer"), (reply()[:20], "within the answer"), (reply()[:-1], "within the answer")],
)
async def test_a_connection_that_the_server_resets_is_an_error_that_says_when(sent: bytes, when: str) -> None:
    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(sent)
        await trio.sleep(1)
        reset(stream)

    async with serving(answer) as server, pool(server) as transport:
        with pytest.raises(KubeError, match=f"the connection broke {when}"):
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
        with closing(Transport(Route(("127.0.0.1", listener.socket.getsockname()[1])))) as transport:
            for body in (b"small", bytes(50_000_000)):
                response = await send(transport, "POST", body=body)
                assert response.status == 200
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
        response = await send(transport)
        response.close()
        response.close()
        await trio.testing.wait_all_tasks_blocked()
        assert server.open == 0
        (await send(transport)).close()


async def test_who_waits_for_a_connection_and_leaves_takes_none() -> None:
    async def slow(_asked: Asked, stream: trio.abc.Stream) -> None:
        await trio.sleep(5)
        await stream.send_all(reply())

    async with serving(slow) as server, pool(server, requests=1) as transport, trio.open_nursery() as nursery:
        nursery.start_soon(ask, transport)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(3) as scope:
            await ask(transport)
        assert scope.cancelled_caught
        assert await ask(transport) == b"{}"
    assert (server.connections, len(server.asked)) == (1, 2)


async def test_a_request_that_nobody_reads_can_be_cancelled() -> None:
    async def deaf(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        nursery.start_soon(trio.serve_listeners, deaf, [listener])
        transport = Transport(Route(("127.0.0.1", listener.socket.getsockname()[1])))
        with trio.move_on_after(3) as scope:
            await ask(transport, "POST", body=bytes(50_000_000))
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_without_threads_for_the_name_there_is_no_connection() -> None:
    """As where the pod may have no more of them: Python has no error of its own for that."""

    async def no_thread(_host: str, _port: int) -> Wire:
        raise RuntimeError("can't start new thread")

    with pytest.raises(KubeError, match="port 443: can't start new thread"):
        await ask(Transport(Route(("api.test", 443), open=no_thread)))


async def test_connecting_has_a_limit_of_its_own() -> None:
    async def never(_host: str, _port: int) -> Wire:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(KubeError, match="connecting took longer than 10 s") as caught:
        await ask(Transport(Route(("api.test", 443), open=never)))
    assert (caught.value.reason, trio.current_time()) == ("Timeout", 10)


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
        assert trio.current_time() - before == math.ceil(100 / REQUESTS)
    assert len(server.asked) == 100
    assert (server.connections, most) == (REQUESTS, REQUESTS)


async def test_streams_have_their_own_bound() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(head if asked.target == "/watch" else reply())

    async with serving(answer) as server, pool(server, requests=1, streams=2) as transport:
        watches = [await send(transport, target="/watch", stream=True) for _ in range(2)]
        assert await ask(transport) == b"{}"
        with trio.move_on_after(1) as scope:
            await send(transport, target="/watch", stream=True)
        assert scope.cancelled_caught
        watches[0].close()
        watches[0] = await send(transport, target="/watch", stream=True)
        for watch in watches:
            watch.close()
    assert server.connections == 3


async def test_a_port_where_nobody_listens_is_named() -> None:
    with pytest.raises(KubeError, match=r"cannot connect to 127.0.0.1 port 1: .*[Cc]onnection refused"):
        await ask(Transport(Route(("127.0.0.1", 1))))


async def test_a_name_that_no_host_can_have_is_an_error_of_the_request() -> None:
    with pytest.raises(KubeError, match=r"cannot connect to api\.\.example\.test port 1: .*label"):
        await ask(Transport(Route(("api..example.test", 1))))


async def test_a_closed_transport_keeps_nothing() -> None:
    gate = trio.Event()

    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await gate.wait()
        await stream.send_all(reply())

    async with serving(answer) as server:
        transport = Transport(Route(("127.0.0.1", server.port)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, transport)
            await trio.testing.wait_all_tasks_blocked()
            transport.close()
            gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert server.open == 0
        with pytest.raises(KubeError, match="closed"):
            await ask(transport)
