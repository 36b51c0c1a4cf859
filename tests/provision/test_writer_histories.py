"""Histories at random: leaders follow one another, killed or living on, and answers are lost, late or refused.

Whatever happened, every entry that somebody was told to be durable is found by the next leader, unless its end was
told; nobody enters anything once the next leader has taken over; and no leader ends for nothing (design.md 6).
"""

import random
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import trio

from csi_provisioner.fatal import Fatal
from csi_provisioner.provision.writer import JournalWriter
from tests.kube.wire import Asked
from tests.provision.journal_api import JournalApi, Process, entry, writing

NAMES = [f"pvc-{number}" for number in range(12)]


@dataclass
class Leader:
    """Enters and takes out entries as it likes; `sure` are those that it was told to be durable and has not left."""

    journal: JournalWriter
    random: random.Random
    sure: set[str] = field(default_factory=set)
    overtaken: bool = False
    ended: str = ""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def lead(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.journal.run)
                    self.sure |= set(self.journal.inherited)
                    task_status.started()
                    for name in NAMES:
                        nursery.start_soon(self.work, name)
        except* Fatal as group:
            self.ended = str(group)
            with suppress(RuntimeError):
                task_status.started()

    async def work(self, name: str) -> None:
        while True:
            await trio.sleep(self.random.expovariate(1))
            late = self.overtaken
            with trio.move_on_after(self.random.choice((0.2, 60))) as waiting:
                confirm = self.random.random() < 0.3 or self.overtaken
                large = bytes(self.random.choice((10, 10, 10, 20_000)))
                assert await self.journal.enter(name, entry(name, request=large), confirm=confirm)
                assert not late, "entered after another one had taken over"
                self.journal.begin(name)
                self.sure.add(name)
            if waiting.cancelled_caught:
                continue
            await trio.sleep(self.random.expovariate(0.5))
            if self.random.random() < 0.7:
                self.sure.discard(name)
                self.journal.leave(name)


def faults(api: JournalApi, rnd: random.Random) -> None:
    hung = False

    def fault(_asked: Asked) -> int | str | None:
        nonlocal hung
        api.slow = rnd.choice((0.0, 0.01, 0.3))
        found = rnd.choices((None, "lost", "hang", 500, 429, 503), (80, 8, 1, 5, 3, 3))[0]
        if found == "hang" and hung:  # three would be a lease's length, after which a take-over does without a journal
            return "lost"
        hung = hung or found == "hang"
        return found

    api.fault = fault


@pytest.mark.parametrize("seed", range(8))
async def test_no_durable_entry_is_lost_and_nobody_writes_after_the_next_leader(seed: int) -> None:
    rnd, api = random.Random(seed), JournalApi()
    async with writing(api, hold=1.0) as process, trio.open_nursery() as nursery:
        before: Leader | None = None
        for _ in range(5):
            before = await follow(before, process, nursery, rnd)
            faults(api, rnd)
            await trio.sleep(rnd.uniform(2, 20))
            assert before.ended == "", "a leader ended for nothing"
            if rnd.random() < 0.3:
                meddle(api, rnd)
        assert before is not None
        before.scope.cancel()


async def follow(before: Leader | None, process: Process, nursery: trio.Nursery, rnd: random.Random) -> Leader:
    """Another leader, after the one before was killed or while it lives on."""
    if before is not None and rnd.random() < 0.5:
        before.scope.cancel()
        await trio.sleep(0.1)
    sure = set(before.sure) if before is not None else set()
    other = Process(process.client, nursery, True, process.settings)
    leader = Leader(other.journal(), rnd)
    await nursery.start(leader.lead)
    if before is not None:
        before.overtaken = True
        still = sure & before.sure
        assert still <= set(leader.journal.inherited) | leader.sure
        await trio.sleep(rnd.uniform(0, 5))
        before.scope.cancel()
    return leader


def meddle(api: JournalApi, rnd: random.Random) -> None:
    """Somebody labels an object."""
    name = rnd.choice(list(api.leases))
    lease = api.leases[name]
    api.put(name, {**lease, "metadata": {**lease["metadata"], "labels": {"team": str(rnd.random())}}})
