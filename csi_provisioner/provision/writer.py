"""The volume journal's one writer: it takes the journal over, and makes entries durable before the driver is asked.

Design.md 6. What to write is decided in `journal`. Each write carries the resourceVersion and UID of its Lease and our
term, a random word of this leadership: whoever finds another term there no longer leads. A write that is refused for
good switches the journal off, and everything else is tried again; what waits for an entry meanwhile waits.
"""

import secrets
from collections.abc import Callable
from typing import Any, Literal

import trio

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import Lease
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import entries
from csi_provisioner.planning.entries import Entry
from csi_provisioner.planning.refusal import Refusal

from .journal import ENTRIES, NUMBERS, TERM, Log, Write

Mode = Literal["auto", "on", "off"]

BYTES_A_SECOND = 128 * 1024
"""A write of n KiB is followed by n/128 s of pause: large Leases at full speed would fill etcd in minutes."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
ANOTHER_LOOK = 600.0
"""Seconds until a journal that was switched off is tried again."""
FOR_GOOD = (400, 403, 404, 405, 413, 422)
"""Answers that the next try would get as well: no right, no namespace, too large. (A Lease that is gone is no such.)"""


class ForeignTermError(Exception):
    """Another process has taken the journal over: it leads now."""


class JournalWriter:
    """One leadership's journal. `clock` is the API server's time in seconds since 1970; `renewed` says when the last
    answered renewal of the lease was sent, None without an election."""

    def __init__(
        self,
        client: KubeClient,
        *,
        driver: str,
        lease: str,
        namespace: str,
        mode: Mode,
        patience: float,
        fresh: float,
        clock: Callable[[], float],
        renewed: Callable[[], float] | None,
        advice: str = "",
    ) -> None:
        self.inherited: dict[str, Entry] = {}
        """Entries of the leaders before us, by volume name, until they have left."""
        self.taken_at: float | None = None
        """When the first take-over of the term had succeeded; None: not yet."""
        self.off: str | None = None
        """Why there is no journal just now."""
        self.confirmed = -1.0
        """When the last answered write was begun."""
        self._client = client
        self._driver = driver
        self._lease = lease
        self._namespace = namespace
        self._mode = mode
        self._patience = patience
        self._fresh = fresh
        self._clock = clock
        self._renewed = renewed
        self._advice = advice
        self._term = secrets.token_hex(8)
        self._log = Log(driver)
        self._changed = trio.Event()
        self._written = trio.Event()
        self._failing_since: float | None = None
        self._bypassed = False
        self._stopping = False

    # ---- what a claim's way asks

    @property
    def is_kept(self) -> bool:
        """Whether entries are written just now."""
        return self.off is None and not self._bypassed

    async def enter(self, name: str, entry: Callable[[int], Entry], *, confirm: bool = False) -> bool:
        """Returns once the entry is durable; False: there is no journal to enter it in. `entry` is made for the time
        it gets. With `confirm`, and whenever the term was not heard of lately, a write is awaited in any case.

        Raises Refusal where `--volume-journal=on` and there is no room. A cancellation takes the entry back.
        """
        if not confirm and self._log.is_durable(name) and self._is_fresh():
            return True
        while not self.is_kept:
            if self._mode != "on":
                return False
            await self._written.wait()
        self._log.enter(name, entries.encode(entry(int(self._clock()))), trio.current_time())
        self._changed.set()
        try:
            while self._log.is_entering(name):
                await self._written.wait()
                if not self.is_kept and self._mode != "on":
                    self._log.withdraw(name)
                    return False
        except BaseException:
            self._log.withdraw(name)
            raise
        if self._log.is_durable(name):
            return True
        if self._mode == "on":
            text = "the volume journal has no room for its entry, and --volume-journal=on asks for one"
            raise Refusal(State.NO_CHANGE, text)
        return False

    def leave(self, name: str) -> None:
        """The volume's end is certain."""
        self.inherited.pop(name, None)
        self._log.leave(name)
        self._changed.set()

    def entry(self, name: str) -> Entry | None:
        text = self._log.text(name)
        return entries.understood(text, self._driver) if text is not None else None

    def names(self) -> frozenset[str]:
        return frozenset(self._log.names())

    def _is_fresh(self) -> bool:
        """The term was ours when something that was sent lately was answered."""
        if self._renewed is None:
            return True
        return max(self.confirmed, self._renewed()) >= trio.current_time() - self._fresh

    # ---- the task

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Says `started()` after the take-over, whether it read the journal or switched it off. Raises
        ForeignTermError when another process leads."""
        await self._take_over()
        task_status.started()
        while True:
            if self.off is not None:
                await trio.sleep(ANOTHER_LOOK)
                self.off = None
                await self._take_over()
                continue
            await self._wait_until_due()
            write = self._log.choose(trio.current_time())
            if isinstance(write, str):
                log.warning("The volume journal is full, a volume is made without an entry", PV=write)
                self._wake()
            elif write is not None and await self._send(write):
                await trio.sleep(write.size / BYTES_A_SECOND)

    async def finish(self) -> None:
        """At a stop: takes out what has left, without pauses. The caller bounds it; `run` has ended."""
        while self.is_kept and isinstance(write := self._log.choose(trio.current_time(), at_once=True), Write):
            await self._send(write)

    async def _wait_until_due(self) -> None:
        while True:
            due = self._log.next_due(trio.current_time())
            if due is not None and due <= trio.current_time():
                # Tasks that are ready come in before the write begins.
                await trio.lowlevel.checkpoint()
                return
            self._changed = trio.Event()
            with trio.move_on_at(due if due is not None else trio.current_time() + 3600):
                await self._changed.wait()

    def _wake(self) -> None:
        self._written.set()
        self._written = trio.Event()

    # ---- take-over

    async def _take_over(self) -> None:
        """Every object gets our term, lowest number first, and the one above the highest is made: nobody who led
        before can write a journal any more."""
        self._log = Log(self._driver)
        try:
            found = await self._read_all()
            highest = max((number for number, lease in found.items() if lease is not None), default=-1)
            for number in range(min(highest + 2, NUMBERS)):
                await self._take(number, found.get(number))
            if _term(await self._look(0)) != self._term:
                raise ForeignTermError("the volume journal was taken over by another process meanwhile")
        except KubeError as error:
            self._switch_off(error)
            return
        if self.taken_at is None:
            self.taken_at = trio.current_time()
        if self.inherited:
            log.info("Volumes that were in progress before", entries=len(self.inherited))

    async def _read_all(self) -> dict[int, dict[str, Any] | None]:
        found: dict[int, dict[str, Any] | None] = {}

        async def read(number: int) -> None:
            found[number] = await self._look(number)

        async with trio.open_nursery() as nursery:
            for number in range(NUMBERS):
                nursery.start_soon(read, number)
        return found

    async def _take(self, number: int, lease: dict[str, Any] | None) -> None:
        while lease is None or _term(lease) != self._term:
            try:
                lease = await self._put(number, lease, None)
            except KubeError as error:
                if _is_for_good(error):
                    raise
                lease = await self._look(number)
        self.inherited |= self._log.read(number, lease, trio.current_time())

    # ---- one write

    async def _send(self, write: Write) -> bool:
        """Until it is answered; False if the journal was switched off over it."""
        pause = FIRST_PAUSE
        while True:
            begun = trio.current_time()
            held = self._log.objects.get(write.number)
            try:
                lease = await self._put(write.number, held.lease if held is not None else None, write)
                break
            except KubeError as error:
                if _is_for_good(error):
                    self._switch_off(error)
                    return False
                self._note_failure(error)
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            found = await self._look(write.number)
            if found is None:
                await self._retake()
            elif _term(found) != self._term:
                raise ForeignTermError("the volume journal was taken over by another process")
            elif _entries(found) == write.packed:
                lease = found
                break
            else:
                self._log.rewrite(found)
        self._log.answered(write, lease, trio.current_time())
        self.confirmed = max(self.confirmed, begun)
        self._note_success()
        self._wake()
        return True

    async def _retake(self) -> None:
        """One of ours is gone: whether we lead is seen again before anything is made anew."""
        since = trio.current_time()
        while self._renewed is not None and self._renewed() <= since:  # noqa: ASYNC110 - nobody says when it is
            await trio.sleep(FIRST_PAUSE)
        for number, lease in (await self._read_all()).items():
            held = self._log.objects.get(number)
            if lease is not None and _term(lease) != self._term:
                raise ForeignTermError("the volume journal was taken over by another process")
            if held is not None and lease is not None:
                held.lease = lease
            elif held is not None:
                await self._take_again(number)

    async def _take_again(self, number: int) -> None:
        held = self._log.objects[number]
        lost = Write(number, held.texts, entries.pack(held.texts))
        while True:
            try:
                held.lease = await self._put(number, None, lost)
            except KubeError as error:
                if _is_for_good(error):
                    raise
                if (found := await self._look(number)) is None:
                    continue
                if _term(found) != self._term:
                    raise ForeignTermError("the volume journal was taken over by another process") from error
                held.lease = found
            return

    async def _put(self, number: int, lease: dict[str, Any] | None, write: Write | None) -> dict[str, Any]:
        """The Lease as it then is: with our term, and what `write` says; without a write what it holds."""
        before = lease or {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {}, "spec": {}}
        meta: dict[str, Any] = {"name": self._name(number), "namespace": self._namespace, **before["metadata"]}
        meta["labels"] = {**(meta.get("labels") or {}), "app.kubernetes.io/managed-by": "csi-provisioner"}
        meta["annotations"] = {**(meta.get("annotations") or {}), TERM: self._term}
        if write is not None:
            meta["annotations"][ENTRIES] = write.packed
        body = {**before, "metadata": meta}
        if lease is None:
            answer = await self._client.create(Lease, body, self._namespace)
        else:
            answer = await self._client.put_untyped(Lease, body)
        meta["resourceVersion"], meta["uid"] = answer.metadata.resourceVersion, answer.metadata.uid
        return body

    async def _look(self, number: int) -> dict[str, Any] | None:
        """The object, or None if there is none; asked until it is answered. Raises KubeError for a refusal."""
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._client.get_untyped(Lease, self._name(number), self._namespace)
            except KubeError as error:
                if error.not_found:
                    return None
                if _is_for_good(error):
                    raise
                self._note_failure(error)
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _name(self, number: int) -> str:
        return f"{self._lease}-journal-{number:02}"

    # ---- what goes wrong

    def _note_failure(self, error: KubeError) -> None:
        now = trio.current_time()
        if self._failing_since is None:
            self._failing_since = now
            log.warning("The volume journal cannot be written yet, claims wait for it", err=str(error))
        leads = self._renewed is None or self._renewed() > self._failing_since
        if self._mode == "auto" and not self._bypassed and leads and now - self._failing_since >= self._patience:
            self._bypassed = True
            log.error("The volume journal cannot be written: volumes are made without it meanwhile", err=str(error))
            self._wake()

    def _note_success(self) -> None:
        if self._failing_since is not None:
            log.info("The volume journal is written again")
        self._failing_since, self._bypassed = None, False

    def _switch_off(self, error: KubeError) -> None:
        self.off = str(error)
        self._log.pending = None
        log.error(
            "No volume journal: a volume that is being made when this process dies may be lost with its claim",
            err=str(error),
            advice=self._advice,
            again=f"{ANOTHER_LOOK:g}s",
        )
        self._wake()


def _is_for_good(error: KubeError) -> bool:
    return error.code in FOR_GOOD


def _term(lease: dict[str, Any] | None) -> str | None:
    value: str | None = (lease["metadata"].get("annotations") or {}).get(TERM) if lease is not None else None
    return value


def _entries(lease: dict[str, Any]) -> str | None:
    value: str | None = (lease["metadata"].get("annotations") or {}).get(ENTRIES)
    return value
