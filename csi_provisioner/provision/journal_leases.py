"""The Leases that the volume journal stands in: one request each, and whose a Lease is (design.md 6)."""

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import msgspec
import trio

from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.model.kubernetes import Lease
from csi_provisioner.planning.fnv import fnv1a

T = TypeVar("T")
Object = dict[str, Any]

ENTRIES = "csi-provisioner.io/journal-entries"
TERM = "csi-provisioner.io/journal-term"
# A name has at most 253 characters, and the number still comes
LONGEST = 240
# Requests at a time
TOGETHER = 3
# Seconds for a request: one that hangs keeps every claim waiting
LIMIT = 5.0
FIRST_PAUSE = 0.1
# Answers that the next try would get as well: no right, no namespace, too large
FOR_GOOD = (400, 403, 404, 405, 413, 422)


class ForeignTermError(Exception):
    def __str__(self) -> str:
        return "another process has taken over the volume journal"


def leader_of(lease: str, node: str) -> str:
    """The name that those of the Leases begin with: where each node has a provisioner, each has a journal."""
    whole = f"{lease}-{node}" if node else lease
    return whole if len(whole) <= LONGEST else f"{lease}-{fnv1a(whole):08x}"


class JournalLeases(msgspec.Struct, eq=False):
    """`leader` is the name of the leader's own Lease. `term`, a random word of this leadership, is in all that it
    writes. `pause` waits after a request that failed, for so long, and says how long next time; it raises the error
    where asking again is no use."""

    client: KubeClient
    leader: str
    namespace: str
    pause: Callable[[KubeError, float], Awaitable[float]]
    term: str = msgspec.field(default_factory=lambda: os.urandom(8).hex())

    def name(self, number: int) -> str:
        return f"{self.leader}-journal-{number:02}"

    def is_ours(self, lease: Object | None) -> bool:
        return lease is not None and annotation(lease, TERM) == self.term

    def check(self, lease: Object | None) -> None:
        """Raises ForeignTermError. Somebody who only scribbled in it has left our term, or none."""
        if lease is not None and annotation(lease, TERM) not in (None, self.term):
            raise ForeignTermError

    async def look(self, number: int) -> Object | None:
        """The object, or None if there is none; asked until it is answered. Raises KubeError as `pause`."""
        pause = FIRST_PAUSE
        while True:
            try:
                return await self.get(number)
            except KubeError as error:
                pause = await self.pause(error, pause)

    async def look_at_all(self, count: int) -> dict[int, Object | None]:
        """The first `count`."""
        return await _together(self.look, range(count))

    async def claim_all(self, found: dict[int, Object | None]) -> dict[int, Object]:
        """`claim` each of them: 00 before all others, so that of two who do so at once one has all, and those that are
        to be made last, the lowest first: else an old leader could make it."""

        async def claim(number: int) -> Object:
            return await self.claim(number, found[number])

        claimed = {0: await claim(0)}
        claimed |= await _together(claim, [number for number, lease in found.items() if number and lease is not None])
        for number in sorted(found.keys() - claimed.keys()):
            claimed[number] = await claim(number)
        return claimed

    async def claim(
        self, number: int, lease: Object | None, packed: str | None = None, *, check: bool = False
    ) -> Object:
        """Puts our term into it, for certain. With `check` another one that is there is not overwritten."""
        pause = FIRST_PAUSE
        while lease is None or not self.is_ours(lease):
            try:
                lease = await self.put(number, lease, packed)
            except KubeError as error:
                pause = await self.pause(error, pause)
                lease = await self.look(number)
                if check:
                    self.check(lease)
        return lease

    async def get(self, number: int) -> Object | None:
        """None: there is none."""
        try:
            return await _in_time(self.client.get_untyped(Lease, self.name(number), self.namespace))
        except KubeError as error:
            if error.not_found:
                return None
            raise

    async def put(self, number: int, lease: Object | None, packed: str | None = None) -> Object:
        """The Lease as it then is: with our term, and with these entries; without any with those that it has. Its
        resourceVersion and UID are those of `lease`; without one it is made."""
        meta: Object = {"name": self.name(number), "namespace": self.namespace}
        meta |= lease["metadata"] if lease is not None else {}
        meta.pop("managedFields", None)
        meta["labels"] = {**(meta.get("labels") or {}), "app.kubernetes.io/managed-by": "csi-provisioner"}
        meta["annotations"] = {**(meta.get("annotations") or {}), TERM: self.term}
        if packed is not None:
            meta["annotations"][ENTRIES] = packed
        body = {**(lease or {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}), "metadata": meta}
        if lease is None:
            answer = await _in_time(self.client.create(Lease, body, self.namespace))
        else:
            answer = await _in_time(self.client.put_untyped(Lease, body))
        meta["resourceVersion"], meta["uid"] = answer.metadata.resourceVersion, answer.metadata.uid
        return body


def is_for_good(error: KubeError) -> bool:
    """A Lease that is gone can be made again."""
    return error.code in FOR_GOOD and not error.unavailable and not error.not_found


def annotation(lease: Object, key: str) -> str | None:
    value: str | None = (lease["metadata"].get("annotations") or {}).get(key)
    return value


async def _together(ask: Callable[[int], Awaitable[T]], numbers: Iterable[int]) -> dict[int, T]:
    """A few at a time: one after the other they would be half of a leader's start, and all at once they would each
    have to make a connection."""
    found: dict[int, T] = {}
    errors: list[KubeError] = []
    left = iter(sorted(numbers))

    async def work() -> None:
        try:
            for number in left:
                found[number] = await ask(number)
        except KubeError as error:  # the caller gets one error, not a group
            errors.append(error)

    async with trio.open_nursery() as asking:
        for _ in range(TOGETHER):
            asking.start_soon(work)
    if errors:
        raise errors[0]
    return found


async def _in_time(request: Awaitable[T]) -> T:
    with trio.move_on_after(LIMIT):
        return await request
    raise KubeError(0, "Timeout", f"the volume journal: no answer within {LIMIT:g} s")
