"""Is the process alive, is it ready: what probes are told of the state, one condition a line (process.md 7).

`/livez` fails only for what a restart heals. A driver, an API server or a right that is missing is not healed by one.
"""

from csi_provisioner.model.state import State

STALLED = 30.0
"""Seconds after which a queue that takes nothing, although it could, is taken for stuck."""

OK, FAILED, NOTE = "[+]", "[-]", "[!]"
Condition = tuple[str, str]
"""The mark and the text."""


def live(state: State) -> list[Condition]:
    stuck = [queue for queue in state.queues if queue.stalled >= STALLED]
    conditions = [
        (FAILED, f"queue {queue.name}: a key is due and a worker is free, and none was taken for {queue.stalled:.0f} s")
        for queue in stuck
    ]
    conditions += [(FAILED, f"task {name}: has ended") for name in state.ended]
    return conditions or [(OK, "alive: ok")]


def ready(state: State) -> list[Condition]:
    return [_driver(state), _caches(state), _leadership(state), *_rights(state)]


def text(conditions: list[Condition]) -> tuple[bool, str]:
    """Whether all is well, and the lines."""
    well = all(mark != FAILED for mark, _ in conditions)
    return well, "".join(f"{mark} {line}\n" for mark, line in conditions)


def _driver(state: State) -> Condition:
    driver = state.driver
    if driver.ready:
        return OK, "driver: ok"
    if driver.away is None:
        return FAILED, "driver: not met yet"
    return FAILED, f"driver: {driver.name} has not answered for {driver.away:.0f} s; look at its container"


def _caches(state: State) -> Condition:
    if state.leadership.sought and not state.leadership.leads:
        return OK, "caches: ok: standing by"
    if not state.begun:
        return FAILED, "caches: not begun"
    if state.unsynced:
        return FAILED, f"caches: waiting for the first list of {', '.join(state.unsynced)}"
    return OK, "caches: ok"


def _leadership(state: State) -> Condition:
    leadership = state.leadership
    if leadership.trouble:
        return FAILED, f"leadership: {leadership.trouble}"
    if not leadership.sought:
        return OK, "leadership: ok: no election"
    return OK, "leadership: ok: leading" if leadership.leads else "leadership: ok: standing by"


def _rights(state: State) -> list[Condition]:
    rights = state.rights
    if not rights.known:
        return [(NOTE, "rights: not known")]
    conditions = [(FAILED, f"rights: missing: {right}") for right in rights.missing]
    conditions += [(NOTE, f"rights: missing: {right}") for right in rights.lacking]
    return conditions or [(OK, "rights: ok")]
