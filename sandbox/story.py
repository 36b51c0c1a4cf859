"""What happens to the claims of the demonstration, told line by line as it happens.

The story listens at the two ends that the provisioner works on, the stored objects and the driver's calls; it changes
nothing. It also counts, so that the demonstration knows when a chapter is over.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, TextIO

import trio

from sandbox.api.kinds import Kind
from sandbox.api.objects import Objects
from sandbox.api.storage import Change
from sandbox.driver import Call, Driver

# Up to so many claims every step of every claim gets a line; beyond, one line of numbers moves.
FEW = 5
# Seconds between two states of the line of numbers: on a terminal it is written over, elsewhere each is a line.
_PACE, _PACE_OF_LINES = 0.1, 2.0

# Short enough for all of a chapter to fit on a line of 80 with its numbers.
CREATED, MADE, WRITTEN, BOUND = "created", "volumes made", "PVs written", "Bound"
DELETED, GONE, REMOVED = "deleted", "volumes gone", "PVs gone"
_CHAPTERS = ((CREATED, MADE, WRITTEN, BOUND), (DELETED, GONE, REMOVED))

Object = dict[str, Any]


class Story:
    """Tells and counts what `claims` claims go through; `out` may be a terminal, a file or a pipe. Without a driver
    only what the API shows is told."""

    def __init__(self, objects: Objects, driver: Driver | None, claims: int, out: TextIO) -> None:
        self.in_numbers = claims > FEW
        self._total = claims
        self._driver = driver
        self._out = out
        self._pace = _PACE if out.isatty() else _PACE_OF_LINES
        self._began = self._shown = trio.current_time()
        self._claims: dict[str, str] = {}  # names by UID
        self._volumes: dict[str, str] = {}  # the claim's name by volume id
        self._reached: dict[str, set[str]] = {step: set() for chapter in _CHAPTERS for step in chapter}
        self._chapter: tuple[str, ...] = _CHAPTERS[0]
        self._changed = trio.Event()
        if driver is not None:
            driver.on_call = partial(self._see_call, driver)
        objects.storage.listen(self._see_change)

    def say(self, text: str = "") -> None:
        self._out.write(f"\r\x1b[K{text}\n" if self._out.isatty() else f"{text}\n")
        self._out.flush()

    def line(self, text: str) -> None:
        self.say(f"{trio.current_time() - self._began:7.2f} s  {text}")

    def missing(self, step: str, claims: Iterable[str]) -> list[str]:
        return sorted(set(claims) - self._reached[step])

    async def until(self, step: str) -> None:
        """Wait until all claims have come so far."""
        # The numbers that are shown are those of the chapter that is being told.
        self._chapter = next(chapter for chapter in _CHAPTERS if step in chapter)
        while len(self._reached[step]) < self._total:
            await self._changed.wait()
        if self.in_numbers:
            self.line(self._numbers())

    def _tell(self, claim: str, text: str, step: str = "") -> None:
        if step:
            self._reached[step].add(claim)
            self._changed.set()
            self._changed = trio.Event()
        if not self.in_numbers:
            self.line(f"{claim}: {text}")
        elif trio.current_time() - self._shown >= self._pace:
            self._shown = trio.current_time()
            if self._out.isatty():
                self._out.write(f"\r\x1b[K{self._numbers()}")
                self._out.flush()
            else:
                self.line(self._numbers())

    def _numbers(self) -> str:
        return f"{self._total} claims: " + ", ".join(
            f"{step} {len(self._reached[step])}"
            for step in self._chapter
            if self._driver is not None or step not in (MADE, GONE)
        )

    # ---- seen at the API

    def _see_change(self, kind: Kind, change: Change) -> None:
        now, before = change.now.obj, change.before.obj if change.before else None
        if kind.name == "PersistentVolumeClaim":
            self._see_claim(now, before, change.deleted)
        elif kind.name == "PersistentVolume":
            self._see_volume(now, before, change.deleted)
        elif kind.name == "Event" and now.get("type") == "Warning" and not change.deleted:
            self._tell(now["involvedObject"].get("name", ""), f"warning {now.get('reason')}: {now.get('message')}")

    def _see_claim(self, claim: Object, before: Object | None, deleted: bool) -> None:
        name = claim["metadata"]["name"]
        if deleted:
            self._tell(name, "claim deleted", DELETED)
        elif before is None:
            self._claims[claim["metadata"]["uid"]] = name
            asked = f"{claim['spec']['resources']['requests']['storage']} {', '.join(claim['spec']['accessModes'])}"
            self._tell(name, f"claim created, asks for {asked}", CREATED)
        elif _phase(claim) == "Bound" != _phase(before):
            self._tell(name, f"claim Bound to {claim['spec']['volumeName']}", BOUND)

    def _see_volume(self, volume: Object, before: Object | None, deleted: bool) -> None:
        claim = self._claims.get(volume["spec"].get("claimRef", {}).get("uid", ""))
        if claim is None:
            return
        name = volume["metadata"]["name"]
        if deleted:
            self._tell(claim, f"PersistentVolume {name} gone", REMOVED)
        elif before is None:
            self._tell(claim, f"PersistentVolume {name} written", WRITTEN)

    # ---- seen at the driver

    def _see_call(self, driver: Driver, call: Call) -> None:
        if call.rpc == "CreateVolume":
            self._see_creation(driver, call.request.name, call)
        elif call.rpc == "DeleteVolume":
            self._see_deletion(call.request.volume_id, call)

    def _see_creation(self, driver: Driver, name: str, call: Call) -> None:
        claim = self._claims.get(name[-36:], name)  # a volume's name ends in the claim's UID, unless a flag shortens it
        volume = driver.state.volume_named(name)
        if call.running:
            self._tell(claim, f"CreateVolume asked for {name}")
        elif call.code == "OK" and volume:
            self._volumes[volume.id] = claim
            self._tell(claim, f"volume made: {volume.id}", MADE)
        else:
            self._tell(claim, f"CreateVolume failed: {call.code or 'given up by the caller'}")

    def _see_deletion(self, volume_id: str, call: Call) -> None:
        claim = self._volumes.get(volume_id, volume_id)
        if call.running:
            self._tell(claim, f"DeleteVolume asked for {volume_id}")
        elif call.code == "OK":
            self._tell(claim, f"volume gone: {volume_id}", GONE)
        else:
            self._tell(claim, f"DeleteVolume failed: {call.code or 'given up by the caller'}")


def _phase(obj: Object) -> str:
    phase: str = obj.get("status", {}).get("phase", "")
    return phase
