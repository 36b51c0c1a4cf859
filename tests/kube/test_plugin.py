"""An exec plugin over time: who waits for it, what a slow one means for the lease, what is kept when it fails.

The plugin is a real program that ends when the test says so. So the clock is moved by hand: one that jumps by itself
would not wait for a program.
"""

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.credentials import Plugin
from csi_provisioner.kube.election import LeaderElector
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.metrics import Metrics
from csi_provisioner.settings import ElectionSettings
from tests.kube.leases import Candidate, LeaseApi
from tests.kube.test_credentials import V1, kept_fresh
from tests.kube.wire import Asked, pool, reply, sender, serving


@pytest.fixture
def clock() -> MockClock:
    return MockClock()


@pytest.fixture
def anyio_backend(clock: MockClock) -> object:
    return ("trio", {"clock": clock})


class Slow:
    """A plugin that prints what the test writes into a pipe, and ends with it."""

    def __init__(self, folder: Path, clock: MockClock) -> None:
        self.clock = clock
        self._pipe = folder / "pipe"
        self._runs = folder / "runs"
        self._runs.touch()
        os.mkfifo(self._pipe)
        script = folder / "plugin"
        script.write_text(f"#!/bin/sh\necho run >>{self._runs}\ncat {self._pipe}\n")
        script.chmod(0o755)
        self.plugin = Plugin([str(script)], version=V1, environment=dict(os.environ), now=trio.current_time)

    @property
    def runs(self) -> int:
        return len(self._runs.read_text().splitlines())

    async def is_run(self, times: int) -> None:
        await eventually(lambda: self.runs == times)
        await wait_all_tasks_blocked(0.02)
        assert self.runs == times

    def pipe(self) -> int:
        """To the program that runs; 0 if none does."""
        with suppress(OSError):
            return os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK)
        return 0

    async def prints(self, text: str) -> None:
        pipe = await eventually(self.pipe)
        os.write(pipe, text.encode())
        os.close(pipe)

    async def gives(self, token: str, life: float | None = None) -> None:
        """Ends with this credential, and it has arrived."""
        end = None if life is None else datetime.fromtimestamp(trio.current_time() + life, UTC).isoformat()
        status = {"token": token, "expirationTimestamp": end}
        await self.prints(json.dumps({"kind": "ExecCredential", "apiVersion": V1, "status": status}))
        while await self.plugin.authorization() != f"Bearer {token}":
            await wait_all_tasks_blocked(0.005)

    async def pass_time(self, seconds: float) -> None:
        """In steps, so that all happens at its time."""
        for _ in range(round(seconds * 4)):
            self.clock.jump(0.25)
            await wait_all_tasks_blocked()


async def eventually(look: Callable[[], int]) -> int:
    """Programs live in real time: what they do is waited for, five seconds at most."""
    for _ in range(1000):
        if found := look():
            return found
        await wait_all_tasks_blocked(0.005)
    raise AssertionError("the program does not come so far")


@pytest.fixture
def slow(tmp_path: Path, clock: MockClock) -> Slow:
    return Slow(tmp_path, clock)


async def test_a_child_that_keeps_the_pipes_of_a_plugin_that_has_ended_keeps_nobody_waiting(
    slow: Slow, tmp_path: Path
) -> None:
    credential = json.dumps({"kind": "ExecCredential", "apiVersion": V1, "status": {"token": "t"}})
    pids = tmp_path / "pids"
    script = tmp_path / "leaves-a-child"
    script.write_text(f"#!/bin/sh\necho '{credential}'\nsleep 60 &\necho $$ $! >{pids}\n")
    script.chmod(0o755)
    plugin = Plugin([str(script)], version=V1, environment=dict(os.environ), now=trio.current_time)
    given: list[str | None] = []

    async def ask() -> None:
        given.append(await plugin.authorization())

    async with kept_fresh(plugin), trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await eventually(lambda: pids.exists() and len(pids.read_text()))
        parent, child = map(int, pids.read_text().split())
        try:
            await eventually(lambda: not Path(f"/proc/{parent}").exists())
            await slow.pass_time(1)
            assert given == ["Bearer t"]
        finally:
            os.kill(child, signal.SIGKILL)
            nursery.cancel_scope.cancel()


# ---- the lease


class Guarded(LeaseApi):
    """An API with a Lease that lets in one token only."""

    token = "one"

    async def answer(self, asked: Asked, stream: trio.abc.Stream) -> None:
        if asked.headers.get("authorization") == f"Bearer {self.token}":
            await super().answer(asked, stream)
        else:
            await stream.send_all(reply(401, b"who are you"))


@asynccontextmanager
async def leading(slow: Slow, api: Guarded) -> AsyncIterator[Candidate]:
    """A leader under a lease of 15, 10 and 5 s, whose first credential is good for 60 s and took 5 s to get."""
    async with (
        serving(api.answer) as server,
        pool(server) as transport,
        kept_fresh(slow.plugin),
        trio.open_nursery() as nursery,
    ):
        client = KubeClient(sender(transport, slow.plugin))
        settings = ElectionSettings(enabled=True, namespace="ns", lease_duration=15, renew_deadline=10, retry_period=5)
        elector = LeaderElector(client, settings, name="lock", identity="us", metrics=Metrics())
        candidate = Candidate(elector)
        nursery.start_soon(candidate.run)
        await slow.pass_time(5)
        await slow.gives("one", life=60)
        await slow.pass_time(1)
        assert len(candidate.leads) == 1
        try:
            yield candidate
        finally:
            slow.clock.autojump_threshold = 0.01  # whatever is not given back in time
            nursery.cancel_scope.cancel()


async def test_a_slow_plugin_renews_a_credential_before_its_end_and_the_lease_is_kept(slow: Slow) -> None:
    api = Guarded()
    async with leading(slow, api) as candidate:
        await slow.pass_time(46)
        await slow.is_run(1)
        await slow.pass_time(1)  # 80 % of the life are over
        await slow.is_run(2)
        await slow.pass_time(5)
        await slow.gives("two")
        api.token = "two"
        await slow.pass_time(30)
        assert (slow.runs, candidate.lost) == (2, None)


async def test_a_slow_plugin_is_run_once_for_a_refused_credential_and_the_lease_is_kept(slow: Slow) -> None:
    api = Guarded()
    async with leading(slow, api) as candidate:
        api.token = "two"
        await slow.pass_time(4.5)  # the next renewal is refused
        await slow.is_run(2)
        await slow.pass_time(4)  # longer than any try of a renewal may take
        await slow.gives("two")
        await slow.pass_time(30)
        assert (slow.runs, candidate.lost) == (2, None)


# ---- a credential's life


@asynccontextmanager
async def running(slow: Slow) -> AsyncIterator[Plugin]:
    async with kept_fresh(slow.plugin):
        yield slow.plugin


async def test_a_credential_is_replaced_when_80_percent_of_what_is_left_of_its_life_are_over(slow: Slow) -> None:
    async with running(slow):
        await slow.gives("one", life=100)
        await slow.pass_time(79)
        await slow.is_run(1)
        await slow.pass_time(1)
        await slow.gives("two", life=1000)
        await slow.pass_time(799)
        await slow.is_run(2)
        await slow.pass_time(1)
        await slow.is_run(3)


async def test_what_gives_no_new_credential_is_asked_again_and_the_last_one_used_to_its_end(
    slow: Slow, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(slow) as plugin:
        await slow.gives("one", life=100)
        await slow.pass_time(80)
        await slow.prints("nothing")
        await eventually(lambda: "going on with the last one" in capsys.readouterr().err)
        assert await plugin.authorization() == "Bearer one"
        await slow.pass_time(16)  # 80 % of the 20 s that were left
        await slow.is_run(3)
        await slow.pass_time(4)
        with trio.move_on_after(1) as waiting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(plugin.authorization)  # it has ended: only the next one will do
                await slow.pass_time(1)
        assert waiting.cancelled_caught


async def test_no_request_goes_without_a_credential_when_a_run_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever of them and the next run has its turn first: Trio leaves that to chance."""
    given: list[str | None] = []
    plugin = Plugin(["plugin"], version=V1, environment={}, now=trio.current_time)

    async def fails(_plugin: Plugin) -> bytes:
        await trio.lowlevel.checkpoint()
        raise ValueError("no")

    async def ask() -> None:
        with suppress(KubeError):
            given.append(await plugin.authorization())

    monkeypatch.setattr(Plugin, "_printed", fails)
    async with kept_fresh(plugin), trio.open_nursery() as asking:
        for _ in range(500):
            asking.start_soon(ask)
            await trio.lowlevel.checkpoint()
    assert given == []


async def test_a_credential_without_an_end_is_kept(slow: Slow) -> None:
    async with running(slow):
        await slow.gives("one")
        slow.clock.jump(1e6)
        await slow.is_run(1)


async def test_a_request_that_is_cancelled_leaves_the_plugin_running_for_the_next_one(slow: Slow) -> None:
    async with running(slow) as plugin:
        with trio.move_on_after(2) as first:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(plugin.authorization)
                await slow.pass_time(2)
        assert first.cancelled_caught
        await slow.gives("one")
        assert slow.runs == 1


async def test_a_plugin_that_does_not_end_is_killed_after_25_s_with_all_it_has_started(slow: Slow) -> None:
    async with running(slow) as plugin:
        await slow.is_run(1)
        pipe = await eventually(slow.pipe)  # which a child of the plugin reads
        answers: list[object] = []

        async def ask() -> None:
            try:
                answers.append(await plugin.authorization())
            except KubeError as error:
                answers.append(error.message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await slow.pass_time(24.75)
            assert answers == []
            await slow.pass_time(0.25)
        os.close(pipe)
        assert [str(answer).partition(" did ")[2] for answer in answers] == ["not end within 25 s"]
        await eventually(lambda: not slow.pipe())
