"""How much and how long a client may, how many there are, and what fails, on virtual time (process.md 7)."""

import errno
import os
import socket
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from csi_provisioner.diagnostics import server as bounds
from csi_provisioner.diagnostics.server import Request, Response, Server, in_turn
from tests.diagnostics.conversation import CLOSE, GET, HOST, POST, Client, answer_to, connected, page
from tests.embedded import VIRTUAL


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
def server() -> Server:
    return Server({"/m": page("well\n")})


def head_of(size: int) -> bytes:
    start = b"GET /m HTTP/1.1\r\n" + HOST + CLOSE + b"X: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize(("size", "status"), [(bounds.HEAD, 200), (bounds.HEAD + 1, 431), (1_000_000, 431)])
@pytest.mark.parametrize("piece", [1_000_000, 1000], ids=["at once", "in pieces"])
async def test_a_head_has_a_size(server: Server, size: int, status: int, piece: int) -> None:
    head = head_of(size)
    client = await answer_to(server, *(head[start : start + piece] for start in range(0, size, piece)))
    assert client.statuses() == [status]


@pytest.mark.parametrize(("sent", "statuses"), [(b"", []), (GET[:9], [408])], ids=["nothing", "a part"])
async def test_a_head_has_its_time(server: Server, sent: bytes, statuses: list[int]) -> None:
    since = trio.current_time()
    client = await answer_to(server, sent)
    assert client.statuses() == statuses
    assert client.closed_at == since + bounds.HEAD_TIME


async def test_a_head_byte_by_byte_has_no_more_time(server: Server) -> None:
    since = trio.current_time()
    client = await answer_to(server, *(bytes([byte]) for byte in GET), pause=1)
    assert client.statuses() == [408]
    assert client.closed_at == since + bounds.HEAD_TIME


async def test_between_requests_there_is_more_time(server: Server) -> None:
    since = trio.current_time()
    client = await answer_to(server, GET, GET, pause=bounds.IDLE_TIME - 1)
    assert client.statuses() == [200, 200]
    assert client.closed_at == since + 2 * bounds.IDLE_TIME - 1


@pytest.mark.parametrize("sent", [(GET, GET[:9]), (GET + GET[:9],)], ids=["late", "pipelined"])
async def test_a_later_head_has_its_time_from_its_first_byte(server: Server, sent: tuple[bytes, ...]) -> None:
    since = trio.current_time()
    client = await answer_to(server, *sent, pause=50)
    assert client.statuses() == [200, 408]
    assert client.closed_at == since + 50 * (len(sent) - 1) + bounds.HEAD_TIME


async def test_a_page_has_all_the_time_it_needs() -> None:
    async def slow(_request: Request) -> Response:
        await trio.sleep(3000)
        return Response("done")

    server = Server({"/m": slow})
    client = await answer_to(server, GET, b"GET", half_close=True)
    assert client.taken.count(b"done") == 1


async def wait_until_gone(request: Request) -> Response:
    with trio.move_on_after(1000):
        await request.gone()
    return Response("done")


async def test_what_is_sent_while_a_page_is_made_waits_in_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server({"/m": wait_until_gone})
    client = await answer_to(server, GET, GET, bytes(1_000_000))
    assert client.statuses() == [200, 200, 400]
    assert capsys.readouterr().err == ""


async def test_a_page_learns_of_a_connection_that_was_reset(capsys: pytest.CaptureFixture[str]) -> None:
    async def reset() -> None:
        raise trio.BrokenResourceError

    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(GET)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Server({"/m": wait_until_gone}).handle, theirs)
        await trio.testing.wait_all_tasks_blocked()
        theirs.receive_stream.receive_some_hook = reset
        since = trio.current_time()
        await ours.send_all(b"G")
    assert trio.current_time() - since < bounds.HEAD_TIME
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("pause", [9, 11])
async def test_who_takes_nothing_for_too_long_is_given_up(pause: float) -> None:
    size = 4 * bounds.PIECE
    server = Server({"/m": page("#" * size)})
    ours, theirs = trio.testing.lockstep_stream_pair()
    taken = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, theirs)
        await ours.send_all(GET)
        await trio.sleep(pause)
        while data := await ours.receive_some(bounds.PIECE):
            taken += data
            await trio.sleep(pause)
    assert (taken.count(b"#") == size) == (pause < bounds.STALL_TIME)


# ---- too many


async def test_one_too_many_takes_the_place_of_the_one_that_has_waited_longest(server: Server) -> None:
    async with trio.open_nursery() as nursery:
        clients = [await _in(nursery, server) for _ in range(bounds.CONNECTIONS - 1)]
        await clients[0].send(GET)  # the first to come, and the last but one to wait
        clients.append(await _in(nursery, server))
        for gone in ([1], [1, 2]):
            late = await _in(nursery, server, GET)
            assert late.statuses() == [200]
            assert [index for index, client in enumerate(clients) if client.closed_at is not None] == gone
        nursery.cancel_scope.cancel()


async def test_whoever_is_being_answered_goes_last() -> None:
    async def slow(_request: Request) -> Response:
        await trio.sleep_forever()
        return Response("done")

    server = Server({"/m": page("well\n"), "/slow": slow})
    ask_slow = GET.replace(b"/m", b"/slow")
    async with trio.open_nursery() as nursery:
        takes_nothing, theirs = trio.testing.lockstep_stream_pair()
        nursery.start_soon(server.handle, theirs)
        await takes_nothing.send_all(GET)
        waiting = await _in(nursery, server, GET)
        busy = [await _in(nursery, server, ask_slow) for _ in range(bounds.CONNECTIONS - 2)]
        assert waiting.closed_at is None
        busy.append(await _in(nursery, server, ask_slow))
        assert waiting.closed_at is not None
        with trio.fail_after(1):
            busy.append(await _in(nursery, server, ask_slow))
        with pytest.raises(trio.BrokenResourceError):
            await takes_nothing.send_all(b"G")
        with trio.move_on_after(5) as limit:
            await server.room()
        assert limit.cancelled_caught
        assert [client.closed_at for client in busy] == [None] * bounds.CONNECTIONS
        nursery.cancel_scope.cancel()


async def test_who_has_just_come_is_read_before_he_goes(server: Server) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(bounds.CONNECTIONS):
            await server.room()
            nursery.start_soon(server.handle, trio.testing.memory_stream_pair()[0])
            await trio.testing.wait_all_tasks_blocked()
        since = trio.current_time()
        await server.room()
        assert trio.current_time() - since == pytest.approx(bounds.SPARED, abs=bounds.ROOM_PAUSE)
        nursery.cancel_scope.cancel()


async def test_among_so_many_nobody_keeps_his_place(server: Server) -> None:
    async with trio.open_nursery() as nursery:
        clients = [await _in(nursery, server) for _ in range(bounds.CONNECTIONS)]
        await clients[0].send(GET + GET)
        await clients[0].stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert clients[0].statuses() == [200]
        assert clients[0].closed_at is not None
        await clients[1].send(GET + GET)
        await trio.testing.wait_all_tasks_blocked()
        assert clients[1].statuses() == [200, 200]
        nursery.cancel_scope.cancel()


async def test_who_has_gone_takes_no_place(server: Server) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(bounds.CONNECTIONS):
            await answer_to(server, half_close=True)
        clients = [await _in(nursery, server) for _ in range(bounds.CONNECTIONS)]
        late = await _in(nursery, server)
        assert [client.closed_at is None for client in [*clients, late]].count(False) == 1
        nursery.cancel_scope.cancel()


async def _in(nursery: trio.Nursery, server: Server, sent: bytes = b"") -> Client:
    """One that has come, a while after those before."""
    await trio.sleep(0.01)
    await server.room()
    ours, theirs = trio.testing.memory_stream_pair()
    client = Client(ours)
    nursery.start_soon(server.handle, theirs)
    nursery.start_soon(client.take)
    await client.send(sent)
    await trio.testing.wait_all_tasks_blocked()
    return client


async def test_pages_are_made_a_turn_of_the_loop_each() -> None:
    """Whoever asks without end on every connection does not hold up the lease."""

    class Turns(trio.abc.Instrument):
        count = 0

        def before_io_wait(self, timeout: float) -> None:
            self.count += 1

    turns = Turns()
    made = []

    async def noting(_request: Request) -> Response:
        made.append(turns.count)
        return Response("well")

    server = Server({"/m": in_turn(noting)})
    trio.lowlevel.add_instrument(turns)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(partial(answer_to, server, GET, half_close=True))
    trio.lowlevel.remove_instrument(turns)
    assert len(made) == 20
    assert len(set(made)) == 20


# ---- what fails


async def test_a_page_that_fails_is_told_and_serving_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(_request: Request) -> Response:
        raise RuntimeError("this page is broken")

    server = Server({"/m": page("well\n"), "/broken": broken})
    client = await answer_to(server, GET.replace(b"/m", b"/broken"), GET, half_close=True)
    assert client.statuses() == [500, 200]
    assert b"this page is broken" not in client.taken
    log = capsys.readouterr().err
    assert log.count("An HTTP page failed") == 1
    assert "this page is broken" in log


async def test_an_accept_that_fails_is_told_once_and_serving_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    class Listener(socket.socket):
        """Out of descriptors for a while."""

        failures = 3

        def accept(self) -> tuple[socket.socket, Any]:
            self.failures -= 1
            if self.failures >= 0:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().accept()

    with Listener() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Server({"/m": page("well")}).serve, listener)
            async with await trio.open_tcp_stream(*listener.getsockname()) as client:
                await client.send_all(GET)
                assert await client.receive_some() != b""
            nursery.cancel_scope.cancel()
    assert listener.failures < 0
    assert capsys.readouterr().err.count("Too many open files") == 1


async def test_a_defect_of_one_connection_is_told_and_the_others_go_on(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("not to be expected")

    _, theirs = trio.testing.memory_stream_pair()
    theirs.receive_stream.receive_some_hook = fail
    async with connected(server) as other:
        await server.handle(theirs)
        await other.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        assert other.statuses() == [200]
    assert capsys.readouterr().err.count("A defect ended an HTTP connection") == 1


async def test_the_clients_own_words_are_not_in_the_log(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    await answer_to(server, b"GET /m HTTP/1.1\r\nAuthorization hunter2\r\n\r\n")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("cut", [b"", GET, GET[:9], POST + b"Content-Length: 300000\r\n\r\n"])
async def test_who_hangs_up_is_forgotten(server: Server, cut: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(cut)
    await ours.aclose()
    with trio.fail_after(1):
        await server.handle(theirs)
    assert capsys.readouterr().err == ""
