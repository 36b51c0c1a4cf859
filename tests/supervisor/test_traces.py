"""Each try has an id; traced, it is that of the trace that the driver's call belongs to (docs/how-to/tracing.md)."""

import socket
from collections.abc import Iterator

import pytest

from csi_provisioner.settings import ElectionSettings, LogSettings
from tests.canary import held
from tests.collector import Collector, Span, collecting
from tests.installation import CLAIM, NAMESPACE, Installation

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PREFIX = "csi.storage.k8s.io/provisioner-secret-"
CREATE, DELETE = "csi.v1.Controller/CreateVolume", "csi.v1.Controller/DeleteVolume"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as one:
        monkeypatch.setenv(ENDPOINT, one.endpoint)
        yield one


def only(spans: list[Span], name: str) -> Span:
    [found] = [span for span in spans if span.name == name]
    return found


async def test_a_claim_that_fails_once_is_two_traces_and_its_deletion_another(
    site: Installation, collector: Collector
) -> None:
    site.secret("login", user="opensesame")
    site.fault("INTERNAL", message=f"no user {held(user='opensesame')['user']}", times=1)
    site.storage_class(parameters={f"{PREFIX}name": "login", f"{PREFIX}namespace": NAMESPACE})
    site.claim()
    await site.start(traces=True, log=LogSettings(verbosity=5), election=ElectionSettings(own_namespace=NAMESPACE))
    await site.bound("data")
    site.delete(CLAIM, "data")
    await site.until(lambda: site.calls("DeleteVolume") and not site.objects.all("PersistentVolume"))
    assert await site.stop() == 0

    failed, made = collector.traces("claims")[:2]
    assert [only(trace, "claims").error != "" for trace in (failed, made)] == [True, False]
    assert "no user ***stripped***" in only(failed, CREATE).error
    root = only(made, "claims")
    assert root.about["PVC"] == "default/data"
    assert root.about["PVCUID"] in site.calls()[0].request.name
    parts = [span.name for span in made if span.parent == root.id]
    assert parts == ["get Secret", "journal", "wait for a worker", CREATE, "create PersistentVolume"]
    [deleted] = [trace for trace in collector.traces("volumes") if any(span.name == DELETE for span in trace)]
    assert "delete PersistentVolume" in [span.name for span in deleted]

    calls = [*site.calls(), *site.calls("DeleteVolume")]
    spans = [only(failed, CREATE), only(made, CREATE), only(deleted, DELETE)]
    told = [call.metadata["traceparent"].split("-")[:3] for call in calls]
    assert told == [["00", span.trace, span.id] for span in spans]
    # what belongs to no try is in no trace: probes, watches, events
    assert {call.rpc for call in site.driver.calls if "traceparent" in call.metadata} == {
        "CreateVolume",
        "DeleteVolume",
    }
    assert {span.trace for span in collector.spans if not span.parent} == {span.trace for span in collector.spans}
    logged = [line.keys["try"] for line in site.logged("GRPC call") if line.keys["method"] == f"/{CREATE}"]
    assert logged == [failed[0].trace, made[0].trace]
    assert site.logged("Failed, will be tried again")[0].keys["try"] == failed[0].trace
    assert all(b"opensesame" not in body for body in collector.bodies)


async def test_without_tracing_tries_have_ids_of_their_own_and_drivers_are_told_nothing(site: Installation) -> None:
    site.fault("INTERNAL", times=1)
    site.storage_class()
    site.claim()
    await site.start(log=LogSettings(verbosity=5))
    await site.bound("data")
    await site.stop()
    told = [line.keys["try"] for line in site.logged("GRPC call") if line.keys["method"] == f"/{CREATE}"]
    assert len(set(told)) == 2
    assert {len(each) for each in told} == {16}
    assert [call for call in site.driver.calls if "traceparent" in call.metadata] == []


async def test_a_collector_that_is_away_is_told_once_and_changes_nothing(
    site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")  # so that some are dropped too
        site.storage_class()
        for number in range(5):
            site.claim(f"data-{number}")
        await site.start(traces=True)
        await site.bound(*(f"data-{number}" for number in range(5)))
        assert await site.stop() == 0
    assert len([line for line in site.lines if str(line.keys.get("logger")).startswith("opentelemetry")]) == 1
