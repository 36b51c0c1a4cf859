"""Names, labels, buckets and the text of the metrics (process.md 8)."""

import re
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from csi_provisioner.metrics import Metrics
from csi_provisioner.planning import steps

ROOT = Path(__file__).parent.parent

PROBE = "/csi.v1.Identity/Probe"
CREATE = "/csi.v1.Controller/CreateVolume"


def series(metrics: Metrics, prefix: str = "") -> dict[str, str]:
    lines = [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]
    return dict(line.rsplit(" ", 1) for line in lines if line.startswith(prefix))


def bounds(metrics: Metrics, family: str) -> list[str]:
    found = [re.search(r'le="([^"]*)"', name) for name in series(metrics, f"{family}_bucket")]
    return [match.group(1) for match in found if match]


def test_families_without_series_are_not_exposed() -> None:
    """process.md 8."""
    families = {line.split()[2] for line in Metrics().render().decode().splitlines() if line.startswith("#")}
    assert {name for name in families if not name.startswith("csi_provisioner_")} == {
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    }


def test_the_text_is_the_exposition_format() -> None:
    """process.md 8."""
    metrics = Metrics()
    metrics.provision('we"ird\\\n', "VolumeSnapshot", 0.25)
    metrics.provision("fast", "", None)
    text = metrics.render().decode()
    assert "_created" not in text
    assert "# TYPE controller_persistentvolumeclaim_provision_total counter\n" in text
    assert "# TYPE controller_persistentvolumeclaim_provision_duration_seconds histogram\n" in text
    assert r'provision_total{class="we\"ird\\\n",source="VolumeSnapshot"} 1' + "\n" in text
    headed = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(headed) == len(set(headed))


def test_calls_are_counted_by_method_and_answer() -> None:
    """process.md 8.1."""
    metrics = Metrics()
    metrics.csi_call(PROBE, "OK", 0.05)
    metrics.set_driver_name("a.b")
    metrics.csi_call(CREATE, "OK", 0.05)
    metrics.csi_call(CREATE, "OK", 30)
    metrics.csi_call(CREATE, "DeadlineExceeded", 700, False)
    name = "csi_sidecar_operations_seconds"
    assert bounds(metrics, name)[:14] == [
        "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "15", "25", "50", "120", "300", "600", "+Inf",
    ]  # fmt: skip
    assert series(metrics, f"{name}_count") == {
        f'{name}_count{{driver_name="unknown-driver",grpc_status_code="OK",method_name="{PROBE}"}}': "1",
        f'{name}_count{{driver_name="a.b",grpc_status_code="OK",method_name="{CREATE}"}}': "2",
        f'{name}_count{{driver_name="a.b",grpc_status_code="DeadlineExceeded",method_name="{CREATE}"}}': "1",
    }
    labels = f'driver_name="a.b",grpc_status_code="OK",method_name="{CREATE}"'
    assert series(metrics)[f"{name}_sum{{{labels}}}"] == "30.05"
    assert series(metrics)[f'{name}_bucket{{{labels},le="25"}}'] == "1"
    assert series(metrics)[f'{name}_bucket{{{labels},le="50"}}'] == "2"


def test_calls_of_a_driver_with_an_in_tree_name_say_whether_they_are_migrated() -> None:
    """process.md 8.1."""
    metrics = Metrics()
    metrics.csi_call(PROBE, "OK", 0.05)
    metrics.set_driver_name("ebs.csi.aws.com", migratable=True)
    metrics.csi_call(PROBE, "OK", 0.05)
    metrics.csi_call(CREATE, "OK", 0.05, True)
    metrics.csi_call(CREATE, "OK", 0.05, False)
    found = series(metrics, "csi_sidecar_operations_seconds_count")
    common = 'csi_sidecar_operations_seconds_count{driver_name="ebs.csi.aws.com",grpc_status_code="OK",method_name='
    assert set(found) == {
        common + f'"{PROBE}",migrated="false"}}',
        common + f'"{CREATE}",migrated="true"}}',
        common + f'"{CREATE}",migrated="false"}}',
    }


@pytest.mark.parametrize("migratable", [False, True])
def test_the_name_may_be_set_again_after_a_reconnect(migratable: bool) -> None:
    """process.md 8.1."""
    metrics = Metrics()
    for _ in range(2):
        metrics.set_driver_name("a.b", migratable=migratable)
        metrics.csi_call(PROBE, "OK", 0.05)
    assert list(series(metrics, "csi_sidecar_operations_seconds_count").values()) == ["2"]


def test_creations_and_deletions_are_counted_by_class() -> None:
    """process.md 8.2."""
    metrics = Metrics()
    metrics.provision("fast", "VolumeSnapshot", 0.3)
    metrics.provision("fast", "VolumeSnapshot", None)
    metrics.deletion("", 3)
    metrics.deletion("", None)
    found = series(metrics, "controller_")
    claim, labels = "controller_persistentvolumeclaim_provision", '{class="fast",source="VolumeSnapshot"}'
    volume = "controller_persistentvolume_delete"
    assert found[f"{claim}_total{labels}"] == "1"
    assert found[f"{claim}_failed_total{labels}"] == "1"
    assert found[f"{claim}_duration_seconds_sum{labels}"] == "0.3"
    assert found[f'{volume}_total{{class=""}}'] == "1"
    assert found[f'{volume}_failed_total{{class=""}}'] == "1"
    assert found[f'{volume}_duration_seconds_count{{class=""}}'] == "1"
    expected = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"]
    assert bounds(metrics, f"{claim}_duration_seconds") == expected
    assert bounds(metrics, f"{volume}_duration_seconds") == expected


def test_queues_are_there_from_the_start() -> None:
    """process.md 8.3."""
    metrics = Metrics()
    metrics.queue("claims")
    found = series(metrics, "workqueue_")
    assert set(found.values()) == {"0"}
    assert {name.partition("{")[0] for name in found} == {
        "workqueue_depth",
        "workqueue_adds_total",
        "workqueue_queue_duration_seconds_bucket",
        "workqueue_queue_duration_seconds_sum",
        "workqueue_queue_duration_seconds_count",
        "workqueue_work_duration_seconds_bucket",
        "workqueue_work_duration_seconds_sum",
        "workqueue_work_duration_seconds_count",
        "workqueue_unfinished_work_seconds",
        "workqueue_longest_running_processor_seconds",
        "workqueue_retries_total",
    }
    for family in ("workqueue_queue_duration_seconds", "workqueue_work_duration_seconds"):
        assert bounds(metrics, family) == [
            "1e-08", "1e-07", "1e-06", "9.999999999999999e-06", "9.999999999999999e-05",
            "0.001", "0.01", "0.1", "1", "10", "+Inf",
        ]  # fmt: skip


def test_a_queue_counts_what_goes_through_it() -> None:
    """process.md 8.3."""
    metrics = Metrics()
    queue = metrics.queue("claims")
    queue.added()
    queue.got(0.5)
    queue.finished(2)
    queue.retried()
    found = series(metrics, "workqueue_")
    assert found['workqueue_adds_total{name="claims"}'] == "1"
    assert found['workqueue_retries_total{name="claims"}'] == "1"
    assert found['workqueue_queue_duration_seconds_sum{name="claims"}'] == "0.5"
    assert found['workqueue_work_duration_seconds_sum{name="claims"}'] == "2"


def test_loops_that_share_a_name_are_added_up_while_they_run() -> None:
    """process.md 8.3."""
    metrics = Metrics()
    names = ("depth", "unfinished_work_seconds", "longest_running_processor_seconds")

    def gauges() -> list[str]:
        found = series(metrics)
        return [found[f'workqueue_{name}{{name="claims"}}'] for name in names]

    with metrics.queue("claims").watch(lambda: 3, lambda: [1.5, 2]):
        with metrics.queue("claims").watch(lambda: 1, lambda: [4]):
            assert gauges() == ["4", "7.5", "4"]
        assert gauges() == ["3", "3.5", "2"]
    assert gauges() == ["0", "0", "0"]


def test_who_leads_is_a_metric() -> None:
    """process.md 8.4."""
    metrics = Metrics()
    metrics.leading(False)
    assert series(metrics, "leader_election") == {'leader_election_master_status{name=""}': "0"}
    metrics.leading(True)
    metrics.slow_renewal()
    assert series(metrics, "leader_election") == {
        'leader_election_master_status{name=""}': "1",
        'leader_election_slowpath_total{name=""}': "1",
    }


def test_capacity_may_be_set_again_after_a_reconnect() -> None:
    """process.md 8.4."""
    metrics = Metrics()
    for count in (1, 2):
        metrics.capacity(lambda count=count: count, lambda: 0, lambda: 7, lambda: 2.5)
    assert series(metrics, "csi_provisioner_capacity_") == {"csi_provisioner_capacity_age_seconds": "2.5"}
    assert series(metrics, "csistoragecapacities_") == {
        "csistoragecapacities_desired_goal": "2",
        "csistoragecapacities_desired_current": "0",
        "csistoragecapacities_obsolete": "7",
    }


def test_two_sets_of_metrics_do_not_disturb_each_other() -> None:
    """process.md 14."""
    first, second = Metrics(), Metrics()
    first.suspected_orphan()
    assert series(first)["csi_provisioner_suspected_orphans_total"] == "1"
    assert series(second)["csi_provisioner_suspected_orphans_total"] == "0"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ('a "b" \\c é', 'a \\"b\\" \\\\c é'),
        ("\x1b[2J\n\x7f\x85", r"\\u001b[2J\n\\u007f\\u0085"),
        ("\u2028\u202e\ud800", r"\\u2028\\u202e\\ud800"),
    ],
    ids=["quotes", "controls", "what turns the reading round, and half a character"],
)
def test_labels_of_others_are_escaped(name: str, told: str) -> None:
    metrics = Metrics()
    metrics.provision(name, "", 0.3)
    assert (
        f'controller_persistentvolumeclaim_provision_total{{class="{told}",source=""}} 1\n' in metrics.render().decode()
    )


def rows() -> list[str]:
    """All metrics that there are, as the table of docs/reference/metrics.md has them."""
    metrics, found = Metrics(), []
    metrics.capacity(*4 * (lambda: 0,))
    metrics.ask(lambda: ({}, {}, {}))
    metrics.lanes(lambda: ())
    for collector in metrics._registry._collector_to_names:
        each = [collector] if isinstance(collector, MetricWrapperBase) else collector.collect()
        for family in each:
            name, kind, text = (
                (family._name, family._type, family._documentation)
                if isinstance(family, MetricWrapperBase)
                else (family.name, family.type, family.documentation)
            )
            name += "_total" * (kind == "counter")
            labels = " ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))
            found.append(f"| `{name}` | {kind} | {labels} | {text.rstrip('.')} |")
    return sorted(found)


def table(heading: str) -> list[str]:
    _, _, text = (ROOT / "docs" / "reference" / "metrics.md").read_text().partition(f"\n## {heading}\n")
    return [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| `")]


def test_the_page_shows_every_metric() -> None:
    assert table("All metrics") == rows(), "take this:\n" + "\n".join(rows())


def test_the_page_shows_every_reason() -> None:
    assert [line.split("`")[1] for line in table("Why a claim waits")] == list(steps.REASONS)
