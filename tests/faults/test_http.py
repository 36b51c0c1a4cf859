"""Hostile clients of the HTTP endpoint, on the real control plane: the process lives, and claims get their volumes."""

import pytest
import trio

from tests.cluster.controlplane import free_ports
from tests.journeys.real import Real

pytestmark = pytest.mark.cluster

HEAD = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
UPGRADE = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n"
WEBSOCKET = HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\n\r\n\x81"
PRIOR_KNOWLEDGE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(300_000)
SILENT = 80


async def _send(port: int, data: bytes) -> None:
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(data)
            with trio.move_on_after(0.5):
                await stream.receive_some()
    except trio.BrokenResourceError:
        pass  # refused in the midst of it, as it may be


async def test_no_client_of_the_endpoint_ends_the_process_or_keeps_a_probe_out(real_world: Real) -> None:
    world = real_world
    [port] = free_ports(1)
    await world.storage_class()
    await world.start(f"--http-endpoint=127.0.0.1:{port}")

    async def listening() -> bool:
        return '"Listening"' in world.log()

    await world.wait("the endpoint", listening)
    for data in (PRIOR_KNOWLEDGE, UPGRADE, WEBSOCKET, b"\x16\x03\x01", bytes(70_000), HEAD * 2):
        await _send(port, data)
    silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(SILENT)]
    with trio.fail_after(5):
        async with await trio.open_tcp_stream("127.0.0.1", port) as probe:
            await probe.send_all(HEAD + b"\r\n")
            assert (await probe.receive_some()).startswith(b"HTTP/1.1 200 ")
    await world.claim("data")
    await world.bound("data")
    for stream in silent:
        await stream.aclose()
