"""The API server behind a proxy: httpx2's own transport, with everything above it the same."""

import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from csi_provisioner.kube.client import KubeClient, KubeError, connect, resolve
from csi_provisioner.model.kubernetes import PersistentVolume
from csi_provisioner.settings import ClusterSettings
from tests.kube.wire import Asked, Server, reply, serving

# httpx2's own streams are generators inside generators, which nobody can close but the collector
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")

EVENT = b'{"type":"ADDED","object":{"metadata":{"name":"v"}}}\n'


@asynccontextmanager
async def tunnelling() -> AsyncIterator[tuple[int, list[str]]]:
    """A proxy that only knows CONNECT, and notes where to."""
    asked: list[str] = []

    async def pipe(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()

    async def handle(client: trio.SocketStream) -> None:
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


@asynccontextmanager
async def client_behind(folder: Path, server: Server, authority: trustme.CA, proxy: int) -> AsyncIterator[KubeClient]:
    entry = {
        "server": f"https://127.0.0.1:{server.port}",
        "certificate-authority-data": base64.b64encode(authority.cert_pem.bytes()).decode(),
        "tls-server-name": "elsewhere.test",
        "proxy-url": f"http://127.0.0.1:{proxy}",
    }
    content = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c"}}],
        "clusters": [{"name": "c", "cluster": entry}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(content))
    client = await connect(resolve(ClusterSettings(kubeconfig=str(path))), user_agent="test/1")
    yield client
    await client.aclose()


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
            assert (await anext(events)).object.metadata.name == "v"
    assert set(tunnels) == {f"127.0.0.1:{server.port}"}
    assert server.asked[0].target == "/api/v1/persistentvolumes/v"


async def test_a_proxy_that_is_not_there(tmp_path: Path) -> None:
    async def never(_asked: Asked, _stream: trio.abc.Stream) -> None: ...

    async with serving(never) as server, client_behind(tmp_path, server, trustme.CA(), 1) as client:
        with pytest.raises(KubeError, match="get PersistentVolume v: ") as caught:
            await client.get(PersistentVolume, "v")
    assert caught.value.unavailable
