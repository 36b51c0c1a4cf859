"""Whom we trust: what client-go takes as an authority and a name, authorities that are replaced, what errors say."""

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from trio.testing import MockClock

from csi_provisioner.advice import advice
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.client import Cluster, KubeClient, KubeError, connect, resolve
from csi_provisioner.settings import ClusterSettings
from tests.kube.test_config import NOWHERE, of_cluster, of_user, written
from tests.kube.wire import Asked, HangupError, always, reply, serving


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.fixture(scope="module")
def root() -> trustme.CA:
    return trustme.CA()


def server_side(*authorities: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for authority in authorities:
        authority.issue_cert("127.0.0.1", "api.test").configure_cert(context)
    return context


def cluster_at(folder: Path, port: int, host: str = "127.0.0.1", **fields: object) -> Cluster:
    path = written(folder, **of_cluster(server=f"https://{host}:{port}", **fields))
    return resolve(ClusterSettings(kubeconfig=path), environment=NOWHERE)


@asynccontextmanager
async def client_of(cluster: Cluster) -> AsyncIterator[KubeClient]:
    client = connect(cluster, user_agent="test/1")
    yield client
    client.close()


async def asked(cluster: Cluster) -> None:
    """A request that is answered."""
    async with client_of(cluster) as client:
        await client.discover("/x")


def data(*parts: bytes) -> dict[str, object]:
    return {"certificate-authority-data": base64.b64encode(b"\n".join(parts)).decode()}


# ---- what client-go takes


async def test_an_intermediate_authority_as_the_only_anchor(root: trustme.CA, tmp_path: Path) -> None:
    intermediate = root.create_child_ca()
    async with serving(always(reply()), server_side(intermediate)) as server:
        await asked(cluster_at(tmp_path, server.port, **data(intermediate.cert_pem.bytes())))


PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(PEM.format("AAAA").encode(), id="no-certificate"),
        pytest.param(PEM.format("A").encode(), id="no-base64"),
        pytest.param(PEM.format("").encode(), id="empty"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nMIIB", id="cut-off"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", id="a-key"),
        pytest.param("# Autorità\r\n".encode("latin-1"), id="a-comment"),
    ],
)
async def test_a_bundle_of_which_a_part_cannot_be_read(root: trustme.CA, tmp_path: Path, broken: bytes) -> None:
    bundle = [broken, trustme.CA().cert_pem.bytes(), broken, root.cert_pem.bytes(), broken]
    async with serving(always(reply()), server_side(root)) as server:
        await asked(cluster_at(tmp_path, server.port, **data(*bundle)))


def _signed(name: str, signer: rsa.RSAPrivateKey, key: rsa.RSAPrivateKey, *more: x509.ExtensionType) -> bytes:
    subject, issuer = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in (name, "ca"))
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    for extension in more:
        builder = builder.add_extension(extension, False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("signer", range(3))
async def test_of_several_authorities_of_one_name_the_one_that_has_signed_counts(tmp_path: Path, signer: int) -> None:
    """As while an authority is replaced. Nothing in the certificates says which key it was."""
    *keys, own = (rsa.generate_private_key(65537, 2048) for _ in range(4))
    authorities = [_signed("ca", key, key, x509.BasicConstraints(True, None)) for key in keys]
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    pair = _signed("server", keys[signer], own, names)
    (tmp_path / "pair").write_bytes(pair + own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    side.load_cert_chain(tmp_path / "pair")
    async with serving(always(reply()), side) as server:
        cluster = cluster_at(tmp_path, server.port, **data(*authorities))
        await asked(cluster)
        await asked(cluster)
        others = cluster_at(
            tmp_path, server.port, **data(*(each for each in authorities if each is not authorities[signer]))
        )
        with pytest.raises(KubeError, match="Untrusted"):
            await asked(others)


@pytest.mark.parametrize("content", [b"", b"nothing", PEM.format("AAAA").encode()])
def test_a_bundle_without_any_certificate(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ca.crt").write_bytes(content)
    message = "cannot use the certificate-authority of kubeconfig .*: no certificate in it can be read"
    with pytest.raises(Fatal, match=message):
        cluster_at(tmp_path, 1, **{"certificate-authority": "ca.crt"})


async def test_a_key_of_1024_bits_that_vouches_for_itself(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    certificate = builder.add_extension(names, False).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    side.set_ciphers("DEFAULT:@SECLEVEL=0")
    (tmp_path / "pair").write_bytes(certificate + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    side.load_cert_chain(tmp_path / "pair")
    async with serving(always(reply()), side) as server:
        await asked(cluster_at(tmp_path, server.port, **data(certificate)))


@pytest.mark.parametrize("name", ["api.test.", "API.test", "127.0.0.1", "::ffff:127.0.0.1", "[::ffff:7f00:1]"])
async def test_tls_server_name_is_what_the_certificate_is_checked_for(
    root: trustme.CA, tmp_path: Path, name: str
) -> None:
    async with serving(always(reply()), server_side(root)) as server:
        fields = {**data(root.cert_pem.bytes()), "tls-server-name": name}
        await asked(cluster_at(tmp_path, server.port, **fields))


async def test_an_ipv4_address_within_ipv6_is_that_address(root: trustme.CA, tmp_path: Path) -> None:
    async with serving(always(reply()), server_side(root)) as server:
        await asked(cluster_at(tmp_path, server.port, "[::ffff:127.0.0.1]", **data(root.cert_pem.bytes())))


def test_a_host_with_a_dot_at_its_end_is_asked_for_as_it_is_and_met_without(tmp_path: Path) -> None:
    cluster = cluster_at(tmp_path, 6443, "api.test.")
    assert (cluster.server.host, cluster.route.server_name) == ("api.test.", "api.test")


@pytest.mark.parametrize("name", ["a..b", ".a", "x" * 64, "a\0b", "\u2028", "."])
def test_a_name_that_no_host_can_have_is_refused_and_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(Fatal, match="cannot use the tls-server-name of kubeconfig"):
        cluster_at(tmp_path, 6443, **{"tls-server-name": name})
    if name.isprintable():
        with pytest.raises(Fatal, match="cannot use the server of kubeconfig"):
            cluster_at(tmp_path, 6443, name)


async def test_a_password_in_the_servers_url_is_ours(tmp_path: Path) -> None:
    async with serving(always(reply())) as server:
        path = written(tmp_path, **of_cluster(server=f"http://me:p%40ss@127.0.0.1:{server.port}"), **of_user())
        await asked(resolve(ClusterSettings(kubeconfig=path), environment=NOWHERE))
    assert server.asked[0].headers["authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()


# ---- authorities that are replaced


async def answered(_asked: Asked, stream: trio.abc.Stream) -> None:
    await stream.send_all(reply())


async def test_new_authorities_are_trusted_after_a_minute_by_all_clients(root: trustme.CA, tmp_path: Path) -> None:
    file, new = tmp_path / "ca.crt", trustme.CA()
    root.cert_pem.write_to_path(str(file))
    side = server_side(root)
    async with serving(answered, side) as server:
        cluster = cluster_at(tmp_path, server.port, **{"certificate-authority": "ca.crt"})
        async with client_of(cluster) as one, client_of(cluster) as two:
            await one.discover("/x")
            await two.discover("/x")
            new.cert_pem.write_to_path(str(file))
            new.issue_cert("127.0.0.1").configure_cert(side)
            await one.discover("/x")
            assert server.connections == 2
            await trio.sleep(60)
            await one.discover("/x")
            await two.discover("/x")
            await one.discover("/x")
            await trio.testing.wait_all_tasks_blocked()
            assert (server.connections, server.open) == (4, 2)


async def test_the_client_certificate_of_the_moment_is_shown_under_new_authorities(
    root: trustme.CA, tmp_path: Path
) -> None:
    seen = []

    async def answer(_asked: Asked, stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SSLStream)
        seen.append(stream.getpeercert(binary_form=True))
        await stream.send_all(reply())

    def issue() -> bytes:
        pair = root.issue_cert("me@example.test")
        pair.cert_chain_pems[0].write_to_path(str(tmp_path / "tls.crt"))
        pair.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
        return ssl.PEM_cert_to_DER_cert(pair.cert_chain_pems[0].bytes().decode())

    first, file = issue(), tmp_path / "ca.crt"
    root.cert_pem.write_to_path(str(file))
    side = server_side(root)
    root.configure_trust(side)
    side.verify_mode = ssl.CERT_OPTIONAL
    async with serving(answer, side) as server:
        entry = {"server": f"https://127.0.0.1:{server.port}", "certificate-authority": "ca.crt"}
        user = {"client-certificate": "tls.crt", "client-key": "tls.key"}
        path = written(tmp_path, **of_cluster(**entry), **of_user(**user))
        async with client_of(resolve(ClusterSettings(kubeconfig=path), environment=NOWHERE)) as client:
            await client.discover("/x")
            second = issue()
            await trio.sleep(60)
            await client.discover("/x")  # has read the new certificate
            file.write_bytes(file.read_bytes() + trustme.CA().cert_pem.bytes())
            await trio.sleep(60)
            await client.discover("/x")
    assert seen[0] == first
    assert seen[2] == second


async def test_a_broken_authority_leaves_the_one_before_and_is_told_once(
    root: trustme.CA, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ca.crt"
    root.cert_pem.write_to_path(str(file))
    async with serving(answered, server_side(root)) as server:
        cluster = cluster_at(tmp_path, server.port, **{"certificate-authority": "ca.crt"})
        async with client_of(cluster) as client:
            await client.discover("/x")
            file.write_text("broken")
            for _ in range(5):
                await trio.sleep(60)
                await client.discover("/x")
            async with client_of(cluster) as another:
                await another.discover("/x")
            assert server.connections == 2
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("W")]
    assert len(warnings) == 1
    assert f'path="{file}" err="no certificate in it can be read"' in warnings[0]


# ---- what people are told


async def refusal(cluster: Cluster) -> KubeError:
    async with client_of(cluster) as client:
        with pytest.raises(KubeError) as caught:
            await client.discover("/x")
    return caught.value


@pytest.mark.parametrize("inline", [True, False], ids=["data", "file"])
async def test_another_authority_than_the_servers_is_named(root: trustme.CA, tmp_path: Path, inline: bool) -> None:
    other = trustme.CA().cert_pem.bytes()
    (tmp_path / "ca.crt").write_bytes(other)
    async with serving(always(reply()), server_side(root)) as server:
        trusted = data(other) if inline else {"certificate-authority": "ca.crt"}
        error = await refusal(cluster_at(tmp_path, server.port, **trusted))
    file = f"the certificate-authority-data of kubeconfig {tmp_path}/kubeconfig" if inline else f"{tmp_path}/ca.crt"
    assert str(error).endswith(f"; trusted: {file} (Untrusted)")
    assert "certificate authority" in advice(error)


async def test_an_authority_of_the_same_name_and_another_key_is_named(tmp_path: Path) -> None:
    """As after a cluster was made anew: there everything is called as before."""
    one, two = (trustme.CA(organization_name="kubernetes") for _ in range(2))
    async with serving(always(reply()), server_side(one)) as server:
        error = await refusal(cluster_at(tmp_path, server.port, **data(two.cert_pem.bytes())))
    assert "certificate authority" in advice(error)


async def test_the_systems_authorities_are_named_too(root: trustme.CA, tmp_path: Path) -> None:
    async with serving(always(reply()), server_side(root)) as server:
        error = await refusal(cluster_at(tmp_path, server.port))
    assert "; trusted: the system's certificate authorities" in str(error)


async def test_a_name_that_is_not_the_servers(root: trustme.CA, tmp_path: Path) -> None:
    fields = {**data(root.cert_pem.bytes()), "tls-server-name": "elsewhere.test"}
    async with serving(always(reply()), server_side(root)) as server:
        error = await refusal(cluster_at(tmp_path, server.port, **fields))
    assert "tls-server-name" in advice(error)


@pytest.mark.parametrize("days", [(-2, -1), (1, 2)], ids=["over", "not-yet"])
async def test_a_certificate_at_another_time_is_refused_with_advice_about_clocks(
    root: trustme.CA, tmp_path: Path, days: tuple[int, int]
) -> None:
    begin, end = (datetime.now(UTC) + timedelta(days=day) for day in days)
    side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    root.issue_cert("127.0.0.1", not_before=begin, not_after=end).configure_cert(side)
    async with serving(always(reply()), side) as server:
        error = await refusal(cluster_at(tmp_path, server.port, **data(root.cert_pem.bytes())))
    assert "clocks" in advice(error)


async def test_tls_with_a_server_of_plain_http(root: trustme.CA, tmp_path: Path) -> None:
    async def plain(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, plain, 0)
        port = listeners[0].socket.getsockname()[1]
        error = await refusal(cluster_at(tmp_path, port, **data(root.cert_pem.bytes())))
        nursery.cancel_scope.cancel()
    assert (error.unavailable, "http://" in advice(error)) == (True, True)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 48\r\n\r\nThe plain HTTP request was sent to an HTTPS port",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"",
    ],
    ids=["go", "nginx", "an-alert", "no-word"],
)
async def test_plain_http_with_a_server_of_tls(answer: bytes) -> None:
    async def once(_asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(answer)
        raise HangupError

    async with serving(once) as server:
        settings = ClusterSettings(master=f"http://127.0.0.1:{server.port}")
        error = await refusal(resolve(settings, environment=NOWHERE))
    assert (error.unavailable, "TLS" in advice(error)) == (True, True)


@pytest.mark.parametrize(
    "server",
    [
        "https://me:s3cr3t@127.0.0.1:1",
        "https://me:s3cr3t@127.0.0.1:port",
        "https://me:s3cr3t@127.0.0.1:99999",
        "https://me:s3cr3t@127.0.0.1:0",
        "https://me:s3cr3t@a..b",
        "https://me:s3cr3t@",
        "https://me:s3/cr3t@h:1",
        "https://me:s3cr3t\n@h",
        "ftp://me:s3cr3t@h",
        "me:s3cr3t@h:port",
    ],
)
@pytest.mark.parametrize("entry", ["server", "proxy-url"])
async def test_the_password_of_a_url_is_in_no_error(
    tmp_path: Path, server: str, entry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, **of_cluster(**{entry: server}, **data(trustme.CA().cert_pem.bytes())))
    try:
        text = str(await refusal(resolve(ClusterSettings(kubeconfig=path), environment=NOWHERE)))
    except Fatal as error:
        text = str(error)
    assert text
    assert "cr3t" not in text + capsys.readouterr().err
