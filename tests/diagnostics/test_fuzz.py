"""Thousands of clients that do as they like, on a real socket; the probe still gets its answer (process.md 7)."""

import random
import socket
import struct
from collections.abc import Callable

import pytest
import trio

from csi_provisioner.diagnostics.pages import metrics_page
from csi_provisioner.diagnostics.server import HEAD_TIME
from csi_provisioner.metrics import Metrics
from tests.diagnostics.conversation import GET, HOST, page, serving

CLIENTS, AT_ONCE, SILENT = 2000, 20, 64
FRAMES = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("00000004000000000000000100050000000182")
UPGRADES = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: 13\r\n",
)

Chance = random.Random


def valid(chance: Chance) -> bytes:
    line = f"{chance.choice(['GET', 'HEAD', 'POST', 'X'])} {chance.choice(['/m', '/', '/m?a=%', '*'])} HTTP/1."
    headers = HOST + chance.choice([b"", b"Accept-Encoding: gzip\r\n", b"Connection: close\r\n", b"A: b\r\n c\r\n"])
    return line.encode() + chance.choice([b"0", b"1"]) + b"\r\n" + headers + b"\r\n"


def cut(chance: Chance) -> bytes:
    whole = with_body(chance)
    return whole[: chance.randrange(len(whole))]


def spoilt(chance: Chance) -> bytes:
    data = bytearray(with_body(chance))
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def with_body(chance: Chance) -> bytes:
    framing = chance.choice([b"Content-Length: 20", b"Content-Length: 70000", b"Transfer-Encoding: chunked"])
    body = chance.choice([b"5\r\nabcde\r\n0\r\n\r\n", b"zz\r\n", bytes(20), bytes(70000)])
    return b"POST /m HTTP/1.1\r\n" + HOST + framing + b"\r\n\r\n" + body


def upgrade(chance: Chance) -> bytes:
    return b"GET /m HTTP/1.1\r\n" + HOST + chance.choice(UPGRADES) + b"\r\n" + chance.randbytes(chance.randrange(3))


KINDS: list[Callable[[Chance], bytes]] = [
    valid,
    cut,
    spoilt,
    with_body,
    upgrade,
    lambda chance: chance.randbytes(chance.randrange(1, 300)),
    lambda chance: b"".join(valid(chance) for _ in range(chance.randrange(8))),
    lambda chance: GET * chance.randrange(8),
    lambda chance: FRAMES + chance.randbytes(chance.choice([0, 9, 70_000])),
    lambda chance: GET[:-2] + b"X: " + b"x" * chance.choice([15_000, 20_000, 100_000]),
]


async def connect(address: tuple[str, int]) -> trio.SocketStream:
    """As `open_tcp_stream` does, without its races of addresses: there are many."""
    connected = trio.socket.socket()
    await connected.connect(address)
    return trio.SocketStream(connected)


async def visit(address: tuple[str, int], chance: Chance) -> None:
    data = chance.choice(KINDS)(chance)
    piece = 1 if len(data) < 500 and chance.random() < 0.03 else len(data) + 1
    stream = await connect(address)
    try:
        for start in range(0, len(data), piece):
            await stream.send_all(data[start : start + piece])
        if chance.random() < 0.5:
            await stream.send_eof()
            while await stream.receive_some():
                pass
        elif chance.random() < 0.5:  # the end is a reset
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except trio.BrokenResourceError:
        pass
    finally:
        stream.socket.close()


async def test_nothing_that_clients_do_keeps_the_probe_out(capsys: pytest.CaptureFixture[str]) -> None:
    left = iter(range(CLIENTS))
    chance = Chance(7)

    async def visits(address: tuple[str, int]) -> None:
        for _ in left:
            await visit(address, chance)

    async with serving({"/m": page("well\n"), "/metrics": metrics_page(Metrics())}) as text:
        host, port = text.rsplit(":", 1)
        address = host, int(port)
        silent = [await connect(address) for _ in range(SILENT)]
        await probe(address)
        with trio.fail_after(HEAD_TIME / 2):
            assert await silent[0].receive_some() == b""
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(visits, address)
            nursery.start_soon(probe, address)
        await probe(address)
        for stream in silent:
            stream.socket.close()
    assert capsys.readouterr().err == ""


async def probe(address: tuple[str, int]) -> None:
    with trio.fail_after(1):
        async with await connect(address) as stream:
            await stream.send_all(GET.replace(b"/m", b"/metrics"))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
