"""Credentials that change: token files, exec plugins as real programs, and their renewal when they are refused."""

import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.config import resolve
from csi_provisioner.kube.credentials import Credentials, Plugin, TokenFile
from csi_provisioner.kube.tls import Tls
from csi_provisioner.settings import ClusterSettings
from tests.kube.wire import Asked, Server, pool, reply, sender, serving

V1 = "client.authentication.k8s.io/v1"


@asynccontextmanager
async def guarded(accepted: str, who: Credentials) -> AsyncIterator[tuple[KubeClient, Server]]:
    """A client with these credentials, and a server that wants `accepted` as its header."""

    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        good = asked.headers.get("authorization") == accepted
        await stream.send_all(reply() if good else reply(401, b"who are you"))

    async with serving(answer) as server, pool(server) as transport, kept_fresh(who):
        yield KubeClient(sender(transport, who)), server


@asynccontextmanager
async def kept_fresh(who: Credentials) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(who.run)
        yield
        nursery.cancel_scope.cancel()


# ---- token files


async def a_token_over_time(path: Path) -> None:
    token = TokenFile(path)
    put(path, "one\n")
    assert await token.authorization() == "Bearer one"
    put(path, "two\n")
    assert await token.authorization() == "Bearer one"
    await trio.sleep(60)
    assert await token.authorization() == "Bearer two"
    put(path, "")
    await trio.sleep(60)
    assert await token.authorization() == "Bearer two"


def put(path: Path, text: str) -> None:
    path.write_text(text)


def test_a_token_file_is_read_again_after_a_minute_if_it_can_be(tmp_path: Path) -> None:
    trio.run(a_token_over_time, tmp_path / "token", clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_refused_token_is_read_again_at_once(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    async with guarded("Bearer new", TokenFile(path)) as (client, server):
        with pytest.raises(KubeError, match=r"get /x: who are you \(401\)"):
            await client.discover("/x")
        assert len(server.asked) == 1  # the file still says the same: no use in asking again
        path.write_text("new")
        await client.discover("/x")
        assert len(server.asked) == 3


@pytest.mark.parametrize("content", [None, " \n"])
async def test_a_token_file_that_never_was_readable(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    async with guarded("x", TokenFile(tmp_path / "token")) as (client, server):
        with pytest.raises(KubeError, match="cannot read the token file") as caught:
            await client.discover("/x")
    assert caught.value.reason == "Credentials"
    assert not server.asked


@pytest.mark.parametrize("kind", ["pipe", "large"])
async def test_a_token_file_that_keeps_a_reader_waiting_keeps_nobody_else(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "token"
    if kind == "pipe":
        os.mkfifo(path)
    else:  # as what never ends: /dev/zero
        path.touch()
        os.truncate(path, 1 << 34)
    async with guarded("x", TokenFile(path)) as (client, _):
        with pytest.raises(KubeError, match="cannot read the token file"):
            await client.discover("/x")


# ---- exec plugins


class Program:
    """A plugin that prints what stands in a file beside it, and notes each run with what it was told."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        self.runs = folder / "runs"
        self.path = folder / "plugin"
        self.path.write_text(
            f"#!{sys.executable}\nimport os\n"
            f"open({str(self.runs)!r}, 'a').write(os.environ['KUBERNETES_EXEC_INFO'] + '\\n')\n"
            f"print(open({str(self.output)!r}).read())\n"
        )
        self.path.chmod(0o755)

    def prints(self, version: str = V1, **status: object) -> None:
        self.output.write_text(json.dumps({"kind": "ExecCredential", "apiVersion": version, "status": status}))

    def told(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.runs.read_text().splitlines()]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def plugin(program: Program, **options: object) -> Plugin:
    return Plugin([str(program.path)], version=V1, environment=dict(os.environ), **options)  # type: ignore[arg-type]


async def given(who: Credentials) -> str | None:
    """The first credential."""
    value: str | KubeError | None
    async with kept_fresh(who):
        try:
            value = await who.authorization()
        except KubeError as error:
            value = error
    if isinstance(value, KubeError):
        raise value
    return value


async def test_a_plugin_runs_once_for_all_who_wait(program: Program) -> None:
    program.prints(token="t")
    who = plugin(program, cluster={"server": "https://x"})
    async with guarded("Bearer t", who) as (client, server), trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(client.discover, "/x")
    assert len(server.asked) == 5
    spec = {"interactive": False, "cluster": {"server": "https://x"}}
    assert program.told() == [{"apiVersion": V1, "kind": "ExecCredential", "spec": spec}]


async def test_a_plugin_runs_again_when_it_is_refused(program: Program) -> None:
    program.prints(token="old")
    async with guarded("Bearer new", plugin(program)) as (client, server):
        with pytest.raises(KubeError, match="401"):
            await client.discover("/x")
        program.prints(token="new")
        await client.discover("/x")
    assert len(server.asked) == 4
    assert len(program.told()) == 3


async def test_a_plugin_that_fails_when_it_is_refused(program: Program) -> None:
    who = plugin(program)
    program.prints(token="old")
    async with guarded("Bearer new", who) as (client, _server):
        await who.authorization()
        program.output.write_text("nothing")
        with pytest.raises(KubeError, match=r"get /x: .* did not print an ExecCredential"):
            await client.discover("/x")


async def test_the_plugin_of_a_kubeconfig_is_told_of_the_cluster(program: Program, tmp_path: Path) -> None:
    authority = base64.b64encode(trustme.CA().cert_pem.bytes()).decode()
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}
    entry = {"server": "https://api.test", "certificate-authority-data": authority, "extensions": [extension]}
    run = {"apiVersion": V1, "command": "./plugin", "provideClusterInfo": True, "env": [{"name": "A", "value": "b"}]}
    content = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": entry}],
        "users": [{"name": "u", "user": {"exec": run}}],
    }
    put(tmp_path / "kubeconfig", json.dumps(content))
    program.prints(token="t")
    cluster = resolve(ClusterSettings(kubeconfig=str(tmp_path / "kubeconfig")), environment=os.environ)
    assert await given(cluster.credentials) == "Bearer t"
    told = {"server": "https://api.test", "certificate-authority-data": authority, "config": {"audience": "x"}}
    assert program.told()[0]["spec"] == {"interactive": False, "cluster": told}


@pytest.mark.parametrize("content", ["nonsense", ""], ids=["no-certificate", "no-key"])
async def test_a_plugin_that_gives_a_certificate_of_no_use(program: Program, content: str) -> None:
    pair = trustme.CA().issue_cert("me@example.test")
    program.prints(
        clientCertificateData=content or pair.cert_chain_pems[0].bytes().decode(), clientKeyData=content or "nonsense"
    )
    async with guarded("x", plugin(program, tls=Tls())) as (client, _server):
        with pytest.raises(KubeError, match=r"get /x: the credential plugin .* failed: "):
            await client.discover("/x")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        pytest.param("no json", "did not print an ExecCredential", id="not-json"),
        pytest.param("[" * 200_000, "did not print an ExecCredential", id="nested"),
        pytest.param('{"kind": "ExecCredential", "x": ' + "[" * 200_000, "did not print an Exec", id="nested-within"),
        pytest.param(
            json.dumps({"kind": "ExecCredential", "apiVersion": V1, "status": {"token": "a\r\nb"}}),
            "failed: it holds line breaks",
            id="line-breaks",
        ),
        pytest.param('{"kind": "ExecCredential", "apiVersion": "v0", "status": {}}', "of v0, not of", id="version"),
        pytest.param(
            json.dumps({"kind": "ExecCredential", "apiVersion": V1, "status": {}}), "neither a token nor", id="nothing"
        ),
    ],
)
async def test_a_plugin_that_prints_nonsense(program: Program, output: str, message: str) -> None:
    program.output.write_text(output)
    with pytest.raises(KubeError, match=message):
        await given(plugin(program))


async def test_a_plugin_that_fails_is_named_with_what_it_said(program: Program) -> None:
    program.path.write_text("#!/bin/sh\necho not logged in >&2\nexit 3\n")
    async with guarded("x", plugin(program)) as (client, _server):
        with pytest.raises(
            KubeError, match=r"get /x: the credential plugin .* failed: code 3: not logged in"
        ) as caught:
            await client.discover("/x")
    assert caught.value.unavailable


async def test_a_plugin_that_is_not_there_is_an_error_with_the_hint_how_to_get_it(program: Program) -> None:
    program.path.unlink()
    with pytest.raises(KubeError, match=r"failed: .* No such file.*; get it from the shop"):
        await given(plugin(program, hint="get it from the shop"))


@pytest.mark.parametrize("output", ["", ">&2"], ids=["stdout", "stderr"])
async def test_a_plugin_that_prints_without_end_is_an_error(program: Program, output: str) -> None:
    program.path.write_text(f"#!/bin/sh\nyes {output}\n")
    with pytest.raises(KubeError, match="printed more than 1 MiB"):
        await given(plugin(program))


async def test_a_plugin_whose_arguments_no_program_can_have(program: Program) -> None:
    who = Plugin([str(program.path), "a\0b"], version=V1, environment=dict(os.environ))
    with pytest.raises(KubeError, match="failed: embedded null byte"):
        await given(who)
