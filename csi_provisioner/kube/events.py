"""Events on the objects we work for: recorded at once, written in the background, never in anybody's way.

`record` only logs and notes: no waiting. What repeats (same object, source, type, reason and failure class, whatever
its text) is one Event in the cluster: count and newest message are patched. Each object has a line of its own,
written in order; lines wait for their turn, behind volume writes as long as `busy` says there are any.

A beginning may be held back for a moment: where its end is told before it is written, only the end is.

Memory is bounded by the number of lines: the least recently used goes first, with what it still had to say. When the
API server pushes back, an event is tried a few times and then dropped; its count stays and goes with the next repeat.
Spec: process.md 5.3, provision.md 11.1, design rule 5.
"""

import random as randomness
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

import msgspec
import trio
from lightkube.core.resource import Resource, api_info

from csi_provisioner.advice import advice
from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.errors import KubeError, Troubles, unless_gone
from csi_provisioner.logs import escaped, log
from csi_provisioner.model.kubernetes import Event, EventSource, ObjectMeta, ObjectReference

About = Resource | ObjectReference
EventType = Literal["Normal", "Warning"]

# Objects whose events are remembered or still to be written: about 1 KB each
LINES = 4096
# Events remembered of one object: reasons times failure classes, of which few happen to one object
SERIES = 16
# So many writes per source and object at once, then one each so many seconds (process.md 5.3)
BURST, REFILL = 25.0, 300.0
# Enough to hide the server's latency; more would only compete with volume writes
WRITERS = 4
# When the server pushes back: about 1, 2 and 4 s between tries, then the event is dropped
TRIES, FIRST_PAUSE = 4, 1.0
# Seconds for all of these tries: the client obeys Retry-After within one, and others wait in line
LONGEST_TRY = 15.0
# Seconds an event waits for volume writes at most: under lasting load events still appear
PATIENCE = 5.0
BUSY_POLL = 0.2
# Seconds that a beginning is held back: most drivers have made the volume by then
HELD = 1.0
# Verbosity at which events that are merged are logged
REPEATED = 3
SECOND = 1_000_000_000  # in nanoseconds
# What the API server takes of a message and of a name
LONGEST_MESSAGE, LONGEST_NAME = 1024, 253


class _Series(msgspec.Struct, gc=False):
    """What repeats: one Event in the cluster."""

    type: EventType
    reason: str
    failure_class: str
    first: int
    """Nanoseconds since the epoch, no two alike: also the Event's name, so that a create whose answer was lost is not
    done twice."""
    last: int = 0
    message: str = ""
    count: int = 0
    created: bool = False


class _Line(msgspec.Struct):
    """The events of one object from one source, and its right to write some."""

    component: str
    about: ObjectReference
    refilled: float
    tokens: float = BURST
    series: list[_Series] = []
    due: list[_Series] = []
    """What is to be written, in the order in which it happened."""
    waits_since: float = 0.0
    in_hand: bool = False
    """A writer is at it and will see what becomes due meanwhile."""
    over: bool = False
    """Nothing more is expected of it: forgotten once it is written."""


_LineKey = tuple[str, str]
"""The events' source and the object, by UID if it has one."""


class EventRecorder(msgspec.Struct, eq=False, dict=True):
    """`busy` says that more important writes are under way: events then wait, but not longer than `PATIENCE`."""

    client: KubeClient
    component: str
    busy: Callable[[], bool] = lambda: False
    now: Callable[[], int] = time.time_ns
    random: Callable[[], float] = randomness.random

    def __post_init__(self) -> None:
        self._stamp = 0
        self._lines: OrderedDict[_LineKey, _Line] = OrderedDict()  # least recently used first
        self._ready: OrderedDict[_LineKey, _Line] = OrderedDict()  # longest waiting first
        self._held: OrderedDict[_LineKey, float] = OrderedDict()  # until when; the soonest first
        self._in_hand = 0
        self._idle_writers = trio.lowlevel.ParkingLot()
        self._idle_holder = trio.lowlevel.ParkingLot()
        self._watchers = trio.lowlevel.ParkingLot()
        self._troubles = Troubles(set())

    def record(
        self,
        about: About,
        type_: EventType,
        reason: str,
        message: str,
        failure_class: str = "",
        component: str = "",
        hold: bool = False,
        ends: str = "",
        level: int = 0,
    ) -> None:
        """Tells what has happened. Cheap, never waits, never fails; needs a running event loop.

        With `hold` it is written when its object has more to tell, at the latest after `HELD`. With `ends` it is the
        last that is expected of its object: it is written whatever was written before, and a first beginning of that
        reason is not any more if it still waits.
        `level`: of its line in the log.
        """
        ref = about if isinstance(about, ObjectReference) else reference(about)
        now = trio.current_time()
        line_key = (component or self.component, ref.uid or f"{ref.kind}/{ref.namespace}/{ref.name}")
        line = self._line(line_key, ref, now)
        series = self._series(line, type_, reason, failure_class)
        series.count += 1
        series.last = self._stamp
        message = escaped(message)
        series.message = message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"
        # Also for those whose cluster takes no events: what was done for whom is in the log without any verbosity.
        fields = {"kind": ref.kind, "type": type_, "reason": reason, "message": series.message}
        log.v(level if series.count == 1 else REPEATED, "Event occurred", object=ref, **fields)
        line.over = bool(ends)
        if ends and [(due.reason, due.count) for due in line.due] == [(ends, 1)]:
            line.due.clear()
        need = 1.0
        if series.count == 1:
            need = 0.0  # it may never be told again, so it takes one in advance
        elif type_ == "Normal" and any(each.type == "Warning" for each in line.series):
            need = 2.0  # where each try fails, their beginnings would take all that comes back
        if series in line.due or not (_may_write(line, now, need) or ends):
            return
        line.due.append(series)
        if hold and not line.in_hand and line_key not in self._ready:
            self._held.setdefault(line_key, now + HELD)
            self._idle_holder.unpark()
        else:
            self._make_ready(line_key, line)

    def _make_ready(self, line_key: _LineKey, line: _Line) -> None:
        self._held.pop(line_key, None)
        if not line.in_hand and line_key not in self._ready:
            line.waits_since = trio.current_time()
            self._ready[line_key] = line
            self._idle_writers.unpark()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Writes until it is cancelled; what has not been written then is lost (see `wait_written`)."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._let_go)
            for _ in range(WRITERS):
                nursery.start_soon(self._write_forever)
            task_status.started()

    async def wait_written(self) -> None:
        """Until there is nothing to write. For an orderly end, under a deadline of the caller."""
        for line_key in list(self._held):
            self._make_ready(line_key, self._lines[line_key])
        while self._ready or self._in_hand:
            await self._watchers.park()

    # ---- what is remembered

    def _line(self, line_key: _LineKey, ref: ObjectReference, now: float) -> _Line:
        line = self._lines.setdefault(line_key, _Line(line_key[0], ref, now))
        line.about = ref
        self._lines.move_to_end(line_key)
        if len(self._lines) > LINES:
            oldest, dropped = self._lines.popitem(last=False)
            self._held.pop(oldest, None)  # also of one whose end has left nothing to say
            if dropped.due:
                log.v(2, "Too many events waiting, dropping some", object=dropped.about, events=len(dropped.due))
                dropped.due.clear()  # a writer may have it in hand
                self._ready.pop(oldest, None)
        return line

    def _series(self, line: _Line, type_: EventType, reason: str, failure_class: str) -> _Series:
        self._stamp = max(self.now(), self._stamp + 1)
        for series in line.series:
            if (series.type, series.reason, series.failure_class) == (type_, reason, failure_class):
                return series
        line.series = [*line.series[1 - SERIES :], _Series(type_, reason, failure_class, self._stamp)]
        return line.series[-1]

    # ---- writing

    async def _let_go(self) -> None:
        while True:
            while not self._held:
                await self._idle_holder.park()
            line_key, until = next(iter(self._held.items()))
            await trio.sleep_until(until)
            if self._held.get(line_key) == until:  # its end was not told meanwhile
                self._make_ready(line_key, self._lines[line_key])

    async def _write_forever(self) -> None:
        while True:
            while not self._ready:
                await self._idle_writers.park()
            line_key, line = self._ready.popitem(last=False)
            line.in_hand = True
            self._in_hand += 1
            while line.due:
                # Volumes first, but not for ever.
                while self.busy() and trio.current_time() < line.waits_since + PATIENCE:  # noqa: ASYNC110 - a question
                    await trio.sleep(BUSY_POLL)
                if line.due:  # not forgotten meanwhile; whatever happens from now on is due again
                    await self._write(line, line.due.pop(0))
            line.in_hand = False
            self._in_hand -= 1
            if line.over and self._lines.get(line_key) is line:
                del self._lines[line_key]
            if not self._ready and not self._in_hand:
                self._watchers.unpark_all()

    async def _write(self, line: _Line, series: _Series) -> None:
        message, series.message = series.message, ""
        with trio.move_on_after(LONGEST_TRY):
            pause = 0.0
            for failures in range(TRIES):
                if pause:
                    await trio.sleep(pause)
                try:
                    await self._send(line, series, message)
                except KubeError as error:
                    if not error.unavailable:
                        self._refused(line, error)
                        return
                    pause = max(FIRST_PAUSE * 2.0**failures * (0.5 + self.random()), error.floor)
                    log.v(4, "Event not written yet", object=line.about, reason=series.reason, err=str(error))
                except Exception as error:  # a defect costs this event, and one line for each kind of it
                    if self._troubles.is_news("defect", type(error).__name__):
                        log.exception("Unexpected error, event dropped", object=line.about)
                    else:
                        log.v(3, "Unexpected error again, event dropped", object=line.about, err=repr(error))
                    return
                else:
                    return
        log.v(2, "Event dropped, the API server is busy", object=line.about, reason=series.reason)

    async def _send(self, line: _Line, series: _Series, message: str) -> None:
        namespace = line.about.namespace or "default"
        # What is cut may not end as no name does.
        name = f"{line.about.name[: LONGEST_NAME - 17].rstrip('-.')}.{series.first:x}"
        if series.created:
            news = {"count": series.count, "message": message, "lastTimestamp": _timestamp(series.last // SECOND)}
            with unless_gone():
                await self.client.patch(Event, name, news, namespace, strategy="merge")
                return
            series.created = False  # aged out: made again under its name
        event = Event(
            ObjectMeta(name, namespace),
            involvedObject=line.about,
            type=series.type,
            reason=series.reason,
            message=message,
            source=EventSource(line.component),
            reportingComponent=line.component,
            count=series.count,
            firstTimestamp=_timestamp(series.first // SECOND),
            lastTimestamp=_timestamp(series.last // SECOND),
        )
        try:
            await self.client.create(Event, event, namespace)
        except KubeError as error:
            if not error.already_exists:  # else an earlier try got through
                raise
        series.created = True

    def _refused(self, line: _Line, error: KubeError) -> None:
        """Nobody waits for an event: a namespace on its way out, or a right we do not have, costs one line of log."""
        permission = error.forbidden and "being terminated" not in error.message
        if permission and self._troubles.is_news("refusal", "missing right"):
            what = advice(error, right="create and patch on events of the core API group")
            log.error("Events cannot be written, going on without", err=str(error), advice=what)
        else:
            log.v(4, "Event dropped", object=line.about, err=str(error))


def reference(obj: Resource) -> ObjectReference:
    """What `involvedObject` of an event about `obj` says."""
    resource = api_info(obj).resource
    meta: ObjectMeta = obj.metadata  # type: ignore[attr-defined]  # all our Structs have it
    version = meta.resourceVersion
    return ObjectReference(resource.kind, resource.api_version, meta.name, meta.namespace, meta.uid, version)


def _may_write(line: _Line, now: float, need: float) -> bool:
    line.tokens = min(BURST, line.tokens + (now - line.refilled) / REFILL)
    line.refilled = now
    if line.tokens < need:
        return False
    line.tokens -= 1
    return True


@lru_cache(maxsize=8)  # a burst writes the same seconds over and over
def _timestamp(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
