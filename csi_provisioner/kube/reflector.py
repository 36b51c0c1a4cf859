"""Keeps a store equal to what the API server holds of one kind, for ever: the effects of `kube/watching.py`.

Asks what the state says, feeds the store as its only writer, waits out the pauses, and tells people once what keeps it
from its work. What to ask next is decided in `watching`; what handlers hear, in `store`. Spec: process.md 5.3.

Nothing is buffered here: a slow handler slows the reading, and the server ends a watch that lags too far behind, which
is resumed. Objects shrink to what the store keeps page by page, so that a large list is never in memory as a whole.
"""

import random as randomness
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

import trio
from lightkube.core.resource import Resource, api_info

from csi_provisioner.kube import watching
from csi_provisioner.kube.client import KubeClient, WatchEvent
from csi_provisioner.kube.errors import KubeError, advice
from csi_provisioner.kube.store import Store
from csi_provisioner.logs import log

T = TypeVar("T", bound=Resource)

SHORTEST_WATCH, LONGEST_WATCH = 300, 600
"""process.md 5.3: seconds we ask the server to keep a watch open; random, so that not all watches end together."""

REPLAYED_AT_ONCE = 200
"""Objects a resync tells in a row before other tasks get their turn."""


class Reflector(Generic[T]):
    """`resync` seconds apart, handlers are called for every kept object; None = never. `on_event` is told of each
    object that an event shows, with the event's own bytes, before the store is.
    """

    def __init__(
        self,
        client: KubeClient,
        kind: type[T],
        store: Store[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        resync: float | None = None,
        on_event: Callable[[T, bytes], None] | None = None,
        inactivity: float = 70.0,  # a bookmark comes each minute, also when nothing happens
        page: int = 500,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self._client = client
        self.kind = kind
        self._store = store
        self._namespace = namespace
        self._selector = label_selector
        self._resync = resync
        self._on_event = on_event
        self._inactivity = inactivity
        self._page = page
        self._random = random
        self._gathered: dict[str, T | None] = {}
        self._trouble: tuple[int, str] | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Says `started()` when the store is whole for the first time; ends only by being cancelled."""
        async with trio.open_nursery() as nursery:
            if self._resync is not None:
                nursery.start_soon(self._replay_forever, self._resync)
            await self._follow(task_status)

    async def _follow(self, task_status: trio.TaskStatus[None]) -> NoReturn:
        state: watching.State = watching.Listing()
        synced = False
        while True:
            if isinstance(state, watching.Listing):
                happened = await self._list(state)
            else:
                happened = await self._watch(state)
            step = watching.step(state, happened)
            if isinstance(state, watching.Listing) and isinstance(step.state, watching.Watching):
                self._store.swap(self._gathered, step.state.version)
                self._gathered = {}
                log.v(3, "List complete", kind=self.kind.__name__, objects=len(self._store))
                if not synced:
                    synced = True
                    task_status.started()
            state = step.state
            if step.pause:
                await trio.sleep(watching.pause_after(state.failures, self._random()))

    async def _list(self, state: watching.Listing) -> watching.Happened:
        if state.token is None:
            self._gathered = {}
        try:
            page = await self._client.list_page(
                self.kind,
                namespace=self._namespace,
                limit=self._page,
                continue_token=state.token,
                label_selector=self._selector,
            )
        except KubeError as error:
            self._report("list", error, news=True)
            return watching.Failed(error.code)
        for obj in page.items:
            self._store.admit(obj, self._gathered)
        for key in page.unreadable:
            if key:
                self._store.keep(key, self._gathered)
        self._resolve("list")
        return watching.Page(page.resource_version, page.continue_token or None)

    async def _watch(self, state: watching.Watching) -> watching.Happened:
        version = state.version
        opened: float | None = None
        with trio.move_on_after(self._inactivity) as silence:
            try:
                async with self._client.watch(
                    self.kind,
                    resource_version=version,
                    namespace=self._namespace,
                    label_selector=self._selector,
                    timeout_seconds=SHORTEST_WATCH + int((LONGEST_WATCH - SHORTEST_WATCH) * self._random()),
                ) as events:
                    opened = trio.current_time()
                    self._resolve("watch")
                    silence.deadline = opened + self._inactivity
                    async for event in events:
                        if self._on_event is not None:
                            self._on_event(event.object, events.line)
                        version = self._show(event) or version
                        silence.deadline = trio.current_time() + self._inactivity
                    return watching.Closed(version, trio.current_time() - opened)
            except KubeError as error:
                # One cut after it worked is everyday life; what is worth a line is that it cannot be opened again.
                unknown = "ResourceVersionTooLarge" in error.causes
                self._report("watch", error, news=opened is None and not unknown)
                lasted = 0.0 if opened is None else trio.current_time() - opened
                return watching.Broken(error.code, version, lasted, unknown)
        log.v(2, "Watch went silent, reconnecting", kind=self.kind.__name__, seconds=self._inactivity)
        return watching.Silent(version)

    def _show(self, event: WatchEvent[T]) -> str:
        """Passes one event to the store; answers the version it shows."""
        version: str = event.object.metadata.resourceVersion  # type: ignore[attr-defined]  # all our Structs have it
        match event.type:
            case "ADDED" | "MODIFIED":
                self._store.put(event.object)
            case "DELETED":
                self._store.drop(event.object)
            case "BOOKMARK":
                self._store.reached(version)
        return version

    async def _replay_forever(self, period: float) -> None:
        while True:
            await trio.sleep(period)
            for count, key in enumerate(self._store.shown_keys(), start=1):
                self._store.replay(key)
                if count % REPLAYED_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    # ---- what people are told: once when a trouble begins, once when it is over

    def _report(self, verb: str, error: KubeError, *, news: bool) -> None:
        trouble = (error.code, verb)
        if error.code == 410 or not news or trouble == self._trouble:
            log.v(3, f"Cannot {verb} yet", kind=self.kind.__name__, err=str(error))
            return
        self._trouble = trouble
        tell = log.error if error.unauthorized or error.code in (403, 404) else log.warning
        tell(f"Cannot {verb}, trying on", kind=self.kind.__name__, err=str(error), advice=self._advice(error))

    def _resolve(self, verb: str) -> None:
        if self._trouble is not None and self._trouble[1] == verb:
            self._trouble = None
            log.info(f"Can {verb} again", kind=self.kind.__name__)

    def _advice(self, error: KubeError) -> str:
        info = api_info(self.kind)
        group, where = info.resource.group, f"namespace {self._namespace}" if self._namespace else "the whole cluster"
        match error.code:
            case 403:
                return (
                    f"grant get, list and watch on {info.plural} of API group {group or chr(34) * 2} "
                    f"in {where} to the service account of this process"
                )
            case 404:
                return f"{info.resource.api_version} {info.plural} is not served here: install what defines it"
            case _:
                return advice(error)
