"""Leader election on a Lease: wait for it, lead while it is ours, give it back (process.md 6 and 10.2).

What a look at the Lease means is decided in `holding`; the elector reads, writes and waits. The clocks of others
are never trusted: a Lease is free when its spec has not changed for its duration on our own clock. The resourceVersion
arbitrates every write.

Two things are stricter than the spec asks, so that nothing of ours runs on beside the next leader (design rule 9). The
renew deadline counts from the last renewal, not from the first failure: between it and the lease's end there is always
time for the shielded ends of what was being done; tries come faster instead. And a leader that sees another holder
stops at once.
"""

import math
import random as randomness
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio

from csi_provisioner.advice import advice, row
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube import release
from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.end import End, Moment
from csi_provisioner.kube.errors import KubeError, Troubles
from csi_provisioner.kube.events import EventRecorder
from csi_provisioner.kube.holding import taken_until, written
from csi_provisioner.kube.store import version_number
from csi_provisioner.logs import log
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import Lease, LeaseSpec, ObjectMeta
from csi_provisioner.settings import ElectionSettings

# A candidate waits between 1 and 2.2 retry periods, so that candidates drift apart (process.md 6.5)
SPREAD = 1.2
# Seconds within which candidates look again after a release.
RELEASE_SPREAD = 0.5
# Tries within one retry period, once a renewal has failed
TRIES_IN_DOUBT = 5
JOURNAL = "csi-provisioner.io/journal"
"""The annotation of a Lease whose term kept a volume journal throughout: its `leaseTransitions` (design.md 6). Another
number was left by an earlier leader, and somebody without a journal has led since."""
# Seconds after the lease's end in which the process should have stopped by itself (process.md 6.6)
HEALTH_GRACE = 20.0


class LeaderElector(msgspec.Struct, eq=False, dict=True):
    """One lease. `events` gets the Lease's events, from `component`. `keeps_journal`: whether this term has a whole
    volume journal; `gap`: a leader without one was there before us."""

    client: KubeClient
    settings: ElectionSettings
    name: str
    identity: str
    metrics: Metrics
    events: EventRecorder | None = None
    component: str = ""
    end: End = msgspec.field(default_factory=End)
    ready: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    """Waits until this process may lead; it does not compete before."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    random: Callable[[], float] = randomness.random
    keeps_journal: Callable[[], bool] = lambda: False
    gap: bool = True
    lost: bool = False
    went_back: Callable[[], None] = lambda: None
    """Told, while we lead, that the cluster was restored from a backup: our Lease stands at an older version."""
    seen: Callable[[], int] = lambda: -1
    """The highest version that this process was shown of anything else; -1: of nothing."""

    def __post_init__(self) -> None:
        self.lease = f"{self.settings.namespace}/{self.name}"
        self._known: dict[str, Any] | None = None  # the Lease as the server last had it from us or for us
        self.spec: LeaseSpec | None = None
        self._seen = 0.0
        self._renewed: float | None = None  # when the last good renewal was sent; None: not leading
        self._sent: Moment = (0.0, 0.0)  # when our last write was
        self._may_hold = False
        self._acquired: set[str] = set()  # the acquireTimes that we have sent
        self._soon = trio.Event()
        self._released = trio.Event()
        self._version = -1  # the highest that we have seen of the Lease
        self._above = False  # our last write got a version above all that was seen before it
        self._troubles = Troubles(self.client.troubles)

    def health(self) -> str | None:
        """What is wrong (process.md 6.6); None while all is well, as it is for everybody who does not lead."""
        if self._renewed is None:
            return None
        silent = trio.current_time() - self._renewed
        if silent <= self.settings.lease_duration + HEALTH_GRACE:
            return None
        return f"failed election to renew leadership on lease {self.name}: last renewed {silent:.0f} s ago"

    @property
    def renewed(self) -> float:
        """When the last renewal that succeeded was sent."""
        return -math.inf if self._renewed is None else self._renewed

    def renew_soon(self) -> None:
        self._soon.set()

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Waits for the lease, then runs `lead` under it and gives it back when that has ended, however it ended.

        Raises Fatal, after `lead` has been cancelled, if the lease cannot be kept; it is not given back then.
        To stop in order, let `lead` return: it is renewed until then.
        """
        try:
            await self._become_leader()
            async with trio.open_nursery() as term:
                term.start_soon(self._keep, term.cancel_scope)
                await lead()
                term.cancel_scope.cancel()
        finally:
            self._end_term()
            if self._may_hold and not self.lost:
                await self._give_back()
        if self.lost:
            raise Fatal(f"lost the lease {self.lease}; another process may lead now", 1)

    async def _become_leader(self) -> None:
        log.info("Waiting for the lease", lease=self.lease, identity=self.identity)
        self.metrics.leading(False)
        async with trio.open_nursery() as waiting:
            waiting.start_soon(self._watch)
            await self._compete()
            waiting.cancel_scope.cancel()
        self._note_renewed()
        self.metrics.leading(True)
        log.info("Became leader", lease=self.lease, identity=self.identity)
        self._tell("became leader")

    async def _watch(self) -> None:
        def version() -> str:
            return "" if self._known is None else str(self._known["metadata"].get("resourceVersion") or "")

        await release.watch(
            self.client,
            self.name,
            self.settings.namespace,
            version=version,
            released=lambda: self._released.set(),
            random=self.random,
        )

    async def _compete(self) -> None:
        while True:
            await self.ready()
            self._released = trio.Event()
            if await self._try(self._campaign, self.settings.renew_deadline):
                return
            with trio.move_on_after(self.settings.retry_period * (1 + SPREAD * self.random())):
                await self._released.wait()
                # All who watch see it at once; chance lets one of them be the first.
                await trio.sleep(RELEASE_SPREAD * self.random())

    async def _keep(self, term: trio.CancelScope) -> None:
        while await self._renewed_in_time():
            with trio.move_on_after(self.settings.retry_period):
                await self._soon.wait()
            self._soon = trio.Event()
        self.lost = True
        term.cancel()

    async def _renewed_in_time(self) -> bool:
        settings = self.settings
        assert self._renewed is not None
        # A try that hangs leaves time for another.
        limit = max(1.0, (settings.renew_deadline - settings.retry_period) / 2)
        with trio.move_on_at(self._renewed + settings.renew_deadline):
            while True:
                if await self._try(self._renew, limit):
                    self._note_renewed()
                    log.v(5, "Lease renewed", lease=self.lease)
                    return True
                self.end.in_doubt = True
                if other := self._other_holder():
                    log.error("Somebody else has taken the lease", holder=other)
                    return False
                if self._is_twins():
                    log.error("Another one leads under our name, or has led", identity=self.identity, lease=self.lease)
                    return False
                await trio.sleep(settings.retry_period / TRIES_IN_DOUBT)
        log.error("The lease could not be renewed in time", deadline=f"{settings.renew_deadline:g}s")
        return False

    def _note_sent(self) -> None:
        """Our own Lease is written also after its end: its resourceVersion protects it."""
        self._sent = self.end.now()

    def _note_renewed(self) -> None:
        self._renewed = self._sent[0]
        self.end.renewed(self._sent, self.settings.lease_duration)

    def _end_term(self) -> None:
        if self._renewed is not None:
            self._renewed = None
            self.metrics.leading(False)
            self._tell("stopped leading")

    # ---- one try

    async def _try(self, attempt: Callable[[], Awaitable[bool]], limit: float) -> bool:
        """Whether the lease is ours for another while. No error ends an election."""
        with trio.move_on_after(limit) as scope:
            try:
                ours = await attempt()
            except KubeError as error:
                self._report(error)
            except Exception as error:  # a defect: the try has failed, and the next one looks before it writes
                self._known = None
                if self._troubles.is_news("lease", repr(error)):
                    log.exception("Unexpected error in the election, trying on", lease=self.name)
            else:
                if self._troubles.over("lease"):
                    log.info("Can use the lease again", lease=self.lease)
                return ours
        if scope.cancelled_caught:
            self._report(KubeError(0, "Timeout", "no answer in time"))
        return False

    async def _renew(self) -> bool:
        """Straight on what is known; only if that fails, after another look."""
        if self._known is not None:
            try:
                await self._write()
            except KubeError:
                self.metrics.slow_renewal()
            else:
                return True
        await self._look()
        # Also what was deleted or emptied is taken: nobody else leads.
        return not self._other_holder() and not self._is_twins() and await self._take()

    async def _campaign(self) -> bool:
        await self._look()
        if taken_until(self.spec, self.identity, self._seen) > trio.current_time():
            log.v(4, "The lease is held", holder=self._other_holder())
            return False
        return await self._take()

    async def _look(self) -> None:
        try:
            self._known = await self.client.get_untyped(Lease, self.name, self.settings.namespace)
        except KubeError as error:
            if error.code != 404:  # whoever answers so: the POST that follows tells
                raise
            self._known = self.spec = None
            return
        self._compare(self._known["metadata"].get("resourceVersion"))
        spec = msgspec.convert(self._known.get("spec") or {}, LeaseSpec)
        if spec != self.spec:
            if self.spec is None or spec.holderIdentity != self.spec.holderIdentity:
                log.info("The lease has a holder", holder=spec.holderIdentity or "(none)")
            self.spec, self._seen = spec, trio.current_time()

    async def _take(self) -> bool:
        was_ours = self._is_ours()
        self._may_hold = True  # from here on, also if the answer is lost
        try:
            await self._write()
        except KubeError as error:
            if 400 <= error.code < 500:  # refused, so it is as it was
                self._may_hold = was_ours
            if error.code != 409:
                raise
            log.v(3, "Somebody else was faster", lease=self.name)
            return False
        return True

    async def _write(self) -> None:
        """On success what was written is what is known. Creates the Lease if none is known."""
        lease = self._known or {}
        renews = self._is_ours()
        spec = written(self.spec, self.identity, self.settings.lease_duration, self._timestamp(), leading=renews)
        meta = {"name": self.name, "namespace": self.settings.namespace, **lease.get("metadata", {})}
        if self.settings.labels:
            meta["labels"] = {**(meta.get("labels") or {}), **dict(self.settings.labels)}
        if renews:
            self._mark(meta, spec["leaseTransitions"])
        else:
            before = self.spec.leaseTransitions if self.spec is not None else None
            self.gap = (meta.get("annotations") or {}).get(JOURNAL) != str(before)
            self._acquired.add(str(spec["acquireTime"]))
        spec = {**(lease.get("spec") or {}), **spec}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease, "metadata": meta, "spec": spec}
        seen = self.seen()
        if self._known is None:
            answer = await self.client.create(Lease, body, self.settings.namespace, begin=self._note_sent)
        else:
            answer = await self.client.put_untyped(Lease, body, begin=self._note_sent)
        meta["resourceVersion"] = answer.metadata.resourceVersion
        meta["uid"] = answer.metadata.uid
        self._known, self.spec, self._seen = body, msgspec.convert(spec, LeaseSpec), trio.current_time()
        self._acquired = {str(spec["acquireTime"])}
        self._compare(answer.metadata.resourceVersion, seen)

    def _compare(self, version: str, seen: int = -1) -> None:
        """`seen` before it was written."""
        before, self._version = self._version, version_number(version)
        if seen >= 0:
            # A write gets the highest version there is, unless Leases have an etcd of their own.
            before = max(before, seen if self._above else -1)
            self._above = self._version > seen
        if before > self._version >= 0 and self._renewed is not None:
            log.error("The cluster went back in time, as after a restore: everything is read anew", lease=self.lease)
            self.went_back()

    def _mark(self, meta: dict[str, Any], transitions: object) -> None:
        """Tells the next leader whether it can rely on the volume journal of this term."""
        if self.keeps_journal():
            meta["annotations"] = {**(meta.get("annotations") or {}), JOURNAL: str(transitions)}
        elif JOURNAL in (meta.get("annotations") or {}):
            meta["annotations"] = {key: value for key, value in meta["annotations"].items() if key != JOURNAL}

    async def _give_back(self) -> None:
        """Shielded, and over before anybody else could have taken the lease (design rule 9)."""
        async with self.end.shield(self.settings.lease_duration - self.settings.renew_deadline) as scope:
            try:
                # Not in the way of a renewal that was still under way, or of somebody's label.
                while not await self._given_back():
                    log.v(4, "The lease has changed meanwhile, looking again", lease=self.name)
            except KubeError as error:
                log.warning("The lease could not be given back, others wait it out", err=str(error))
            except Exception:
                log.exception("Unexpected error, the lease is not given back", lease=self.name)
        if scope.cancelled_caught:
            log.warning("The lease could not be given back in time, others wait it out", lease=self.name)

    async def _given_back(self) -> bool:
        """False: it was changed by somebody in between."""
        lease = await self.client.get_untyped(Lease, self.name, self.settings.namespace)
        spec = lease.get("spec") or {}
        if spec.get("holderIdentity") != self.identity:
            return True
        meta = dict(lease["metadata"])
        self._mark(meta, spec.get("leaseTransitions"))
        now = self._timestamp()
        free = {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now}
        try:
            await self.client.put_untyped(
                Lease, {**lease, "metadata": meta, "spec": {**spec, **free}}, begin=self._note_sent
            )
        except KubeError as error:
            if not error.conflict:
                raise
            return False
        log.info("Gave the lease back", lease=self.lease)
        return True

    def _other_holder(self) -> str | None:
        """As far as we know."""
        holder = self.spec.holderIdentity if self.spec is not None else None
        return holder if holder != self.identity else None

    def _is_ours(self) -> bool:
        """Held under our name, and since a moment at which we took it."""
        spec = self.spec
        return spec is not None and spec.holderIdentity == self.identity and spec.acquireTime in self._acquired

    def _is_twins(self) -> bool:
        """Held under our name by another process, or given back by one while a paused machine saw nothing."""
        spec, ours = self.spec, (None, *self._acquired)
        held = spec is not None and spec.holderIdentity == self.identity and not self._is_ours()
        return held or (spec is not None and not spec.holderIdentity and spec.acquireTime not in ours)

    # ---- what people are told

    def _report(self, error: KubeError) -> None:
        if not self._troubles.is_news("lease", row(error).cause):
            log.v(3, "The election still has trouble", err=error)
            return
        namespace = self.settings.namespace
        right = f"get, create and update on leases of API group coordination.k8s.io in namespace {namespace}"
        what = advice(error, right=right, namespace=namespace)
        log.error("The election has trouble, trying on", lease=self.lease, err=error, advice=what)

    def _tell(self, what: str) -> None:
        if self.events is not None and self._known is not None:
            lease = Lease(metadata=msgspec.convert(self._known["metadata"], ObjectMeta))
            message = f"{self.identity} {what}"
            self.events.record(lease, "Normal", "LeaderElection", message, what, component=self.component)

    def _timestamp(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
