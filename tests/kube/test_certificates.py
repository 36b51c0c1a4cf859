"""Client certificates that change: from exec plugins and from files, and what becomes of connections with old ones."""

import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.credentials import CertificateFiles, Credentials
from csi_provisioner.kube.tls import Tls
from tests.kube.test_credentials import Program, kept_fresh, plugin
from tests.kube.wire import Asked, Server, pool, reply, sender, serving


class Identities:
    """Client certificates, which of them a server lets in, and which it has seen."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.valid: list[bytes] = []
        self.seen: list[bytes | None] = []
        self.client = Tls(self.authority.cert_pem.bytes())

    def issue(self) -> tuple[bytes, bytes]:
        """Certificate and key; from now on these are let in too."""
        pair = self.authority.issue_cert("me@example.test")
        certificate = pair.cert_chain_pems[0].bytes()
        self.valid.append(ssl.PEM_cert_to_DER_cert(certificate.decode()))
        return certificate, pair.private_key_pem.bytes()

    def expire(self) -> None:
        self.valid.clear()

    async def answer(self, _asked: Asked, stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SSLStream)
        self.seen.append(stream.getpeercert(binary_form=True))
        await stream.send_all(reply() if self.seen[-1] in self.valid else reply(401, b"who are you"))


@asynccontextmanager
async def guarded(identities: Identities, who: Credentials) -> AsyncIterator[tuple[KubeClient, Server]]:
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    identities.authority.issue_cert("127.0.0.1").configure_cert(server_side)
    identities.authority.configure_trust(server_side)
    server_side.verify_mode = ssl.CERT_OPTIONAL
    async with (
        serving(identities.answer, server_side) as server,
        pool(server, tls=identities.client) as transport,
        kept_fresh(who),
    ):
        yield KubeClient(sender(transport, who)), server


async def ask_at_once(client: KubeClient, times: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(times):
            nursery.start_soon(client.discover, "/x")


async def test_a_plugin_may_give_a_client_certificate_and_another_one_later(tmp_path: Path) -> None:
    identities, program = Identities(), Program(tmp_path)

    def print_another() -> None:
        identities.expire()
        certificate, key = identities.issue()
        program.prints(clientCertificateData=certificate.decode(), clientKeyData=key.decode())

    print_another()
    async with guarded(identities, plugin(program, tls=identities.client)) as (client, server):
        await ask_at_once(client, 3)
        print_another()
        # all three kept connections have shown the old one
        await client.discover("/x")
        assert server.connections == 4
        await client.discover("/x")
        assert (server.connections, len(program.told())) == (4, 2)


async def test_a_plugin_runs_once_for_all_whose_certificate_was_refused(tmp_path: Path) -> None:
    identities, program = Identities(), Program(tmp_path)
    certificate, key = identities.issue()
    program.prints(clientCertificateData=certificate.decode(), clientKeyData=key.decode())
    who = plugin(program, tls=identities.client)
    async with kept_fresh(who):
        header = await who.authorization()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(who.refused, header)
    assert len(program.told()) == 2


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "tls.crt", tmp_path / "tls.key"


def put(files: tuple[Path, Path], pair: tuple[bytes, bytes]) -> None:
    for path, content in zip(files, pair, strict=True):
        path.write_bytes(content)


async def test_a_refused_certificate_is_read_again_at_once(files: tuple[Path, Path]) -> None:
    identities = Identities()
    put(files, identities.issue())
    async with guarded(identities, CertificateFiles(*files, identities.client)) as (client, server):
        await client.discover("/x")
        identities.expire()
        other = identities.issue()
        with pytest.raises(KubeError, match="401"):
            await client.discover("/x")
        assert len(server.asked) == 3  # the files still say the same, but the connection might have been older
        put(files, other)
        await client.discover("/x")
        assert (await client.discover("/x"), len(server.asked)) == ({}, 6)


async def test_all_that_are_refused_at_once_ask_again_with_the_new_certificate(files: tuple[Path, Path]) -> None:
    identities = Identities()
    put(files, identities.issue())
    async with guarded(identities, CertificateFiles(*files, identities.client)) as (client, server):
        await ask_at_once(client, 3)
        identities.expire()
        put(files, identities.issue())
        await ask_at_once(client, 3)
        assert server.connections == 6


async def certificates_over_time(files: tuple[Path, Path]) -> None:
    identities = Identities()
    put(files, identities.issue())
    async with guarded(identities, CertificateFiles(*files, identities.client)) as (client, _server):
        await client.discover("/x")
        certificate, key = identities.issue()
        files[0].write_bytes(certificate)
        await trio.sleep(60)
        await ask_at_once(client, 2)  # one of them on a new connection
        assert identities.seen == identities.valid[:1] * 3
        files[1].write_bytes(key)
        await trio.sleep(60)
        await ask_at_once(client, 3)
        assert set(identities.seen[3:]) == set(identities.valid)


async def a_connection_that_outlives_its_certificate(files: tuple[Path, Path]) -> None:
    identities = Identities()
    put(files, identities.issue())
    async with guarded(identities, CertificateFiles(*files, identities.client)) as (client, server):
        await client.discover("/x")
        put(files, identities.issue())
        await trio.sleep(60)
        await client.discover("/x")  # has read the new one, and needs it not yet
        assert identities.seen == identities.valid[:1] * 2
        del identities.valid[0]
        await client.discover("/x")
        assert server.connections == 2


def test_a_connection_that_outlives_its_certificate_costs_no_request(files: tuple[Path, Path]) -> None:
    trio.run(a_connection_that_outlives_its_certificate, files, clock=trio.testing.MockClock(autojump_threshold=0))


def test_certificates_are_read_again_after_a_minute_and_taken_if_they_fit(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    trio.run(certificates_over_time, files, clock=trio.testing.MockClock(autojump_threshold=0))
    assert capsys.readouterr().err.count("The client certificate cannot be read, going on with the last one") == 1


def test_a_certificate_needs_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    Tls().present(*Identities().issue())


def test_nobody_is_asked_for_the_password_of_a_key() -> None:
    """On a terminal the question would stop the whole program, also long after its start."""
    certificate, key = Identities().issue()
    locked = load_pem_private_key(key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    with pytest.raises(ValueError, match="the key is encrypted"):
        Tls().present(certificate, locked)
