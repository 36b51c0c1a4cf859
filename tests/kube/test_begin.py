"""Nothing is begun after the lease's own end: asked after every wait, and again at each sending (design.md 3 rule 9).

The server is a fake at the wire; what a frozen process sees is a clock that is suddenly late.
"""

import json
import queue
import select
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import trio
import trustme
from lightkube.core.resource import GlobalResource
from trio.testing import MockClock

from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.credentials import Credentials, Fixed
from csi_provisioner.kube.end import End
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.limits import TokenBucket
from csi_provisioner.kube.proxy import parsed
from csi_provisioner.kube.tls import Tls
from csi_provisioner.kube.transport import Route, Transport
from csi_provisioner.model.kubernetes import Lease, ObjectMeta, PersistentVolume, resource
from tests.kube.leases import LeaseApi, candidates
from tests.kube.objects import volume
from tests.kube.test_behind_proxy import tunnelling
from tests.kube.wire import Asked, HangupError, Server, always, pool, reply, send, sender, serving

PV = reply(200, json.dumps({"metadata": {"name": "v", "resourceVersion": "1"}}).encode())
CHANGES = ("POST", "PUT", "PATCH", "DELETE")


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


class Frozen:
    """The lease's end, as a process knows it whose machine may have slept."""

    def __init__(self) -> None:
        self._slept = 0.0
        self.end = End(clock=lambda: trio.current_time() + self._slept)

    def sleep(self) -> None:
        self.end.renewed(self.end.now(), 15)
        self._slept += 20


@pytest.fixture
def frozen() -> Frozen:
    return Frozen()


def _wired(
    server: Server,
    frozen: Frozen,
    *,
    requests: int = 16,
    credentials: Credentials | None = None,
    limit: TokenBucket | None = None,
) -> KubeClient:
    transport = Transport(Route(("127.0.0.1", server.port)), requests=requests)
    return KubeClient(sender(transport, credentials, limit), may_begin=frozen.end.may_begin)


def _changes(server: Server) -> list[str]:
    return [asked.method for asked in server.asked if asked.method in CHANGES]


# ---- what is asked for


ASKS: dict[str, tuple[Callable[[KubeClient], Awaitable[object]], bool]] = {
    "create": (lambda kube: kube.create(PersistentVolume, volume("v", 1)), False),
    "replace": (lambda kube: kube.put_untyped(PersistentVolume, {"metadata": {"name": "v"}}), False),
    "change": (lambda kube: kube.change(PersistentVolume, "v", None, seen="", edit=lambda raw: True), False),
    "patch": (lambda kube: kube.patch(PersistentVolume, "v", {}), False),
    "delete": (lambda kube: kube.delete(PersistentVolume, "v"), False),
    "somebody else's lease": (
        lambda kube: kube.put_untyped(
            Lease,
            {"metadata": {"name": "l", "namespace": "ns"}},
        ),
        False,
    ),
    "get": (lambda kube: kube.get(PersistentVolume, "v"), True),
    "any question": (lambda kube: kube.discover("/apis"), True),
}


@pytest.mark.parametrize("row", ASKS.values(), ids=ASKS.keys())
async def test_after_the_end_only_questions_are_sent(frozen: Frozen, row: tuple[Any, bool]) -> None:
    ask, may = row

    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(reply(200, asked.body) if asked.method in ("POST", "PUT") else PV)

    async with serving(answer) as server:
        kube = _wired(server, frozen)
        await ask(kube)
        before = _changes(server)
        frozen.sleep()
        if may:
            await ask(kube)
        else:
            with pytest.raises(KubeError, match="LeaseOver") as caught:
                await ask(kube)
            assert "another process may lead" in str(caught.value)
            assert caught.value.doing
        assert _changes(server) == before
        frozen.end.renewed(frozen.end.now(), 15)
        await ask(kube)
        kube.close()


@resource("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")
class Review(GlobalResource, msgspec.Struct):
    metadata: ObjectMeta
    apiVersion: str | None = None
    kind: str | None = None


async def test_what_only_asks_though_it_is_a_post_is_free(frozen: Frozen) -> None:
    async with serving(always(PV)) as server:
        kube = _wired(server, frozen)
        frozen.sleep()
        await kube.create(Review, Review(ObjectMeta(name="v")))
        kube.close()
    assert _changes(server) == ["POST"]


# ---- every wait


async def _refused(call: Callable[[], Awaitable[object]], refused: list[str]) -> None:
    try:
        await call()
    except KubeError as error:
        refused.append(error.reason)


async def test_nothing_is_begun_after_a_wait_for_a_connection(frozen: Frozen) -> None:
    release = trio.Event()

    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        if asked.method == "GET":
            await release.wait()
        await stream.send_all(PV)

    refused: list[str] = []
    async with serving(answer) as server, trio.open_nursery() as nursery:
        kube = _wired(server, frozen, requests=1)
        nursery.start_soon(kube.get, PersistentVolume, "v")
        await trio.sleep(1)
        for _ in range(60):
            nursery.start_soon(_refused, lambda: kube.create(PersistentVolume, volume("v", 1)), refused)
        await trio.sleep(1)
        frozen.sleep()
        release.set()
        await trio.sleep(1)
        kube.close()
    assert refused == ["LeaseOver"] * 60
    assert _changes(server) == []


async def test_nothing_is_begun_after_a_wait_for_the_limit(frozen: Frozen) -> None:
    refused: list[str] = []
    async with serving(always(PV)) as server, trio.open_nursery() as nursery:
        kube = _wired(server, frozen, limit=TokenBucket(1, 1))
        await kube.create(PersistentVolume, volume("v", 1))
        nursery.start_soon(_refused, lambda: kube.create(PersistentVolume, volume("v", 1)), refused)
        await trio.sleep(0.5)
        frozen.sleep()
        await trio.sleep(5)
        kube.close()
    assert (refused, _changes(server)) == (["LeaseOver"], ["POST"])


async def test_nothing_is_begun_after_a_wait_for_credentials(frozen: Frozen) -> None:
    class Slow(Fixed):
        async def authorization(self) -> str | None:
            await trio.sleep(5)
            frozen.sleep()
            return None

    refused: list[str] = []
    async with serving(always(PV)) as server:
        kube = _wired(server, frozen, credentials=Slow())
        await _refused(lambda: kube.create(PersistentVolume, volume("v", 1)), refused)
        kube.close()
    assert (refused, _changes(server)) == (["LeaseOver"], [])


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_nothing_is_begun_after_the_wait_that_the_server_asked_for(frozen: Frozen, method: str) -> None:
    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(reply(429, b"{}", Retry_After="5"))

    asks = dict(zip(CHANGES, ("create", "replace", "patch", "delete"), strict=True))
    refused: list[str] = []
    async with serving(answer) as server, trio.open_nursery() as nursery:
        kube = _wired(server, frozen)
        nursery.start_soon(_refused, lambda: ASKS[asks[method]][0](kube), refused)
        await trio.sleep(1)
        frozen.sleep()
        await trio.sleep(10)
        kube.close()
    assert (refused, _changes(server)) == (["LeaseOver"], [method])


async def test_nothing_is_begun_at_a_second_sending_on_another_connection(frozen: Frozen) -> None:
    """The kept connection is reset in the moment of the first one."""
    kept: list[trio.SocketStream] = []
    reset = trio.Event()

    async def answer(asked: Asked, stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SocketStream)
        kept.append(stream)
        await stream.send_all(PV)
        await reset.wait()
        raise HangupError

    begun: list[bool] = []

    def begin() -> None:
        begun.append(frozen.end.may_begin())
        if not begun[-1]:
            raise KubeError(0, "LeaseOver")
        kept[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        kept[0].socket.close()
        frozen.sleep()

    async with serving(answer) as server, pool(server) as transport:
        await (await send(transport, "GET")).whole()
        with pytest.raises(KubeError, match="LeaseOver"):
            await send(transport, "PUT", begin=begin)
        reset.set()
    assert begun == [True, False]
    assert _changes(server) == []


async def test_nothing_is_begun_through_a_proxy_after_the_end(frozen: Frozen) -> None:
    begun: list[int] = []

    def begin() -> None:
        begun.append(len(server.asked))
        if not frozen.end.may_begin():
            raise KubeError(0, "LeaseOver")

    async with (
        serving(always(PV)) as server,
        tunnelling() as (port, _),
        pool(server, proxy=parsed(f"http://127.0.0.1:{port}")) as transport,
    ):
        await (await send(transport, "POST", begin=begin)).whole()
        assert begun[0] == 0
        frozen.sleep()
        with pytest.raises(KubeError, match="LeaseOver"):
            await send(transport, "POST", begin=begin)
        await (await send(transport)).whole()
    assert [asked.method for asked in server.asked] == ["POST", "GET"]


# ---- no checkpoint between


@contextmanager
def _mute(tls: ssl.SSLContext | None) -> Iterator[tuple[int, queue.Queue[socket.socket]]]:
    """A server that shakes hands and then reads nothing more: what has come lies in its socket.

    In a thread: it takes the connection also while the test holds the loop.
    """
    taken: queue.Queue[socket.socket] = queue.Queue()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            taken.put(connection if tls is None else tls.wrap_socket(connection, server_side=True))

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1], taken


@pytest.mark.parametrize("anyio_backend", ["trio"])  # a clock that jumps would not wait for the server's thread
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_nobody_else_runs_between_the_question_and_the_bytes(secure: bool) -> None:
    authority = trustme.CA()
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Tls(authority.cert_pem.bytes())
    # tickets would come on their own, and lie in our socket; with 1.3 the client is ready before the server is
    served.num_tickets, served.maximum_version = 0, ssl.TLSVersion.TLSv1_2
    authority.issue_cert("127.0.0.1").configure_cert(served)
    asked: list[bool] = []
    seen: list[bool] = []

    class Look(trio.abc.Instrument):
        """Looks at the server's socket when the step of the task ends in which it was asked whether it may begin."""

        def after_task_step(self, task: object) -> None:
            if asked and not seen:
                with taken.get(timeout=60) as connection:
                    poll = select.poll()
                    poll.register(connection.fileno(), select.POLLIN)
                    seen.append(bool(poll.poll(5000)))
                scope.cancel()

    look = Look()
    with _mute(served if secure else None) as (port, taken), trio.CancelScope() as scope:
        transport = Transport(Route(("127.0.0.1", port), tls=trusting if secure else None))
        trio.lowlevel.add_instrument(look)
        await send(transport, "POST", body=b"x" * 1000, begin=lambda: asked.append(True))
    trio.lowlevel.remove_instrument(look)
    assert seen == [True]


# ---- the leader's own lease


async def test_the_leader_s_own_lease_is_written_also_late(frozen: Frozen) -> None:
    api = LeaseApi()
    async with candidates(api, end=frozen.end) as (start, _):
        leader = await start("a")
        await trio.sleep(1)
        frozen.sleep()
        assert not frozen.end.may_begin()
        await trio.sleep(5)
        assert frozen.end.may_begin()  # nobody else had taken it
        assert len(leader.leads) == 1


async def test_a_renewal_counts_from_its_sending() -> None:
    """Not from its answer, and not from an earlier try of it that failed."""
    api = LeaseApi()
    end = End(clock=trio.current_time)
    async with candidates(api, end=end) as (start, _):
        await start("a")
        await trio.sleep(1)
        api.slow = 0.5
        await trio.sleep(5)  # asked at 5 s, answered at 5.5 s
        assert end.deadline() - trio.current_time() == pytest.approx(15 - 1, abs=0.1)
        assert api.lease is not None
        api.put(api.lease)  # somebody's label: the next try fails, and the one after another look succeeds
        await trio.sleep(6.5)
        assert [method for _, method in api.asked[-3:]] == ["PUT", "GET", "PUT"]
        assert end.deadline() == pytest.approx(api.asked[-1][0] + 15, abs=0.1)
