"""What the HTTP server understands and answers, on memory streams (process.md 7)."""

import gzip

import pytest
import trio
import trio.testing

from csi_provisioner.diagnostics.server import Server
from tests.diagnostics.conversation import CLOSE, GET, HOST, NOT_FOUND, POST, answer_to, page
from tests.embedded import VIRTUAL


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
def server() -> Server:
    return Server({"/m": page("well\n")})


# ---- what is spoken


@pytest.mark.parametrize(
    ("version", "status"),
    [("1.0", 200), ("1.1", 200), ("2.0", 505), ("3.7", 505), ("1.2", 505), ("0.9", 505)],
)
async def test_only_the_versions_that_are_spoken(server: Server, version: str, status: int) -> None:
    client = await answer_to(server, f"GET /m HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert client.statuses() == [status]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PRI"])
async def test_another_version_is_told_and_the_connection_ends(server: Server, method: bytes) -> None:
    client = await answer_to(server, method + b" * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
    assert client.statuses() == [505]
    assert b"Connection: close" in client.taken
    assert client.taken.endswith(b"\r\n\r\n") == (method == b"HEAD")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /m HTTP/1.1\r\n\r\n", 400),
        (b"GET /m\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /m HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /m HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /m HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /m HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /m HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
    ids=["no host", "0.9", "empty", "TLS", "two hosts", "bad header", "bad target", "lengths", "negative", "encoding"],
)
async def test_a_breach_is_answered_and_ends_the_connection(server: Server, sent: bytes, status: int) -> None:
    client = await answer_to(server, sent)
    assert client.statuses() == [status]
    assert b"Connection: close" in client.taken


@pytest.mark.parametrize(
    "headers",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: 13\r\n",
        b"Upgrade: TLS/1.0, HTTP/3.7\r\n",
    ],
    ids=["h2c", "websocket", "others"],
)
async def test_upgrades_are_ignored(server: Server, headers: bytes) -> None:
    client = await answer_to(server, b"GET /m HTTP/1.1\r\n" + HOST + headers + b"\r\n", GET, b"x\r\n\r\n")
    assert client.statuses() == [200, 200, 400]


async def test_connect_opens_no_tunnel(server: Server) -> None:
    client = await answer_to(server, b"CONNECT /m HTTP/1.1\r\n" + HOST + b"\r\n", GET, half_close=True)
    assert client.statuses() == [404, 200]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/m?a=b", 200),
        ("/%6d", 200),
        ("http://x:80/m?", 200),
        ("HTTPS://x/m", 200),
        ("http://x", 404),
        ("//x/m", 404),
        ("*", 404),
        ("/%", 404),
        ("/m%00", 404),
        ("http://[/m", 200),
    ],
)
async def test_forms_of_the_target(server: Server, target: str, status: int) -> None:
    client = await answer_to(server, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert client.statuses() == [status]


# ---- one connection, several requests


async def test_pipelined_requests_are_answered_in_their_order(server: Server) -> None:
    client = await answer_to(server, GET + NOT_FOUND + GET[:9], GET[9:], half_close=True)
    assert client.statuses() == [200, 404, 200]


async def test_head_is_the_answer_to_get_without_its_body(server: Server) -> None:
    client = await answer_to(server, b"HEAD" + GET[3:] + b"GET" + GET[3:].replace(HOST, HOST + CLOSE))
    assert client.statuses() == [200, 200]
    first, second, body = client.taken.split(b"\r\n\r\n")
    assert second == first + b"\r\nConnection: close"
    assert body == b"well\n"


async def test_who_closes_his_side_gets_his_answer(server: Server) -> None:
    client = await answer_to(server, GET.replace(b"1.1", b"1.0"), half_close=True)
    assert client.statuses() == [200]


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("deflate , gzip ; q=1", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("br, gzip; q=0.000", False),
        ("x-gzip-not", False),
    ],
)
async def test_gzip_where_it_is_accepted(server: Server, accepted: str, packed: bool) -> None:
    client = await answer_to(server, GET.replace(HOST, HOST + CLOSE + f"Accept-Encoding: {accepted}\r\n".encode()))
    head, _, body = client.taken.partition(b"\r\n\r\n")
    assert (b"Content-Encoding: gzip" in head) == packed
    assert (gzip.decompress(body) if packed else body) == b"well\n"


# ---- bodies


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 5\r\n\r\nabcde",
        b"Content-Length: 300000\r\n\r\nabc",
        b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzzz",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n" + GET,
    ],
    ids=["whole", "part", "waits for 100", "bad chunk", "chunks"],
)
async def test_a_request_with_a_body_is_answered_at_once_and_is_the_last(server: Server, rest: bytes) -> None:
    since = trio.current_time()
    client = await answer_to(server, POST + rest)
    assert client.statuses() == [200]
    assert b"Connection: close" in client.taken
    assert client.closed_at == since


async def test_an_empty_body_is_none(server: Server) -> None:
    client = await answer_to(server, POST + b"Content-Length: 0\r\n\r\n", GET, half_close=True)
    assert client.statuses() == [200, 200]


@pytest.mark.parametrize(("more", "seconds"), [(60_000, 1.0), (70_000, 0.0)], ids=["a little", "too much"])
async def test_what_follows_the_last_answer_is_dropped_within_bounds(server: Server, more: int, seconds: float) -> None:
    since = trio.current_time()
    await answer_to(server, POST + b"Content-Length: 300000\r\n\r\n", *[bytes(10_000)] * (more // 10_000))
    assert trio.current_time() - since == seconds


async def test_who_hangs_up_after_the_last_answer_is_not_waited_for(server: Server) -> None:
    since = trio.current_time()
    await answer_to(server, POST + b"Content-Length: 9\r\n\r\n", bytes(9), half_close=True)
    assert trio.current_time() == since


async def test_a_page_that_is_still_to_come_is_waited_for_and_then_unavailable() -> None:
    """process.md 7."""
    client = await answer_to(
        Server({"/m": page("well\n")}, more=True), b"GET /later HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
    )
    assert client.statuses() == [503]
    assert b"still being loaded" in client.taken
