"""What probes are told, one condition a line (process.md 7)."""

import pytest

from csi_provisioner.diagnostics.health import live, ready, text
from csi_provisioner.model.state import DriverState, LeadershipState, QueueState, RightsState, State

MET = DriverState("csi.example.com", ready=True)
LEADS = LeadershipState(sought=True, leads=True)
STANDS_BY = LeadershipState(sought=True)
KNOWN = RightsState(known=True)
WELL = State(driver=MET, leadership=LEADS, rights=KNOWN)

READY: dict[str, tuple[State, bool, str]] = {
    "leading": (WELL, True, "[+] driver: ok\n[+] caches: ok\n[+] leadership: ok: leading\n[+] rights: ok\n"),
    "standing by": (State(MET, STANDS_BY, rights=KNOWN), True, "[+] caches: ok: standing by"),
    "no election": (State(MET, LeadershipState(leads=True), rights=KNOWN), True, "[+] leadership: ok: no election"),
    "driver not met": (State(leadership=STANDS_BY), False, "[-] driver: not met yet"),
    "nothing begun": (State(begun=False), False, "[-] caches: not begun"),
    "a leader before its work": (State(MET, LEADS, begun=False), False, "not begun\n[+] leadership: ok: leading"),
    "standing by before any work": (State(MET, STANDS_BY, begun=False), True, "[+] caches: ok: standing by"),
    "driver away": (
        State(DriverState("csi.example.com", away=12.4), STANDS_BY, rights=KNOWN),
        False,
        "[-] driver: csi.example.com has not answered for 12 s",
    ),
    "caches wait": (State(MET, LEADS, ("Node", "PersistentVolume"), rights=KNOWN), False, "Node, PersistentVolume"),
    "not renewed": (
        State(MET, LeadershipState(sought=True, leads=True, trouble="last renewed 40 s ago"), rights=KNOWN),
        False,
        "[-] leadership: last renewed 40 s ago",
    ),
    "rights not known": (State(MET, LEADS), True, "[!] rights: not known"),
    "a needed right": (
        State(MET, LEADS, rights=RightsState(known=True, missing=("list nodes",))),
        False,
        "[-] rights: missing: list nodes",
    ),
    "another right": (
        State(MET, LEADS, rights=RightsState(known=True, lacking=("patch events",))),
        True,
        "[!] rights: missing: patch events",
    ),
}


@pytest.mark.parametrize(("state", "well", "line"), READY.values(), ids=READY.keys())
def test_readiness_is_what_work_needs(state: State, well: bool, line: str) -> None:
    found, lines = text(ready(state))
    assert found is well
    assert line in lines


LIVE: dict[str, tuple[State, bool]] = {
    "at the start": (State(), True),
    "driver away": (State(DriverState("d", away=1000)), True),
    "a lost lease": (State(MET, LeadershipState(sought=True, leads=True, trouble="lost")), True),
    "caches wait": (State(MET, LEADS, ("Node",)), True),
    "a right": (State(MET, LEADS, rights=RightsState(known=True, missing=("list nodes",))), True),
    "a backlog": (State(MET, LEADS, queues=(QueueState("claims", due=1000, running=100, oldest=600),)), True),
    "a moment of nothing": (State(MET, LEADS, queues=(QueueState("claims", 1, stalled=29),)), True),
    "nothing taken": (State(MET, LEADS, queues=(QueueState("claims", 1, stalled=30),)), False),
    "a task that has ended": (State(MET, LEADS, ended=("watch of Node",)), False),
}


@pytest.mark.parametrize(("state", "well"), LIVE.values(), ids=LIVE.keys())
def test_only_what_a_restart_heals_ends_the_process(state: State, well: bool) -> None:
    assert text(live(state))[0] is well
