"""The local socket at which a provisioner answers its own commands: who is answered, and who can do it no harm."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from csi_provisioner.commands import daemon
from csi_provisioner.diagnostics import asked
from csi_provisioner.model.live import Asked, Live, LiveClaim
from tests.embedded import VIRTUAL
from tests.hearing import heard

STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@contextmanager
def somebody_else() -> Iterator[None]:
    """The kernel notes who connects, and who listens, at that moment."""
    os.seteuid(STRANGER)
    try:
        yield
    finally:
        os.seteuid(0)


def answering(address: str) -> Callable[[Asked], Live]:
    return lambda question: Live(
        pid=os.getpid(), flags={"csi-address": address}, works=True, claim=LiveClaim(question.claim)
    )


@asynccontextmanager
async def served(answer: Callable[[Asked], Live] | None = None, name: str = "", count: int = 1) -> AsyncIterator[str]:
    """The address by which the provisioner is known; its socket is there."""
    name = name or secrets.token_hex(8)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.serve, name, answer or answering(f"/{name}"))
        with trio.fail_after(5):
            while sum(name in each for each in daemon._names()) < count:  # noqa: ASYNC110 - the kernel has no event
                await trio.sleep(0.01)
        yield f"/{name}"
        nursery.cancel_scope.cancel()


def connected(address: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(f"\0{asked.PREFIX}{address[1:]}")
    client.setblocking(False)
    return client


async def said(client: socket.socket, *pieces: bytes) -> bytes:
    """What comes until the end of the connection."""
    found = b""
    async with trio.SocketStream(trio.socket.from_stdlib_socket(client)) as stream:
        try:
            for piece in pieces:
                await stream.send_all(piece)
            while more := await stream.receive_some():
                found += more
        except trio.BrokenResourceError:
            pass
    return found


async def heard_of(address: str, claim: str = "", told: list[str] | None = None) -> Live | str:
    return await daemon.ask({"csi-address": address}, claim, tell=(told if told is not None else []).append)


async def test_a_question_is_answered() -> None:
    async with served() as address:
        found = await heard_of(address, "uid-1")
        assert isinstance(found, Live)
        assert found.claim == LiveClaim("uid-1")


@as_root
async def test_another_user_is_told_nothing() -> None:
    lines: list[str] = []
    with heard(lambda record: lines.append(record["message"])):
        async with served() as address:
            with somebody_else():
                strangers = [connected(address) for _ in range(3)]
            for stranger in strangers:
                assert await said(stranger, b"{}\n") == b""
            assert isinstance(await heard_of(address), Live)
    assert sum("another user" in line for line in lines) == 1, "nobody fills our log"


@as_root
async def test_root_takes_no_flags_from_a_provisioner_of_somebody_else() -> None:
    name = secrets.token_hex(8)
    with somebody_else():
        listener = asked._bound(name)
    found = await _answered(listener, f"/{name}", msgspec.json.encode(answering(f"/{name}")(Asked(claim="a"))))
    assert isinstance(found, Live)
    assert (found.flags, found.works) == ({}, True)


@contextmanager
def decoys(count: int, *, of: int | None = None) -> Iterator[list[socket.socket]]:
    """Sockets with names like a provisioner's, of another user or of ours, that take what comes and say nothing."""
    made = []
    try:
        if of is not None:
            os.seteuid(of)
        try:
            made = [asked._bound(secrets.token_hex(8)) for _ in range(count)]
        finally:
            if of is not None:
                os.seteuid(0)
        yield made
    finally:
        for listener in made:
            listener.close()


@as_root
async def test_nothing_is_sent_to_another_user_s_socket() -> None:
    told: list[str] = []
    with decoys(2, of=STRANGER - 1) as listeners, somebody_else():
        found = await heard_of("/nobody", told=told)
        assert found == daemon.NOBODY
        for listener in listeners:
            client, _ = listener.accept()
            with client:
                assert client.recv(100) == b""
    assert told == [f"2 sockets of the provisioner's name are not asked: they are those of user {STRANGER - 1}."]


async def test_another_program_is_not_taken_at_its_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in another container of the pod that has the same user: its flags would be done with our rights."""
    for process in ("self", str(os.getpid())):
        (tmp_path / process).mkdir()
        (tmp_path / process / "exe").write_text(process)
    monkeypatch.setattr(daemon, "PROCESSES", tmp_path)
    told: list[str] = []
    async with served() as address:
        found = await heard_of(address, told=told)
        assert isinstance(found, Live)
        assert found.flags == {}
    assert told[0].startswith(f"A process of user {os.geteuid()} in another container, or of another program, answers")


async def test_one_that_says_it_is_another_process_is_not_taken_at_its_word() -> None:
    """As one would that passes on what a provisioner elsewhere answers."""
    told: list[str] = []
    async with served(lambda question: Live(pid=os.getpid() + 1, flags={"csi-address": "/passed"})):
        found = await heard_of("/passed", told=told)
    assert isinstance(found, Live)
    assert found.flags == {}
    assert told[0].startswith("A process of user ")


@as_root
async def test_other_users_decoys_hide_no_provisioner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "MOST", 4)
    async with served() as address:
        with decoys(20, of=STRANGER):
            found = await heard_of(address)
    assert isinstance(found, Live)
    assert found.flags == {"csi-address": address}


BINDS = """
import socket, sys
listeners = []
for number in range(20):
    listeners.append(socket.socket(socket.AF_UNIX))
    listeners[-1].bind(f"\\0{sys.argv[1]}{number}")
    listeners[-1].listen()
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def decoys_of_another_process() -> Iterator[None]:
    command = [sys.executable, "-I", "-S", "-c", BINDS, f"{asked.PREFIX}{secrets.token_hex(8)}-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        yield
        other.stdin.close()


async def test_decoys_of_our_own_user_hide_no_provisioner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are another container's: their process is nobody here. They never answer."""
    for process in ("self", str(os.getpid())):
        (tmp_path / process).mkdir()
        (tmp_path / process / "exe").symlink_to(__file__)
    monkeypatch.setattr(daemon, "PROCESSES", tmp_path)
    monkeypatch.setattr(daemon, "MOST", 4)
    with decoys_of_another_process():
        async with served() as address:
            found = await heard_of(address)
    assert isinstance(found, Live)
    assert found.flags == {"csi-address": address}


async def _answered(listener: socket.socket, address: str, answer: bytes) -> Live | str:
    """What is heard of a process that gives this answer."""

    async def answer_once() -> None:
        client, _ = await accepting.accept()
        async with trio.SocketStream(client) as stream:
            await stream.receive_some()
            await stream.send_all(answer)

    with trio.socket.from_stdlib_socket(listener) as accepting:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_once)
            return await heard_of(address)


@pytest.mark.parametrize("answer", [b"\xff", b'{"later":' + b"[" * 200_000, b'{"up": 1e999}'])
async def test_an_answer_that_is_none_is_left_out(answer: bytes) -> None:
    name = secrets.token_hex(8)
    assert isinstance(await _answered(asked._bound(name), f"/{name}", answer), str)


@pytest.mark.parametrize(
    "sent",
    [b"\xff\x00\n", b"[]\n", b'{"claim": 1}\n', b"\n", b"x" * 100_000, b"GET / HTTP/1.1\r\n\r\n"],
    ids=["bytes", "a list", "a wrong type", "nothing", "too much", "HTTP"],
)
async def test_garbage_ends_its_own_connection(sent: bytes) -> None:
    async with served() as address:
        assert await said(connected(address), sent) == b""
        assert isinstance(await heard_of(address), Live)


async def test_clients_that_say_nothing_make_room_after_a_while() -> None:
    async with served() as address:
        silent = [connected(address) for _ in range(asked.CONNECTIONS)]
        assert isinstance(await heard_of(address), str)
        await trio.sleep(asked.TIME)
        assert isinstance(await heard_of(address), Live)
        for client in silent:
            client.close()


async def test_a_defect_in_an_answer_ends_only_that_connection() -> None:
    def answer(question: Asked) -> Live:
        if question.claim:
            raise RuntimeError("a defect")
        return Live(pid=os.getpid(), flags={"csi-address": "/defect"})

    name = secrets.token_hex(8)
    lines: list[str] = []
    with heard(lambda record: lines.append(record["message"])):
        async with served(answer, name):
            assert isinstance(await heard_of("/defect", "uid"), str)
            assert isinstance(await heard_of("/defect"), Live)
    assert sum("A defect" in line for line in lines) == 1


async def test_two_of_one_pod_are_told_apart_by_their_sockets() -> None:
    """Also where both have the same process id, as in containers of their own."""
    name, cluster = secrets.token_hex(8), secrets.token_hex(8)
    one, other = ({"csi-address": path, "kubeconfig": cluster} for path in ("/one", "/other"))

    def of(flags: dict[str, str]) -> Live:
        return Live(pid=os.getpid(), flags=flags)

    async with served(lambda _: of(one), name), served(lambda _: of(other), name, count=2):
        found = await daemon.ask({"kubeconfig": cluster})
        assert found == "2 provisioners run here; --csi-address tells them apart: /one, /other"
        assert await daemon.ask({"kubeconfig": cluster, "csi-address": "/other"}) == of(other)


async def test_one_that_ends_meanwhile_is_not_there() -> None:
    name = secrets.token_hex(8)
    with trio.socket.from_stdlib_socket(asked._bound(name)) as accepting:

        async def accept_and_end() -> None:
            client, _ = await accepting.accept()
            client.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_and_end)
            assert isinstance(await heard_of(f"/{name}"), str)
    assert not any(name in each for each in daemon._names())


async def test_nobody_is_left_at_the_socket_after_a_stop() -> None:
    async with served() as address:
        client = connected(address)
    assert not any(address[1:] in each for each in daemon._names())
    assert await said(client) == b""
