"""Exchanges on the wire: what is sent, and answers in every framing, whole, cut and split anywhere."""

import itertools
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csi_provisioner.kube.errors import KubeError
from tests.kube.wire import Asked, HangupError, always, pool, reply, send, serving

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def anyio_backend() -> Any:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


async def test_a_request_is_sent_with_its_target_headers_and_body() -> None:
    async with serving(always(reply(201, b"made", X_Extra="1"))) as server, pool(server) as transport:
        head = b"Host: api.test\r\nX-Name: value\r\nContent-Length: 4\r\n"
        answer = await transport.exchange("POST", "/a%20b?c=d", head, b"body")
        assert (answer.status, await answer.whole()) == (201, b"made")
        assert answer.headers[b"x-extra"] == b"1"
    [asked] = server.asked
    assert (asked.method, asked.target, asked.body) == ("POST", "/a%20b?c=d", b"body")
    assert asked.headers["host"] == "api.test"
    assert asked.headers["x-name"] == "value"


@pytest.mark.parametrize(
    ("raw", "body", "reused"),
    [
        pytest.param(reply(200, b"abc"), b"abc", True, id="content-length"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde", True, id="chunked"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", b"abc", True, id="chunked-with-trailer"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", True, id="204"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b"", True, id="304"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + reply(200, b"x"), b"x", True, id="100-before"),
        pytest.param(b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" * 2 + reply(200, b"x"), b"x", True, id="103-twice"),
        pytest.param(reply(200, b"x", Connection="close"), b"x", False, id="connection-close"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x", False, id="http-1.0"),
        pytest.param(reply(200, b"x") + b"surplus", b"x", False, id="surplus-bytes"),
        pytest.param(reply(200, b"x") + reply(200, b"y"), b"x", False, id="surplus-answer"),
    ],
)
async def test_an_answer_ends_where_its_framing_says_and_its_connection_is_kept_if_it_may_be(
    raw: bytes, body: bytes, reused: bool
) -> None:
    async with serving(always(raw)) as server, pool(server) as transport:
        for _ in range(2):
            response = await send(transport)
            assert await response.whole() == body
            await trio.testing.wait_all_tasks_blocked()
    assert server.connections == (1 if reused else 2)


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await stream.send_all(b"def")
        raise HangupError

    async with serving(answer) as server, pool(server) as transport:
        assert await (await send(transport)).whole() == b"abcdef"


BROKEN = {
    "content-length": reply(200, b"0123456789"),
    "chunked": CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" + reply(200, b"0123456789"),
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
async def test_an_answer_cut_at_any_byte_is_an_error(raw: bytes) -> None:
    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(raw[: int(asked.target[1:])])
        raise HangupError

    async with serving(answer) as server, pool(server, requests=1) as transport:
        for length in range(len(raw)):
            with pytest.raises(KubeError):  # noqa: PT012 - head and body may each be what is broken
                response = await send(transport, target=f"/{length}")
                await response.whole()
        assert await (await send(transport, target=f"/{len(raw)}")).whole()
    assert server.connections == len(raw) + 1


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
async def test_an_answer_may_come_byte_by_byte(raw: bytes) -> None:
    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        for i in range(len(raw)):
            await stream.send_all(raw[i : i + 1])
            await trio.sleep(0.9)

    async with serving(answer) as server, pool(server) as transport:
        for _ in range(2):
            response = await send(transport)
            assert await response.whole() in (b"0123456789", b"abc")
    assert server.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9\r\n", id="another-protocol"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", id="upgrade"),
        pytest.param(CHUNKED + b"zz\r\n", id="bad-chunk-size"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", id="two-lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", id="both-lengths"),
    ],
)
async def test_what_is_not_http_is_an_error_and_ends_the_connection(raw: bytes) -> None:
    async with serving(always(raw)) as server, pool(server, requests=1) as transport:
        for _ in range(2):
            with pytest.raises(KubeError):
                await (await send(transport)).whole()
    assert server.connections == 2


@given(chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6), cuts=st.lists(st.integers(0, 400), max_size=8))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_chunked_answer_may_be_split_anywhere(chunks: list[bytes], cuts: list[int]) -> None:
    raw = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]

    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        for start, end in itertools.pairwise(edges):
            if start < end:
                await stream.send_all(raw[start:end])
                await trio.sleep(1)

    async def exchange() -> None:
        async with serving(answer) as server, pool(server) as transport:
            for _ in range(2):
                response = await send(transport)
                assert await response.whole() == b"".join(chunks)
        assert server.connections == 1

    trio.run(exchange, clock=trio.testing.MockClock(autojump_threshold=0))
