"""Misbehaviour on request: which call is delayed, held, refused or answered wrongly. Decides; `server` acts on it."""

import re
from collections.abc import Iterable

import msgspec
import trio


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that goes wrong with the calls it matches.

    `match` is searched for in the volume's name, its id and the claim's "namespace/name" (known when the provisioner
    runs with --extra-create-metadata). The parts apply in the order of the fields: wait `delay` seconds, wait for the
    gate, hang until the caller gives up, refuse with `code` (`created`: having done the work all the same), or answer
    with changes.
    """

    rpc: str = "CreateVolume"
    match: str = ""
    times: int | None = None  # None: every time
    delay: float = 0.0
    gate: str = ""
    hang: bool = False
    code: str = ""
    message: str = "injected fault"
    created: bool = False
    # changes of an answer
    capacity_delta: int = 0
    volume_id: str | None = None
    volume_context: dict[str, str] | None = None
    accessible_topology: tuple[dict[str, str], ...] | None = None
    drop_content_source: bool = False
    no_volume: bool = False
    next_token: str = ""  # of a list
    not_ready: bool = False  # Probe


class Faults:
    """The faults in force, oldest first, and the gates they may wait at. May be changed while the driver runs."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._gates: dict[str, trio.Event] = {}
        self._left: list[tuple[Fault, int | None]] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        self._left.append((fault, fault.times))

    def clear(self) -> None:
        self._left.clear()

    def gate(self, name: str) -> trio.Event:
        """The gate of this name; `.set()` lets every call through that waits there, now and later."""
        return self._gates.setdefault(name, trio.Event())

    def take(self, rpc: str, subjects: Iterable[str]) -> Fault | None:
        """The first fault that matches a call with these subjects; one of its times is used up."""
        subjects = list(subjects) or [""]
        for index, (fault, left) in enumerate(self._left):
            if fault.rpc != rpc or not any(re.search(fault.match, subject) for subject in subjects):
                continue
            if left == 1:
                del self._left[index]
            elif left is not None:
                self._left[index] = (fault, left - 1)
            return fault
        return None
