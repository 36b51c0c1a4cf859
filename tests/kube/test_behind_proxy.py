"""The API server behind a proxy: another way to it, with everything above the same."""

import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trustme

from csi_provisioner.kube.client import Cluster, KubeClient, KubeError, connect, resolve
from csi_provisioner.model.kubernetes import PersistentVolume
from csi_provisioner.settings import ClusterSettings
from tests.kube.wire import Asked, Server, always, reply, serving

EVENT = b'{"type":"ADDED","object":{"metadata":{"name":"v"}}}\n'


@asynccontextmanager
async def tunnelling(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[str]]]:
    """A proxy that only knows CONNECT, and notes where to."""
    asked: list[str] = []

    async def pipe(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await sink.send_all(data)
        await sink.aclose()

    async def handle(client: trio.abc.Stream) -> None:
        if tls is not None:
            client = trio.SSLStream(client, tls, server_side=True, https_compatible=True)
        head = bytes(await client.receive_some()).split()
        asked.append(head[1].decode())
        async with await trio.open_tcp_stream("127.0.0.1", int(head[1].rpartition(b":")[2])) as server:
            await client.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pipe, client, server)
                nursery.start_soon(pipe, server, client)

    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield listener.socket.getsockname()[1], asked
        nursery.cancel_scope.cancel()


def cluster_behind(folder: Path, server: str, proxy: str, **fields: str) -> Cluster:
    content = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, "proxy-url": proxy, **fields}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(content))
    return resolve(ClusterSettings(kubeconfig=str(path)))


@asynccontextmanager
async def client_behind(
    folder: Path, server: Server, authority: trustme.CA, proxy: int, scheme: str = "http"
) -> AsyncIterator[KubeClient]:
    fields = {
        "certificate-authority-data": base64.b64encode(authority.cert_pem.bytes()).decode(),
        "tls-server-name": "elsewhere.test",
    }
    cluster = cluster_behind(folder, f"https://127.0.0.1:{server.port}", f"{scheme}://127.0.0.1:{proxy}", **fields)
    client = connect(cluster, user_agent="test/1")
    yield client
    client.close()


async def test_requests_and_watches_go_through(tmp_path: Path) -> None:
    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        if "watch=true" in asked.target:
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            await stream.send_all(head + b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
        else:
            await stream.send_all(reply(200, b'{"metadata": {"name": "v"}}'))

    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.test").configure_cert(tls)
    async with (
        serving(answer, tls) as server,
        tunnelling() as (port, tunnels),
        client_behind(tmp_path, server, authority, port) as client,
    ):
        assert (await client.get(PersistentVolume, "v")).metadata.name == "v"
        async with client.watch(PersistentVolume, resource_version="1", timeout_seconds=60) as events:
            assert (await anext(events))[0].object.metadata.name == "v"
    assert set(tunnels) == {f"127.0.0.1:{server.port}"}
    assert server.asked[0].target == "/api/v1/persistentvolumes/v"


async def test_a_proxy_may_want_tls_itself(tmp_path: Path) -> None:
    """What is said of the server's certificate holds for the proxy's too, its name among it."""
    authority = trustme.CA()
    side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.test").configure_cert(side)
    async with (
        serving(always(reply()), side) as server,
        tunnelling(side) as (port, tunnels),
        client_behind(tmp_path, server, authority, port, "https") as client,
    ):
        await client.discover("/x")
        await client.discover("/x")
    assert tunnels == [f"127.0.0.1:{server.port}"]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_without_another_name_the_certificate_of_a_proxy_is_for_its_host(tmp_path: Path, scheme: str) -> None:
    authority = trustme.CA()
    side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(side)
    data = base64.b64encode(authority.cert_pem.bytes()).decode()
    async with serving(always(reply(403)), side) as proxy:
        there = f"https://127.0.0.1:{proxy.port}"
        cluster = cluster_behind(tmp_path, f"{scheme}://api.test", there, **{"certificate-authority-data": data})
        client = connect(cluster, user_agent="test/1")
        with pytest.raises(KubeError, match="403"):
            await client.discover("/x")
        client.close()
    assert len(proxy.asked) == 1


async def test_a_proxy_is_told_who_we_are_and_may_refuse(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def refuse(stream: trio.SocketStream) -> None:
        heads.append(bytes(await stream.receive_some()))
        await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, refuse, 0)
        proxy = f"me:p%40ss@127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        client = connect(cluster_behind(tmp_path, "https://[fd00::1]:6443", f"http://{proxy}"), user_agent="test/1")
        with pytest.raises(KubeError, match=r"the proxy 127\.0\.0\.1 .* to \[fd00::1\]:6443: .* 403") as caught:
            await client.get(PersistentVolume, "v")
        client.close()
        nursery.cancel_scope.cancel()
    assert caught.value.unavailable
    basic = base64.b64encode(b"me:p@ss").decode()
    head = f"CONNECT [fd00::1]:6443 HTTP/1.1\r\nHost: [fd00::1]:6443\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
    assert heads == [head.encode()]


async def test_a_proxy_of_plain_http_is_told_the_whole_url(tmp_path: Path) -> None:
    async with serving(always(reply(200, b'{"metadata": {"name": "v"}}'))) as proxy:
        cluster = cluster_behind(tmp_path, "http://api.test:8080", f"http://me:pass@127.0.0.1:{proxy.port}")
        client = connect(cluster, user_agent="test/1")
        await client.get(PersistentVolume, "v")
        client.close()
    asked = proxy.asked[0]
    assert (asked.target, asked.headers["host"]) == ("http://api.test:8080/api/v1/persistentvolumes/v", "api.test:8080")
    assert asked.headers["proxy-authorization"] == "Basic " + base64.b64encode(b"me:pass").decode()


async def test_a_proxy_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def never(_asked: Asked, _stream: trio.abc.Stream) -> None: ...

    async with serving(never) as server, client_behind(tmp_path, server, trustme.CA(), 1) as client:
        with pytest.raises(KubeError, match=r"cannot connect to the proxy 127\.0\.0\.1 port 1: ") as caught:
            await client.get(PersistentVolume, "v")
    assert caught.value.unavailable
