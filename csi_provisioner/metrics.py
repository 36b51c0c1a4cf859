"""All metrics of the process: their names, labels and buckets, and the text a scrape gets (process.md 8).

Names, labels and buckets are a contract with dashboards; help texts are not. Each layer counts what it does through one
`Metrics`, made by the supervisor. Every claim is counted, so label children are looked up once and kept. The text is
rendered here, because the library writes `le="1.0"`, creation times and empty families.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import msgspec
from prometheus_client.metrics import Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from csi_provisioner import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UNKNOWN_DRIVER = "unknown-driver"

# Those of the reference, from which dashboards compute their quantiles.
_CALL_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600)
_OPERATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# Powers of ten. Two are inexact, as in the reference, because the values appear in the `le` label.
_QUEUE_BUCKETS = (1e-08, 1e-07, 1e-06, 9.999999999999999e-06, 9.999999999999999e-05, 0.001, 0.01, 0.1, 1, 10)

# From a volume that is made at once to one for which somebody has been called.
_WAIT_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)

_CAPACITY = {
    "csistoragecapacities_desired_goal": "CSIStorageCapacity objects that should exist",
    "csistoragecapacities_desired_current": "CSIStorageCapacity objects that exist and should",
    "csistoragecapacities_obsolete": "CSIStorageCapacity objects that exist and should not",
    "csi_provisioner_capacity_age_seconds": "Seconds since the driver was asked for what the oldest object says",
}

_LANE_LABELS = ("name", "class", "source")

_CALL_LABELS = ("driver_name", "grpc_status_code", "method_name")
_calls = partial(
    Histogram, "csi_sidecar_operations_seconds", "Seconds of CSI calls, by method and answer", buckets=_CALL_BUCKETS
)


class QueueMetrics:
    """One work queue's counts (process.md 8.3). Two loops may share a name: their gauges are added up."""

    def __init__(self, families: "_QueueFamilies", name: str) -> None:
        self._sources: list[tuple[Callable[[], int], Callable[[], Iterable[float]]]] = []
        self.added: Callable[[], None] = families.adds.labels(name).inc
        self.retried: Callable[[], None] = families.retries.labels(name).inc
        self.got: Callable[[float], None] = families.waits.labels(name).observe
        """An item was taken, after so many seconds of waiting."""
        self.finished: Callable[[float], None] = families.works.labels(name).observe
        """An item was worked on for so many seconds."""
        families.depth.labels(name).set_function(lambda: sum(depth() for depth, _ in self._sources))
        families.unfinished.labels(name).set_function(lambda: sum(self._ages()))
        families.longest.labels(name).set_function(lambda: max(self._ages(), default=0.0))

    @contextmanager
    def watch(self, depth: Callable[[], int], ages: Callable[[], Iterable[float]]) -> Iterator[None]:
        """While inside, a scrape asks: how many items wait, and for how many seconds each running one has run."""
        source = (depth, ages)
        self._sources.append(source)
        try:
            yield
        finally:
            self._sources.remove(source)

    def _ages(self) -> list[float]:
        return [age for _, ages in self._sources for age in ages()]


class _QueueFamilies:
    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, labelnames=("name",), registry=registry)
        counter = partial(Counter, labelnames=("name",), registry=registry)
        histogram = partial(Histogram, labelnames=("name",), buckets=_QUEUE_BUCKETS, registry=registry)
        self.depth = gauge("workqueue_depth", "Items that wait")
        self.adds = counter("workqueue_adds_total", "Items added")
        self.waits = histogram("workqueue_queue_duration_seconds", "Seconds an item waited")
        self.works = histogram("workqueue_work_duration_seconds", "Seconds an item was worked on")
        self.unfinished = gauge("workqueue_unfinished_work_seconds", "Summed age of the items in work")
        self.longest = gauge("workqueue_longest_running_processor_seconds", "Age of the oldest item in work")
        self.retries = counter("workqueue_retries_total", "Items added again after a failure")


class _Waits:
    """How long claims and volumes wait, and for whom (process.md 8.5)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        histogram = partial(Histogram, buckets=_WAIT_BUCKETS, registry=registry)
        claims = partial(histogram, labelnames=("class", "source", "binding"))
        self.families = (
            claims(
                "csi_provisioner_claim_to_volume_seconds",
                "Seconds from a claim that is ready (made; with late binding: its node chosen) to its PersistentVolume",
            ),
            claims(
                "csi_provisioner_overhead_seconds",
                "What of it was ours: without CSI calls, back-off after the driver's failures, times without a driver",
            ),
        )
        self.children: dict[tuple[str, ...], tuple[Histogram, ...]] = {}
        self.bind = histogram(
            "csi_provisioner_bind_wait_seconds",
            "Seconds from a PersistentVolume that is written to its claim seen as bound, by the volume controller",
        )
        self.gone = histogram(
            "csi_provisioner_release_to_gone_seconds", "Seconds from a volume's release to its PersistentVolume gone"
        )
        self.detach = histogram(
            "csi_provisioner_detach_wait_seconds", "Seconds that a deletion waited for the last VolumeAttachment to go"
        )

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Series of other classes go."""
        for labels in [labels for labels in self.children if not wanted(labels[0])]:
            del self.children[labels]
            for family in self.families:
                family.remove(*labels)


Labelled = Mapping[tuple[str, ...], float]
_ASKED = (
    ("csi_provisioner_pending_claims", "Claims without a bound volume, by why they wait", ("class", "reason")),
    ("csi_provisioner_oldest_pending_seconds", "For how long the oldest of those that are ready is ready", ("class",)),
    ("csi_provisioner_watch_lag_seconds", "Seconds since the last event, bookmark or list of a kind", ("kind",)),
)


class _Asked(Collector):
    """Gauges whose series are asked for at each scrape; there are none where nobody knows, as in a standby."""

    def __init__(self, ask: Callable[[], tuple[Labelled, Labelled, Labelled]]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        for (name, text, labels), found in zip(_ASKED, self._ask(), strict=True):
            family = GaugeMetricFamily(name, text, labels=labels)
            for values, value in found.items():
                family.add_metric(values, value)
            yield family


class LaneCounts(msgspec.Struct, frozen=True):
    """Of one lane. `bound` is None where nothing but the workers bounds it, `cuts` where its bound does not adapt."""

    queue: str
    class_: str
    source: str
    calls: int
    bound: int | None
    cuts: int | None
    waited: float


class _LaneFamilies(Collector):
    """Made at each scrape from the lanes that have something: a series ends with its lane."""

    def __init__(self, ask: Callable[[], Iterable[LaneCounts]]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        calls = GaugeMetricFamily("csi_provisioner_lane_calls", "Calls to the driver that run", labels=_LANE_LABELS)
        bounds = GaugeMetricFamily("csi_provisioner_lane_bound", "The most calls at a time", labels=_LANE_LABELS)
        help_ = "How often calls without an answer have lowered the bound"
        cuts = CounterMetricFamily("csi_provisioner_lane_cuts", help_, labels=_LANE_LABELS)
        help_ = "Seconds that calls have waited for their turn, all together"
        waited = CounterMetricFamily("csi_provisioner_lane_waiting_seconds", help_, labels=_LANE_LABELS)
        for lane in self._ask():
            labels = (lane.queue, lane.class_, lane.source)
            calls.add_metric(labels, lane.calls)
            waited.add_metric(labels, lane.waited)
            if lane.bound is not None:
                bounds.add_metric(labels, lane.bound)
            if lane.cuts is not None:
                cuts.add_metric(labels, lane.cuts)
        yield from (calls, bounds, cuts, waited)


class _Operations:
    """Total, failures and durations of one kind of operation, for each set of label values."""

    def __init__(self, registry: CollectorRegistry, prefix: str, what: str, labels: tuple[str, ...]) -> None:
        self.succeeded = Counter(f"{prefix}_total", f"{what} that ended without error", labels, registry=registry)
        self._failed = Counter(f"{prefix}_failed_total", f"{what} that failed", labels, registry=registry)
        help_ = f"Seconds of {what.lower()} that ended without error"
        self._seconds = Histogram(
            f"{prefix}_duration_seconds", help_, labels, buckets=_OPERATION_BUCKETS, registry=registry
        )
        self._children: dict[tuple[str, ...], tuple[Counter, Histogram]] = {}

    def count(self, values: tuple[str, ...], seconds: float | None) -> None:
        if seconds is None:
            self._failed.labels(*values).inc()
            return
        if values not in self._children:
            self._children[values] = self.succeeded.labels(*values), self._seconds.labels(*values)
        succeeded, durations = self._children[values]
        succeeded.inc()
        durations.observe(seconds)


class Metrics:
    """What the process counts. Times are seconds."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        # A registry of its own: the library's global one is shared by all tests, and has Python's own metrics.
        ProcessCollector(registry=registry)
        self._driver = UNKNOWN_DRIVER
        self._migratable = False
        self._calls = _calls(_CALL_LABELS, registry=registry)
        self._call_children: dict[tuple[str, str, bool | None], Callable[[float], None]] = {}
        self._provisions = _Operations(
            registry, "controller_persistentvolumeclaim_provision", "Provisioning operations", ("class", "source")
        )
        self._deletions = _Operations(registry, "controller_persistentvolume_delete", "Volume deletions", ("class",))
        self._queue_families = _QueueFamilies(registry)
        self._queues: dict[str, QueueMetrics] = {}
        self._capacity: dict[str, Gauge] = {}
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self.suspected_orphan: Callable[[], None] = counter(
            "csi_provisioner_suspected_orphans_total", "Volumes that may exist without a PersistentVolume"
        ).inc
        self.dropped_volume: Callable[[], None] = counter(
            "csi_provisioner_dropped_volumes_total", "PersistentVolumes that went without their volume being deleted"
        ).inc
        recovered = counter(
            "csi_provisioner_recovered_volumes_total",
            "Volumes that an earlier leader began, by what became of them: deleted, owned by then, told to people",
            ("outcome",),
        )
        # All series are there from the start, so that the first one is seen as an increase.
        self._recovered = {outcome: recovered.labels(outcome) for outcome in ("deleted", "owned", "told")}
        self._journal_writes = counter("csi_provisioner_journal_writes_total", "Writes of the volume journal")
        self._journal_entries = gauge("csi_provisioner_journal_entries", "Volumes that stand in the volume journal")
        self._waits = waits = _Waits(registry)
        self.bound_after: Callable[[float], None] = waits.bind.observe
        self.gone_after: Callable[[float], None] = waits.gone.observe
        self.detached_after: Callable[[float], None] = waits.detach.observe
        self._build = gauge("csi_provisioner_build_info", "1; its labels tell what runs", ("version", "driver_name"))
        self._build.labels(__version__, UNKNOWN_DRIVER).set(1)
        self.driver_ready: Callable[[bool], None] = gauge(
            "csi_provisioner_driver_ready", "1: the CSI driver answers, 0: it is away or not met yet"
        ).set
        self._leading = gauge("leader_election_master_status", "1: this process leads, 0: it stands by", ("name",))
        self._slow_renewals = counter(
            "leader_election_slowpath_total", "Renewals of the lease that had to read it first", ("name",)
        )

    def set_driver_name(self, name: str, *, migratable: bool = False) -> None:
        """File calls under the driver from now on. `migratable`: it serves an in-tree name too (process.md 3.1), and
        every series carries `migrated`; what was counted before is then not exposed."""
        if migratable and not self._migratable:
            # Labels of a family cannot be changed, so it is made anew.
            self._registry.unregister(self._calls)
            self._calls = _calls((*_CALL_LABELS, "migrated"), registry=self._registry)
            self._migratable = True
        self._driver = name
        self._call_children.clear()  # they carry the name of before
        self._build.clear()
        self._build.labels(__version__, name).set(1)

    def csi_call(self, method: str, code_label: str, seconds: float, migrated: bool | None = None) -> None:
        """One RPC ended: `method` is the full path, `code_label` as in `model.codes.label`."""
        key = (method, code_label, migrated)
        observe = self._call_children.get(key)
        if observe is None:
            values = [self._driver, code_label, method]
            if self._migratable:
                values.append("true" if migrated else "false")
            observe = self._call_children[key] = self._calls.labels(*values).observe
        observe(seconds)

    def provision(self, class_: str, source: str, seconds: float | None) -> None:
        """A provisioning operation ended after `seconds`; None: with any error, "nothing to do" included."""
        self._provisions.count((class_, source), seconds)

    def deletion(self, class_: str, seconds: float | None) -> None:
        """A deletion ended after `seconds`; None: it failed."""
        self._deletions.count((class_,), seconds)

    def volume_written(self, labels: tuple[str, str, str], seconds: float, overhead: float) -> None:
        """A claim of this class, source and binding mode has its PersistentVolume; `overhead` of the time was ours."""
        children = self._waits.children.get(labels)
        if children is None:
            children = tuple(family.labels(*labels) for family in self._waits.families)
            self._waits.children[labels] = children
        for child, value in zip(children, (seconds, overhead), strict=True):
            child.observe(value)

    def forget_class(self, name: str) -> None:
        self._waits.keep(lambda class_: class_ != name)

    def keep_classes(self, names: Collection[str]) -> None:
        """Those of others went while nobody looked."""
        self._waits.keep(lambda class_: class_ in names)

    def ask(self, gauges: Callable[[], tuple[Labelled, Labelled, Labelled]]) -> None:
        """What a scrape asks for: pending claims by class and reason, the oldest by class, lags of watches by kind."""
        self._registry.register(_Asked(gauges))

    def totals(self) -> dict[str, int]:
        """What people look at as rates, by what it is for them."""
        retries = self._queue_families.retries
        found = {"volumes made": self._provisions.succeeded, "volumes deleted": self._deletions.succeeded,
                 "failed tries": retries}  # fmt: skip
        return {what: int(sum(sample.value for metric in counter.collect() for sample in metric.samples
                              if sample.name.endswith("_total"))) for what, counter in found.items()}  # fmt: skip

    def queue(self, name: str) -> QueueMetrics:
        """The queue of that name, whose series exist from now on."""
        if name not in self._queues:
            self._queues[name] = QueueMetrics(self._queue_families, name)
        return self._queues[name]

    def lanes(self, lanes: Callable[[], Iterable[LaneCounts]]) -> None:
        """Expose the lanes of all queues, asked at each scrape."""
        self._registry.register(_LaneFamilies(lanes))

    def recovered(self, outcome: str) -> None:
        self._recovered[outcome].inc()

    def journal_written(self, entries: int) -> None:
        self._journal_writes.inc()
        self._journal_entries.set(entries)

    def leading(self, leads: bool) -> None:
        """Exposed once said, with an empty `name` as the reference has it."""
        self._leading.labels("").set(leads)

    def slow_renewal(self) -> None:
        self._slow_renewals.labels("").inc()

    def capacity(self, *values: Callable[[], float]) -> None:
        """Expose the state of the capacity objects (how many should exist, do, and should not; age), asked at each
        scrape."""
        for (name, help_), value in zip(_CAPACITY.items(), values, strict=True):
            # Made late, so that a process without storage capacity does not expose them.
            if name not in self._capacity:
                self._capacity[name] = Gauge(name, help_, registry=self._registry)
            self._capacity[name].set_function(value)

    def render(self) -> bytes:
        """The exposition of all series, in the Prometheus text format."""
        # Go exposes them in this order, so that two dumps can be compared.
        families = sorted(self._registry.collect(), key=lambda family: family.name)
        return "".join(line for family in families for line in _lines(family)).encode()


def _lines(family: Metric) -> Iterator[str]:
    # Times of creation are an addition of this library, which no dashboard knows.
    samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    if not samples:
        return
    name = f"{family.name}_total" if family.type == "counter" else family.name
    yield f"# HELP {name} {family.documentation}\n# TYPE {name} {family.type}\n"
    for sample in samples:
        labels = ",".join(f'{label}="{_label_value(label, value)}"' for label, value in sample.labels.items())
        series = f"{sample.name}{{{labels}}}" if labels else sample.name
        yield f"{series} {_number(sample.value)}\n"


def _label_value(label: str, value: str) -> str:
    if label == "le" and value != "+Inf":
        return _number(float(value))
    text = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    if text.isprintable():
        return text
    # Controls would reach a terminal, and half a surrogate pair cannot be encoded.
    return "".join(letter if letter.isprintable() else f"\\\\u{ord(letter):04x}" for letter in text)


def _number(value: float) -> str:
    """As Go writes numbers, because dashboards match labels: 1 and 2.5, not 1.0."""
    return repr(float(value)).removesuffix(".0")
