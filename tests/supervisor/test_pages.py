"""Which pages the process has, by its settings (process.md 6.6, 7)."""

import httpx2
import pytest
import trio

from csi_provisioner.settings import ElectionSettings, HttpSettings
from tests.installation import NAMESPACE, Installation

METRICS, HEALTH, PROFILES = "/m", "/healthz/leader-election", "/debug/pprof/"


@pytest.mark.parametrize(
    ("election", "http", "expected"),
    [
        (False, {}, {METRICS}),
        (True, {}, {METRICS, HEALTH}),
        (True, {"legacy": True}, {METRICS}),
        (False, {"pprof": True}, {METRICS, PROFILES}),
        (True, {"legacy": True, "pprof": True}, {METRICS, PROFILES}),
    ],
    ids=["plain", "leader election", "--metrics-address", "--enable-pprof", "--metrics-address --enable-pprof"],
)
async def test_which_pages_there_are_follows_from_the_flags(
    site: Installation, election: bool, http: dict[str, bool], expected: set[str]
) -> None:
    """process.md 7."""
    await site.start(
        http=HttpSettings(endpoint="127.0.0.1:0", path=METRICS, **http),
        election=ElectionSettings(enabled=election, namespace=NAMESPACE),
    )
    address = site.logged("Listening")[-1].keys["address"]
    async with httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
        found = {path for path in (METRICS, HEALTH, PROFILES, "/") if (await client.get(path)).status_code == 200}
    assert found == expected


UPGRADE = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "
# SETTINGS, then the head of a POST, then DATA: what a client sends that has agreed on HTTP/2 with nobody.
FRAMES = ("000000040000000000", "00000e01040000000183868704084d6574726963730f", "004000000000000001" + "00" * 0x4000)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("".join(FRAMES)), b"505"),
        (UPGRADE + b"h2c\r\nHTTP2-Settings: AAAA\r\n\r\n", b"200"),
        (UPGRADE + b"websocket\r\nSec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: 13\r\n\r\nx", b"200"),
    ],
    ids=["HTTP/2", "h2c", "websocket"],
)
async def test_no_request_ends_the_process(site: Installation, sent: bytes, status: bytes) -> None:
    """process.md 7."""
    await site.start()
    host, port = site.logged("Listening")[-1].keys["address"].rsplit(":", 1)
    async with await trio.open_tcp_stream(host, int(port)) as client:
        await client.send_all(sent)
        assert (await client.receive_some()).startswith(b"HTTP/1.1 " + status)
    assert "process_start_time_seconds" in await site.scraped()
    site.storage_class()
    site.claim()
    await site.bound("data")


async def test_the_first_answer_comes_at_once(site: Installation) -> None:
    """process.md 7."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.start)
        await site.until(lambda: site.logged("Listening"))
        since = trio.current_time()
        await site.scraped()
        assert trio.current_time() - since < 0.1
