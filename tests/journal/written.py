"""A history of `world.py` that is a script: who does what, and what becomes of which message."""

import base64
import random
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
import trio._core._run as scheduler

from csi_provisioner.csi.errors import CallError
from csi_provisioner.model.codes import Code

from .clock import Clock
from .people import Lived
from .server import CLAIMS, CLASSES, VOLUMES
from .ways import TIMEOUT
from .world import DRIVER, HOLD, LEASE, RETRY, Process, handle

Sends = Callable[[], Awaitable[Any]]
Act = Callable[[Process, Sends], Awaitable[Any]]
Script = Callable[["Written"], Awaitable[None]]


class Written(Lived):
    """`script` is what happens; the world goes on in peace then, and is judged."""

    script: Script

    def __post_init__(self) -> None:
        super().__post_init__()
        self._acts: list[tuple[str, Act]] = []

    async def _troubled(self) -> None:
        await self.script(self)

    # ---- what a script says

    def at(self, message: str, act: Act) -> None:
        """What becomes of the next message like that."""
        self._acts.append((message, act))

    async def starts(self) -> Process:
        """A new process, once it leads and has said that it keeps a journal."""
        self._begin()
        process = self.processes[-1]
        await self.until(lambda: process.journal is not None and process.journal.taken_at is not None)
        await self.until(self.is_marked)
        return process

    async def until(self, holds: Callable[[], bool]) -> None:
        with trio.fail_after(120):
            while not holds():
                await trio.sleep(0.01)
                self._controllers()

    async def ended(self) -> None:
        await self.until(lambda: not self.processes)

    def claims(self, policy: str = "d") -> str:
        return self._claim(policy)

    def deleted(self, uid: str) -> None:
        self.note("user", "deletes", uid)
        self.server.delete(CLAIMS, f"claim-{uid}", at_once=True)

    def must(self, kind: str, holds: bool) -> None:
        if not holds:
            self.bad(kind)

    async def kept(self, uid: str) -> None:
        """An administrator keeps the claim's volume, and is about to make another PersistentVolume of it."""
        name = f"pvc-{uid}"
        await self.until(lambda: self.server.get(CLAIMS, f"claim-{uid}")["spec"].get("volumeName") == name)
        pv = self.server.objects[VOLUMES][name]
        self.deleted(uid)
        self.volumes[handle(pv)].kept = True
        self.server.delete(VOLUMES, name, at_once=True)

    async def large(self) -> None:
        """From now on, which the watch shows at once, an object of the journal has room for one entry."""
        text = base64.b64encode(random.Random(0).randbytes(45_000)).decode()
        self.server.edit(CLASSES, "d", lambda found: found.update(parameters={"text": text}))
        await trio.sleep(1)

    def silent(self) -> None:
        self._acts.clear()

    def behind(self, seconds: float) -> None:
        """Watches that begin from now on show everything so much later."""
        self.lag = lambda: seconds  # type: ignore[method-assign]

    def journal(self, number: int = 0) -> str:
        return f"{DRIVER}-journal-{number:02}"

    # ---- messages

    async def message(self, process: Process, what: str, work: Any, lost: Exception, **kind: bool) -> Any:
        sends = partial(super().message, process, what, work, lost, **kind)
        for place in self._acts:
            if re.search(place[0], what):
                self._acts.remove(place)
                return await place[1](process, sends)
        return await sends()

    async def killed_after(self, process: Process, sends: Sends) -> None:
        await sends()
        self.kill(process)
        await trio.sleep_forever()

    async def killed_before(self, process: Process, _sends: Sends) -> None:
        self.kill(process)
        await trio.sleep_forever()

    def arrives(self, event: trio.Event) -> Act:
        """It is under way, and its process is killed."""

        async def act(process: Process, sends: Sends) -> None:
            self._later.start_soon(self._lands, event, sends)
            self.kill(process)
            await trio.sleep_forever()

        return act

    async def _lands(self, event: trio.Event, sends: Any) -> None:
        await event.wait()
        with_work = sends.args[2]
        try:
            with_work()
        except Exception as error:  # nobody is there to hear it
            self.note("late", sends.args[1], str(error))
        else:
            self.note("late", sends.args[1])

    def kill(self, process: Process) -> None:
        self.note(process, "kill -9")
        process.kill()

    def paused(self, meanwhile: Callable[[], None]) -> Act:
        """The machine is stopped with the answer in hand, and so are its clocks; another one leads."""

        async def act(_process: Process, sends: Sends) -> Any:
            try:
                return await sends()
            finally:
                meanwhile()
                self.successor()

        return act

    def asleep(self, meanwhile: Callable[[], None]) -> Act:
        """As `paused`, but one of its clocks goes on."""
        paused = self.paused(meanwhile)

        async def act(process: Process, sends: Sends) -> Any:
            process.slept += HOLD + LEASE
            return await paused(process, sends)

        return act

    async def unanswered(self, _process: Process, sends: Sends) -> None:
        await sends()
        await trio.sleep_forever()


async def refused(_process: Process, _sends: Sends) -> None:
    await trio.sleep(0.01)
    raise CallError(Code.INVALID_ARGUMENT, "no", "CreateVolume")


async def slow(_process: Process, sends: Sends) -> Any:
    answer = await sends()
    await trio.sleep(TIMEOUT / 2)
    return answer


async def tardy(_process: Process, sends: Sends) -> Any:
    await trio.sleep(RETRY)
    return await sends()


def lived(script: Script, *faults: str) -> Written:
    scheduler._r.seed(0)
    random.seed(0)
    history = Written(0, frozenset(faults))
    history.script = script
    trio.run(history.run, clock=Clock())
    return history
