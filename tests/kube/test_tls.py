"""TLS to the server: who is trusted, under which name, with which certificate of ours."""

import socket
import ssl
import struct

import pytest
import trio
import trustme

from csi_provisioner.kube.connection import BrokenError, open_socket
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.tls import Tls
from tests.kube.wire import Asked, always, pool, reply, send, serving


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_side(authority: trustme.CA, name: str = "127.0.0.1", *, asks: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if asks:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_side(authority: trustme.CA) -> Tls:
    return Tls(authority.cert_pem.bytes())


async def test_http_1_is_agreed_on_and_connections_are_kept(authority: trustme.CA) -> None:
    agreed = []

    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SSLStream)
        agreed.append(stream.selected_alpn_protocol())
        await stream.send_all(reply(200, b"x" * 100_000))

    async with serving(answer, server_side(authority)) as server, pool(server, tls=client_side(authority)) as transport:
        for _ in range(3):
            assert len(await (await send(transport)).whole()) == 100_000
    assert (server.connections, agreed) == (1, ["http/1.1"] * 3)


async def test_of_many_records_that_wait_all_are_read_one_after_the_other(authority: trustme.CA) -> None:
    body = b"".join(b"%07d " % number for number in range(100_000))  # nothing in it repeats

    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        whole = reply(200, body)
        for begin in range(0, len(whole), 7_001):
            await stream.send_all(whole[begin : begin + 7_001])

    async with serving(answer, server_side(authority)) as server, pool(server, tls=client_side(authority)) as transport:
        found = await send(transport)
        await trio.sleep(0.05)  # until some wait
        assert await found.whole() == body


@pytest.mark.parametrize("whole", [True, False])
async def test_a_farewell_that_is_read_with_an_answer_ends_the_connection(authority: trustme.CA, whole: bool) -> None:
    """The server leaves the socket open for a while, so that nothing else tells of it."""
    said = trio.Event()

    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SSLStream)
        if asked.method == "POST":
            await stream.send_all(reply(201))
            return
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n")
        await stream.send_all(b"x" * (40_000 if whole else 30_000))
        with trio.move_on_after(0.05):  # the client's own farewell never comes
            await stream.unwrap()
        said.set()
        await trio.sleep_forever()

    async with serving(answer, server_side(authority)) as server, pool(server, tls=client_side(authority)) as transport:
        found = await send(transport)
        await said.wait()
        with trio.fail_after(5):
            if whole:
                assert len(await found.whole()) == 40_000
            else:
                with pytest.raises(BrokenError, match="within its answer"):
                    await found.whole()
            assert (await send(transport, "POST")).status == 201
    assert server.connections == 2


async def test_what_comes_on_several_connections_at_once_is_not_mixed(authority: trustme.CA) -> None:
    """They are read into the same memory."""

    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        whole = reply(200, asked.target.encode() * 50_000)
        for begin in range(0, len(whole), 7_001):
            await stream.send_all(whole[begin : begin + 7_001])
            await trio.lowlevel.checkpoint()

    found = {}

    async def ask(target: str) -> None:
        found[target] = await (await send(transport, target=target)).whole()

    async with (
        serving(answer, server_side(authority)) as server,
        pool(server, tls=client_side(authority)) as transport,
        trio.open_nursery() as nursery,
    ):
        for number in range(8):
            nursery.start_soon(ask, f"/{number}")
    assert server.connections == 8
    assert found == {f"/{number}": f"/{number}".encode() * 50_000 for number in range(8)}


@pytest.mark.parametrize(
    ("name", "trusted", "server_name", "message"),
    [
        pytest.param("127.0.0.1", False, "", "unable to get local issuer", id="unknown-authority"),
        pytest.param("elsewhere.test", True, "", "not valid for '127.0.0.1'", id="another-name"),
        pytest.param("elsewhere.test", True, "third.test", "not valid for 'third.test'", id="another-given-name"),
    ],
)
async def test_a_server_that_is_not_trusted(
    authority: trustme.CA, name: str, trusted: bool, server_name: str, message: str
) -> None:
    client = client_side(authority if trusted else trustme.CA())
    async with (
        serving(always(reply()), server_side(authority, name)) as server,
        pool(server, tls=client, server_name=server_name) as transport,
    ):
        with pytest.raises(KubeError, match=message):
            await send(transport)
    assert not server.asked


async def test_the_server_may_go_by_another_name(authority: trustme.CA) -> None:
    async with (
        serving(always(reply()), server_side(authority, "elsewhere.test")) as server,
        pool(server, tls=client_side(authority), server_name="elsewhere.test") as transport,
    ):
        assert (await send(transport)).status == 200


async def test_the_server_may_ask_who_we_are(authority: trustme.CA) -> None:
    client = client_side(authority)
    async with (
        serving(always(reply()), server_side(authority, asks=True)) as server,
        pool(server, tls=client) as transport,
    ):
        # with TLS 1.3 the client learns of the refusal only when it reads
        with pytest.raises(KubeError):
            await send(transport)
        pair = authority.issue_cert("me@example.test")
        client.present(pair.cert_chain_pems[0].bytes(), pair.private_key_pem.bytes())
        assert (await send(transport)).status == 200


async def test_a_cut_without_tls_farewell_is_not_a_whole_answer(authority: trustme.CA) -> None:
    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SSLStream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        await stream.transport_stream.aclose()

    async with serving(answer, server_side(authority)) as server, pool(server, tls=client_side(authority)) as transport:
        with pytest.raises(KubeError, match="within its answer"):
            await (await send(transport)).whole()


@pytest.mark.parametrize("sent", [b"", b"no"], ids=["silent", "with data"])
async def test_a_server_that_resets_the_connection_before_tls_begins_is_unavailable(
    authority: trustme.CA, sent: bytes
) -> None:
    """As a load balancer does that finds nobody behind it: for a moment after it has taken the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = await open_socket(*listener.getsockname())
        peer, _ = listener.accept()
        peer.send(sent)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        await trio.sleep(0.01)
        with pytest.raises(BrokenError, match="TLS with the server failed"):
            await client_side(authority).secured(wire, "127.0.0.1", "the server")
        wire.close()
