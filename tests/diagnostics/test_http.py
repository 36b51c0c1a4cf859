"""The HTTP endpoint on a real socket (process.md 7)."""

import gzip
import socket
import time
from collections.abc import AsyncIterator
from email.utils import formatdate

import httpx2
import pytest
import trio

from csi_provisioner.diagnostics.listen import listen
from csi_provisioner.diagnostics.pages import health_page, metrics_page
from csi_provisioner.fatal import Fatal
from csi_provisioner.metrics import Metrics
from tests.diagnostics.conversation import GET, page, serving


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    metrics = Metrics()
    metrics.provision("fast", "", 0.3)
    async with (
        serving({"/m": metrics_page(metrics)}) as address,
        httpx2.AsyncClient(base_url=f"http://{address}", headers={"accept-encoding": "identity"}) as client,
    ):
        yield client


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "WHATEVER"])
async def test_metrics_answer_every_method(client: httpx2.AsyncClient, method: str) -> None:
    answer = await client.request(method, "/m")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'controller_persistentvolumeclaim_provision_total{class="fast",source=""} 1\n' in answer.text


async def test_an_answer_says_when_it_was_made(client: httpx2.AsyncClient) -> None:
    before = int(time.time())
    date = (await client.get("/m")).headers["date"]
    assert date in {formatdate(second, usegmt=True) for second in range(before, int(time.time()) + 1)}


async def test_the_answer_to_head_has_no_body(client: httpx2.AsyncClient) -> None:
    answer = await client.head("/m")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/m/", "/metrics", "/healthz", "/M", "/m/x", "/healthz/leader-election"])
async def test_everything_else_is_not_found(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.text) == (404, "404 page not found\n")


async def test_an_answer_is_packed_if_the_client_takes_that(client: httpx2.AsyncClient) -> None:
    async with client.stream("GET", "/m", headers={"accept-encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        packed = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert b"provision_total" in gzip.decompress(packed)


@pytest.mark.parametrize("sent", [b"", GET], ids=["silent", "takes nothing of its answer"])
async def test_no_client_holds_up_the_end(sent: bytes) -> None:
    with trio.fail_after(2):
        async with serving({"/m": page("#" * 32_000_000)}) as address:
            host, port = address.rsplit(":", 1)
            client = await trio.open_tcp_stream(host, int(port))
            await client.send_all(sent)
            if sent:
                assert await client.receive_some(1)
    await client.aclose()


@pytest.mark.parametrize(
    ("endpoint", "family", "reached_at"),
    [
        ("127.0.0.1:0", socket.AF_INET, "127.0.0.1"),
        ("localhost:0", None, "localhost"),
        pytest.param(":0", None, "127.0.0.1", id="every address, by IPv4"),
        pytest.param("[::]:0", None, "127.0.0.1", id="every address of IPv6, by IPv4"),
        pytest.param(
            "0.0.0.0:0",
            None,
            "::1",
            id="every address of IPv4, by IPv6",
            marks=pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6"),
        ),
        pytest.param(
            "[::1]:0",
            socket.AF_INET6,
            "::1",
            marks=pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6"),
        ),
    ],
)
def test_an_address_has_several_forms(endpoint: str, family: int | None, reached_at: str) -> None:
    """process.md 1.3."""
    with listen(endpoint, "/metrics") as listener:
        assert family in (None, listener.family)
        socket.create_connection((reached_at, listener.getsockname()[1])).close()


@pytest.mark.parametrize("endpoint", ["8080", "::1:8080", "127.0.0.1:http", "127.0.0.1:70000", "127.0.0.1:"])
def test_a_bad_address_is_named(endpoint: str) -> None:
    with pytest.raises(Fatal) as caught:
        listen(endpoint, "/metrics")
    assert f"cannot listen on {endpoint} to serve /metrics" in str(caught.value)


def test_a_taken_port_is_named_with_the_path() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Fatal, match=f"{endpoint} to serve /m: Address already in use$"):
            listen(endpoint, "/m")


@pytest.mark.parametrize(
    ("trouble", "status", "text"),
    [
        (None, 200, "ok"),
        ("it is stuck", 500, "internal server error: it is stuck\n"),
        ("\x1b[2J\u202e", 500, "internal server error: \\u001b[2J\\u202e\n"),
    ],
    ids=["6.6 well", "6.6 not renewed", "controls"],
)
async def test_the_health_of_the_election_is_a_page(trouble: str | None, status: int, text: str) -> None:
    """process.md 6.6."""
    async with serving({"/health": health_page(lambda: trouble)}) as address, httpx2.AsyncClient() as client:
        answer = await client.get(f"http://{address}/health")
    assert (answer.status_code, answer.text) == (status, text)
