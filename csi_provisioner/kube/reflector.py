"""Keeps a store equal to what the API server holds of one kind, for ever: the effects of `kube/watching.py`.

Asks what the state says, feeds the store as its only writer, waits out the pauses, and tells people once what keeps it
from its work. What to ask next is decided in `watching`; what handlers hear, in `store`. Spec: process.md 5.3.

Nothing is buffered here: a slow handler slows the reading, and the server ends a watch that lags too far behind, which
is resumed. Objects shrink to what the store keeps page by page, so that a large list is never in memory as a whole.
"""

import random as randomness
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Generic, NoReturn, TypeVar

import trio
from lightkube.core.generic_client import ALL_NS
from lightkube.core.resource import Resource, api_info

from csi_provisioner.advice import advice, row
from csi_provisioner.kube import watching
from csi_provisioner.kube.answer import wanted
from csi_provisioner.kube.client import EVERYWHERE, KubeClient, Scope, WatchEvent
from csi_provisioner.kube.errors import KubeError, Troubles
from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import key as key_of

T = TypeVar("T", bound=Resource)

SHORTEST_WATCH, LONGEST_WATCH = 300, 600
"""process.md 5.3: seconds we ask the server to keep a watch open; random, so that not all watches end together. Nor is
it left alone for longer, whatever `Retry-After` says."""

INACTIVITY = 70.0
"""Seconds without a line after which a watch is given up, where there are bookmarks: one comes each minute."""

LATE = 10.0
"""Seconds that a server may take longer to end a watch than it was asked to, before it counts as silent."""

RESYNC = 15 * 60.0
"""process.md 5.3: seconds until handlers are told of everything again, in case something was missed."""

REPLAYED_AT_ONCE = 200
"""Objects a resync tells in a row before other tasks get their turn."""

# What people are told of: a list that is not given, a watch that is not opened, one that does not get on
LIST, WATCH, FOLLOW = "list", "watch", "follow"


@dataclass(eq=False)
class Reflector(Generic[T]):
    """`resync` seconds apart, handlers are called for every kept object. `on_event` is told of each object that an
    event shows, with the event's own bytes, before the store is.
    """

    client: KubeClient
    kind: type[T]
    store: Store[T]
    scope: Scope = EVERYWHERE
    resync: float = RESYNC
    on_event: Callable[[T, bytes], None] | None = None
    page: int = 500
    random: Callable[[], float] = randomness.random

    def __post_init__(self) -> None:
        self._gathered: dict[str, T | None] = {}
        self._bookmarks = False  # whether this server sends any
        self._troubles = Troubles(self.client.troubles)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Says `started()` when the store is whole for the first time; ends only by being cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._replay_forever)
                await self._follow(task_status)
        finally:
            self._troubles.over(LIST, WATCH, FOLLOW)  # whoever meets them next tells them

    async def _follow(self, task_status: trio.TaskStatus[None]) -> NoReturn:
        state: watching.State = watching.Listing()
        synced, next_list = False, -inf
        while True:
            happened: watching.Happened
            if isinstance(state, watching.Watching):
                happened = await self._watch(state)
            else:
                if state.token is None:
                    await trio.sleep_until(next_list)
                happened = await self._list(state)
            step = watching.step(state, happened)
            if isinstance(state, watching.Listing) and isinstance(step.state, watching.Watching):
                self.store.replace(self._gathered, step.state.version)
                self._gathered = {}
                log.v(3, "List complete", kind=self.kind.__name__, objects=len(self.store))
                if synced:
                    next_list = trio.current_time() + watching.LIST_GAP
                else:
                    synced = True
                    task_status.started()
            state = step.state
            if step.pause:
                pause = watching.pause_after(state.failures, self.random())
                await trio.sleep(max(pause, min(step.floor, LONGEST_WATCH)))

    async def _list(self, state: watching.Listing) -> watching.Happened:
        if state.token is None:
            self._gathered = {}
        try:
            page = await self.client.list_page(self.kind, self.scope, limit=self.page, continue_token=state.token)
        except KubeError as error:
            self._report(LIST, error, quiet=error.code == 410)
            return watching.Failed(error.code, error.retry_after or 0.0)
        for obj in page.items:
            self.store.admit(obj, self._gathered)
        for key in page.unreadable:
            if key:
                self.store.keep(key, self._gathered)
        self._resolve(LIST)
        return watching.Page(page.resource_version, page.continue_token or None)

    async def _watch(self, state: watching.Watching) -> watching.Ended:
        version, advanced = state.version, False
        seconds = SHORTEST_WATCH + int((LONGEST_WATCH - SHORTEST_WATCH) * self.random())
        opened: float | None = None
        error: KubeError | None = None
        with trio.move_on_after(INACTIVITY) as silence:
            try:
                async with self.client.watch(
                    self.kind, self.scope, resource_version=version, timeout_seconds=seconds
                ) as events:
                    opened = trio.current_time()
                    if FOLLOW not in self._troubles:
                        self._resolve(WATCH)
                    silence.deadline = opened + (INACTIVITY if self._bookmarks else seconds + LATE)
                    async for event, line in events:
                        version = self._show(event, line) or version
                        if not advanced and watching.is_above(version, state.version):
                            advanced = True
                            self._resolve(WATCH, FOLLOW)
                        if self._bookmarks:
                            silence.deadline = trio.current_time() + INACTIVITY
            except KubeError as caught:
                error = caught
        lasted = None if opened is None else trio.current_time() - opened
        if silence.cancelled_caught:
            error = KubeError(0, "Silent", "nothing came for too long: the connection must be dead")
        return self._judged(state, version, advanced, lasted, error)

    def _judged(
        self, state: watching.Watching, version: str, advanced: bool, lasted: float | None, error: KubeError | None
    ) -> watching.Ended:
        """What has come of a watch; people are told if it did not get on."""
        code, floor = (None, 0.0) if error is None else (error.code, error.retry_after or 0.0)
        unknown = error is not None and "ResourceVersionTooLarge" in error.causes
        ended = watching.Ended(version, advanced, lasted, code, unknown, floor)
        if error is None:
            error = KubeError(0, "", f"the server ended it after {lasted or 0:.1f} s, and nothing new had come")
        error.doing = error.doing or str(wanted("watch", self.kind, "", self.scope.namespace))
        if not ended.progress:
            # A version that has expired or a connection that was lost is everyday life, the next one in a row is not.
            everyday = ended.expired or (lasted is not None and not code and error.reason != "InvalidAnswer")
            what = WATCH if lasted is None and not ended.expired else FOLLOW
            self._report(what, error, quiet=everyday and not state.stuck)
        elif code is None:
            self._resolve(WATCH, FOLLOW)
        else:
            log.v(2, "Watch ended, resuming it", kind=self.kind.__name__, err=error)
        return ended

    def _show(self, event: WatchEvent[T], line: bytes) -> str:
        """Passes one event on; answers the version it shows."""
        if self.on_event is not None:
            self.store.guarded(self.on_event, None, key_of(event.object), event.object, line)
        version: str = event.object.metadata.resourceVersion  # type: ignore[attr-defined]  # all our Structs have it
        match event.type:
            case "ADDED" | "MODIFIED":
                self.store.put(event.object)
            case "DELETED":
                self.store.drop(event.object)
            case "BOOKMARK":
                self._bookmarks = True
                self.store.reached(version)
        return version

    async def _replay_forever(self) -> None:
        while True:
            await trio.sleep(self.resync)
            for count, key in enumerate(self.store.shown_keys(), start=1):
                self.store.replay(key)
                if count % REPLAYED_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    # ---- what people are told

    def _report(self, what: str, error: KubeError, *, quiet: bool) -> None:
        """`quiet`: not worth a line yet."""
        kind, info, trouble = self.kind.__name__, api_info(self.kind), f"{what}: {error}"
        cause = row(trouble).cause + (f" of {kind}" if error.code in (403, 404) else "")
        if quiet or not self._troubles.is_news(what, cause):
            log.v(3, f"Cannot {what} yet", kind=kind, err=error)
            return
        group = info.resource.group or '""'
        where = "the whole cluster" if self.scope.namespace == ALL_NS else f"namespace {self.scope.namespace}"
        facts = {
            "right": f"get, list and watch on {info.plural} of API group {group} in {where}",
            "kind": f"{info.resource.api_version} {info.plural}",
            "gap": f"{watching.LIST_GAP:g} s",
        }
        log.error(f"Cannot {what}, trying on", kind=kind, err=error, advice=advice(trouble, **facts))

    def _resolve(self, *troubles: str) -> None:
        if self._troubles.over(*troubles):
            log.info(f"Can {troubles[0]} again", kind=self.kind.__name__)
