"""Keeps a store equal to what the API server holds of one kind, for ever: the effects of `kube/watching.py`.

Asks what the state says, feeds the store as its only writer, waits out the pauses, and tells people once what keeps it
from its work. What to ask next is decided in `watching`; what handlers hear, in `store`. Spec: process.md 5.3.

Nothing is buffered here: a slow handler slows the reading, and the server ends a watch that lags too far behind, which
is resumed. Objects shrink to what the store keeps page by page, so that a large list is never in memory as a whole.
"""

import random as randomness
from collections.abc import Awaitable, Callable
from math import inf
from typing import Generic, NoReturn, TypeVar

import msgspec
import trio
from lightkube.core.resource import Resource, api_info

from csi_provisioner.advice import advice, row
from csi_provisioner.kube import watching
from csi_provisioner.kube.answer import Page, wanted
from csi_provisioner.kube.asking import ALL_NS
from csi_provisioner.kube.client import EVERYWHERE, KubeClient, Scope, WatchEvent
from csi_provisioner.kube.errors import KubeError, Troubles
from csi_provisioner.kube.outline import Look
from csi_provisioner.kube.store import Fresh, Store
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import key as key_of

T = TypeVar("T", bound=Resource)

# Seconds we ask the server to keep a watch open (process.md 5.3); random, so that not all watches end together. Nor is
# it left alone for longer, whatever `Retry-After` says.
SHORTEST_WATCH, LONGEST_WATCH = 300, 600
# Seconds that a server may take longer to end a watch than it was asked to, before it counts as silent
LATE = 10.0
# Seconds until handlers are told of everything again, in case something was missed (process.md 5.3)
RESYNC = 15 * 60.0
# Objects that handlers are told of in a row, by a first list or a resync, or that become records, before other tasks
# get their turn
TOLD_AT_ONCE = 200
# Seconds until it is seen what of a list has settled, and until what was held by somebody is looked at again
COOL = 5.0
# Seconds between two reads of a watch, to begin with: other people's changes come by the hundred
PAUSE = 0.01
# What people are told of: a list that is not given, a watch that is not opened, one that does not get on
LIST, WATCH, FOLLOW = "list", "watch", "follow"


class Reflector(msgspec.Struct, Generic[T], eq=False, dict=True):
    """`resync` seconds apart, handlers are called for every kept object. `on_event` is told of each object that an
    event shows, with the event's own bytes, before the store is; `on_list` of each whole list, once the store has it.
    `served` says as which version the cluster serves the kind; it is asked first of all, and again after a 404.
    `look` tells of a list what the store would not keep.
    """

    client: KubeClient
    kind: type[T]
    store: Store[T]
    scope: Scope = EVERYWHERE
    resync: float = RESYNC
    on_event: Callable[[T, bytes], None] | None = None
    on_list: Callable[[], None] = lambda: None
    served: Callable[[], Awaitable[type[T]]] | None = None
    look: Look[T] | None = None
    page: int = 500
    pause: float = PAUSE
    random: Callable[[], float] = randomness.random

    def __post_init__(self) -> None:
        self._gathered: Fresh[T] = {}
        self._page: Page[T] | None = None  # the last one, as long as it is not in there
        self._warm = trio.Event()  # the store has some that have settled and are held
        self._synced = trio.Event()  # the first list is whole
        self._next_list = -inf
        self._unsure = self.served is not None  # as which version the kind is served
        self._bookmarks = False  # whether this server sends any
        self._heard = -inf
        self._step = trio.CancelScope()
        self._troubles = Troubles(self.client.troubles)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Says `started()` when the store is whole for the first time; ends only by being cancelled."""
        self._heard = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow)
                nursery.start_soon(self._cool_forever)
                await self._synced.wait()
                task_status.started()
                await self._replay_forever()
        finally:
            self._troubles.over(LIST, WATCH, FOLLOW)  # whoever meets them next tells them

    def lag(self) -> float:
        """Seconds since the last list, event or bookmark."""
        return trio.current_time() - self._heard

    async def _follow(self) -> NoReturn:
        state: watching.State = watching.Listing()
        while True:
            with trio.CancelScope() as self._step:
                state, least = await (self._list(state) if isinstance(state, watching.Listing) else self._watch(state))
                if least is not None:
                    pause = watching.pause_after(state.failures, self.random())
                    await trio.sleep(max(pause, min(least, LONGEST_WATCH)))
            if self._step.cancel_called:
                state = watching.Listing()

    def look_again(self) -> None:
        """What we have is of a past that the cluster has left: it is listed at once."""
        self._next_list = -inf
        self.store.doubt()
        self._step.cancel()

    async def _list(self, state: watching.Listing) -> watching.Step:
        """One page; the last one completes what was gathered, which the store then takes."""
        if state.token is None:
            self._gathered, self._page = {}, None
            await trio.sleep_until(self._next_list)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._gather)  # the page before, while the server makes this one
            try:
                if self.served is not None and self._unsure:
                    self.kind, self._unsure = await self.served(), False
                page = await self.client.list_page(
                    self.kind, self.scope, limit=self.page, continue_token=state.token, look=self.look
                )
            except KubeError as error:
                self._unsure |= error.code == 404
                self._report(LIST, error, quiet=error.code == 410)
                return watching.after_no_page(state, error)
        await trio.lowlevel.checkpoint_if_cancelled()  # it may have come before we were told to look again
        self._page = page
        self._resolve(LIST)
        if not page.continue_token:
            await self._gather()
            await self._replace(page.resource_version)
            log.v(3, "List complete", kind=self.kind.__name__, objects=len(self.store))
            self._heard = trio.current_time()
            if self._synced.is_set():
                self._next_list = self._heard + watching.LIST_GAP
            self._synced.set()
            self.on_list()
        return watching.after_page(state, page.resource_version, page.continue_token), None

    async def _gather(self) -> None:
        page, self._page = self._page, None
        if page is not None:
            for obj in page.items:
                self.store.admit(obj, self._gathered)
            self.store.pass_over(page.others, self._gathered)
            for key in filter(None, page.unreadable):
                self.store.keep(key, self._gathered)

    async def _replace(self, version: str) -> None:
        changes = self.store.replace(self._gathered, version)
        self._gathered = {}
        # Nobody works on the first list yet, and after `look_again` all of it is told once more. Later, who decides by
        # what handlers keep (is a volume attached?) must not meet a state in which what is gone has been told, and what
        # came in its place has not.
        step = max(1, len(changes)) if self._synced.is_set() else TOLD_AT_ONCE
        for begin in range(0, len(changes), step):
            self.store.tell(changes[begin : begin + step])
            self._note_warm()
            await trio.lowlevel.checkpoint()

    async def _watch(self, state: watching.Watching) -> watching.Step:
        version, advanced = state.version, False
        seconds = SHORTEST_WATCH + int((LONGEST_WATCH - SHORTEST_WATCH) * self.random())
        opened: float | None = None
        error: KubeError | None = None
        with trio.move_on_after(watching.INACTIVITY) as silence:
            try:
                async with self.client.watch(
                    self.kind, self.scope, resource_version=version, timeout_seconds=seconds, pause=self.pause
                ) as events:
                    opened = trio.current_time()
                    if FOLLOW not in self._troubles:
                        self._resolve(WATCH)
                    silence.deadline = opened + (watching.INACTIVITY if self._bookmarks else seconds + LATE)
                    async for event, line in events:
                        self._heard = trio.current_time()
                        version = self._show(event, line) or version
                        if not advanced and watching.is_above(version, state.version):
                            advanced = True
                            self._resolve(WATCH, FOLLOW)
                        end = self._heard + watching.INACTIVITY
                        if self._bookmarks and abs(end - silence.deadline) > 1:  # it costs more than an event
                            silence.deadline = end
            except KubeError as caught:
                error = caught
                self._unsure |= error.code == 404
        lasted = None if opened is None else trio.current_time() - opened
        if silence.cancelled_caught:
            error = KubeError(0, "Silent", "nothing came for too long: the connection must be dead")
        ended = watching.Ended(version, advanced, lasted, error)
        self._judge(ended, stuck=state.stuck)
        return watching.after_watch(state, ended)

    def _judge(self, ended: watching.Ended, *, stuck: bool) -> None:
        """Tells people if the watch did not get on."""
        lasted = ended.lasted
        orderly = f"the server ended it after {lasted or 0:.1f} s, and nothing new had come"
        error = ended.error or KubeError(0, "", orderly)
        error.doing = error.doing or str(wanted("watch", self.kind, "", self.scope.namespace))
        if not ended.progress:
            # A version that has expired or a connection that was lost is everyday life, the next one in a row is not.
            everyday = ended.expired or (lasted is not None and not error.code and error.reason != "InvalidAnswer")
            what = WATCH if lasted is None and not ended.expired else FOLLOW
            self._report(what, error, quiet=everyday and not stuck)
        elif ended.error is None:
            self._resolve(WATCH, FOLLOW)
        else:
            log.v(2, "Watch ended, resuming it", kind=self.kind.__name__, err=error)

    def _show(self, event: WatchEvent[T], line: bytes) -> str:
        """Passes one event on; returns the version that it shows."""
        if self.on_event is not None:
            self.store.guarded(self.on_event, None, key_of(event.object), event.object, line)
        version: str = event.object.metadata.resourceVersion  # type: ignore[attr-defined]  # all our Structs have it
        match event.type:
            case "ADDED" | "MODIFIED":
                self.store.put(event.object)
                self._note_warm()
            case "DELETED":
                self.store.drop(event.object)
            case "BOOKMARK":
                self._bookmarks = True
                self.store.reached(version)
        return version

    def _note_warm(self) -> None:
        if self.store.warm:
            self._warm.set()

    async def _cool_forever(self) -> NoReturn:
        while True:
            await self._warm.wait()
            await trio.sleep(COOL)
            keys = list(self.store.warm)
            for begin in range(0, len(keys), TOLD_AT_ONCE):
                self.store.cool(keys[begin : begin + TOLD_AT_ONCE])
                await trio.lowlevel.checkpoint()
            if not self.store.warm:
                self.store.warm.clear()  # else its table stays as large as it ever was
                self._warm = trio.Event()

    async def _replay_forever(self) -> NoReturn:
        while True:
            await trio.sleep(self.resync)
            for count, key in enumerate(self.store.shown_keys(), start=1):
                self.store.replay(key)
                if count % TOLD_AT_ONCE == 0:
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
