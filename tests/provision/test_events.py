"""What people are told on their claims (provision.md 11.1): which events there are, and what stands in them."""

import re
import socket
from typing import Any

import pytest
import trio

from csi_provisioner.kube.events import PATIENCE
from sandbox.api.errors import Object
from tests.installation import CLAIM, CLASS, NAMESPACE, VOLUME, Installation
from tests.journeys.objects import SNAPSHOT_FINALIZER, from_claim, from_snapshot

PREFIX = "csi.storage.k8s.io/"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d\d:\d\d:\d\d|\d{10,}")


def _told(site: Installation, about: str = "data") -> list[tuple[str, str, int]]:
    events = sorted(site.events(about), key=lambda event: str(event["metadata"]["name"]))
    return [(event["type"], event["reason"], event["count"]) for event in events]


async def test_a_claim_that_gets_its_volume_is_told_so_p19_engine_7(site: Installation) -> None:
    """provision.md 11.1."""
    site.storage_class()
    site.fault(delay=2.0, times=1)
    site.claim()
    await site.start()
    done = await site.event("data", "ProvisioningSucceeded")
    assert _told(site) == [("Normal", "Provisioning", 1), ("Normal", "ProvisioningSucceeded", 1)]
    begun = await site.event("data", "Provisioning")
    assert "default/data" in begun["message"]
    assert site.volume_of("data") in done["message"]
    for event in (begun, done):
        about = event["involvedObject"]
        assert event["metadata"]["namespace"] == NAMESPACE
        assert (about["kind"], about["apiVersion"], about["namespace"]) == (CLAIM, "v1", NAMESPACE)
        assert about["uid"] == site.get(CLAIM, "data")["metadata"]["uid"]
        source = re.escape(f"{site.config.name}_{socket.gethostname()}_") + UUID.pattern
        assert re.fullmatch(source, event["source"]["component"])


async def test_a_volume_made_at_once_is_told_in_one_event(site: Installation) -> None:
    """Not so one whose first try failed."""
    site.storage_class()
    site.claim("quick")
    await site.start()
    await site.event("quick", "ProvisioningSucceeded")
    site.fault("INTERNAL", times=1)
    site.claim("failed")
    await site.event("failed", "ProvisioningSucceeded")
    await site.rest(5)
    assert [event["reason"] for event in site.events("quick")] == ["ProvisioningSucceeded"]
    told = ["Provisioning", "ProvisioningFailed", "ProvisioningSucceeded"]
    assert [event["reason"] for event in site.events("failed")] == told


async def test_events_wait_while_a_volume_is_being_written(site: Installation) -> None:
    """But not for ever, and not for one whose first try has failed."""
    site.storage_class()
    for name, seconds in (("first", 2.0), ("second", 20.0)):
        site.refuse("create", VOLUME, 0, delay=seconds, times=1)
        site.claim(name)
    await site.start()
    begun = trio.current_time()
    site.claim("quick")
    await site.event("quick", "ProvisioningSucceeded")
    assert trio.current_time() - begun == pytest.approx(PATIENCE, abs=1)
    await site.rest(30)
    site.refuse("create", VOLUME)
    site.claim("refused")
    await site.rest(1)
    begun = trio.current_time()
    site.fault("INTERNAL")
    site.claim("failed")
    await site.event("failed", "ProvisioningFailed")
    assert trio.current_time() - begun < 1


async def test_repeats_are_one_event_that_says_try_and_next_try(site: Installation) -> None:
    """provision.md 11.1."""
    site.fault("INTERNAL", message="pool is on fire", times=5)
    site.storage_class()
    site.claim()
    await site.start()
    for attempt, pause in ((1, "1 s"), (2, "2 s"), (3, "4 s"), (4, "8 s"), (5, "16 s")):
        failed = await site.event("data", "ProvisioningFailed", attempt)
        assert failed["count"] == attempt
        assert f"(attempt {attempt}; next try in {pause})" in failed["message"]
    for fact in (site.config.name, "CreateVolume", "Internal", "pool is on fire"):
        assert fact in failed["message"]
    await site.event("data", "ProvisioningSucceeded")
    assert _told(site) == [
        ("Normal", "Provisioning", 6),
        ("Warning", "ProvisioningFailed", 5),
        ("Normal", "ProvisioningSucceeded", 1),
    ]


async def test_different_failures_are_different_events(site: Installation) -> None:
    """provision.md 11.1."""
    site.fault("INTERNAL", times=2)
    site.fault("UNAVAILABLE", times=1)
    site.storage_class()
    site.claim()
    await site.start()
    await site.event("data", "ProvisioningSucceeded")
    assert sorted(event["count"] for event in site.events("data", "ProvisioningFailed")) == [1, 2]


async def test_a_text_of_the_driver_that_changes_does_not_make_more_events(site: Installation) -> None:
    """provision.md 11.1."""
    for request in ("8f14e45f", "c9f0f895", "45c48cce"):
        site.fault("INTERNAL", message=f"request {request} failed", times=1)
    site.storage_class()
    site.claim()
    await site.start()
    await site.event("data", "ProvisioningSucceeded")
    [failed] = site.events("data", "ProvisioningFailed")
    assert failed["count"] == 3
    assert "45c48cce" in failed["message"]


async def test_a_populator_is_told_by_the_second_source_p19_sources_1(site: Installation) -> None:
    """provision.md 11.1."""
    site.storage_class()
    site.claim(dataSourceRef={"apiGroup": "example.com", "kind": "Backup", "name": "monday"})
    await site.start()
    await site.rest(100)
    events = {event["source"]["component"].partition("_")[0]: event for event in site.events("data")}
    assert set(events) == {site.config.name, "external-provisioner"}
    assert {(event["type"], event["reason"]) for event in events.values()} == {("Normal", "Provisioning")}
    assert "populator" in events["external-provisioner"]["message"]
    assert site.calls() == []


async def test_a_claim_that_has_failed_for_hours_says_why_and_that_it_is_done(site: Installation) -> None:
    site.fault(code="RESOURCE_EXHAUSTED")
    site.storage_class()
    site.claim()
    await site.start()
    await site.rest(6 * 3600)
    site.driver.faults.clear()
    site.fault(code="PERMISSION_DENIED", message="locked")
    await site.rest(1800)
    first, second = sorted(site.events("data", "ProvisioningFailed"), key=lambda event: str(event["firstTimestamp"]))
    tries = len(site.calls())
    assert "locked" in second["message"]
    assert first["count"] + second["count"] >= tries - 1
    assert second["count"] >= 5
    site.driver.faults.clear()
    await site.bound("data")
    await site.event("data", "ProvisioningSucceeded")


async def test_a_stream_of_failures_is_limited(site: Installation) -> None:
    """process.md 5.3: the events of an object are 25 in a burst and one each five minutes; the count goes on
    (provision.md 11.1)."""
    site.fault("INTERNAL")
    site.storage_class()
    site.claim()
    await site.start()
    for value in range(60):
        site.touch(CLAIM, "data", str(value))
        await site.rest(0.3)
    assert len(site.calls()) >= 60
    assert len(site.requests.of("*", "Event")) <= 26


SILENT: dict[str, dict[str, Any]] = {
    "no-such-class": {},
    "class-of-another": {"provisioner": "kubernetes.io/no-provisioner"},
    "other-provisioner": {"provisioner": "other.example.com"},
    "waits-for-its-consumer": {"volumeBindingMode": "WaitForFirstConsumer"},
}


@pytest.mark.parametrize("case", SILENT)
async def test_what_is_no_attempt_has_no_event(site: Installation, case: str) -> None:
    """provision.md 11.1."""
    if SILENT[case]:
        fields = {"provisioner": site.config.name, "volumeBindingMode": "Immediate"} | SILENT[case]
        site.objects.create(CLASS, {"metadata": {"name": "fast"}} | fields)
    site.claim()
    site.edit(CLAIM, "data", lambda claim: claim["metadata"].setdefault("annotations", {}).update(_chosen(site)))
    await site.start()
    await site.rest(400)
    assert site.events("data") == []
    assert site.calls() == []


async def test_a_volume_that_is_there_already_has_no_event(site: Installation) -> None:
    """provision.md 11.1."""
    site.storage_class()
    site.claim()
    volume = {
        "metadata": {"name": site.volume_of("data")},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "storageClassName": "another",
            "csi": {"driver": site.config.name, "volumeHandle": "by-hand"},
        },
    }
    site.objects.create(VOLUME, volume)
    await site.start()
    await site.rest(100)
    assert site.events("data") == []
    assert site.calls() == []


def _chosen(site: Installation) -> Object:
    return {"volume.kubernetes.io/storage-provisioner": site.config.name}


def _no_secret(site: Installation) -> dict[str, Any]:
    site.storage_class(
        parameters={f"{PREFIX}provisioner-secret-name": "login", f"{PREFIX}provisioner-secret-namespace": "vault"}
    )
    return {}


def _bad_parameter(site: Installation) -> dict[str, Any]:
    site.storage_class(parameters={f"{PREFIX}resizer-secret-name": "x"})
    return {}


def _no_snapshot(site: Installation) -> dict[str, Any]:
    site.storage_class()
    return from_snapshot("missing")


def _deleted_snapshot(site: Installation) -> dict[str, Any]:
    site.storage_class()
    site.snapshot("gone", finalizers=["example.com/stays"])
    site.delete("VolumeSnapshot", "gone")
    return from_snapshot("gone")


def _no_source(site: Installation) -> dict[str, Any]:
    site.storage_class()
    return from_claim("missing")


def _no_attributes(site: Installation) -> dict[str, Any]:
    site.storage_class()
    return {"volumeAttributesClassName": "gold"}


def _selector(site: Installation) -> dict[str, Any]:
    site.storage_class()
    return {"selector": {"matchLabels": {"a": "b"}}}


FAILURES = {
    _no_secret: ["secret vault/login", "StorageClass fast", "not found"],
    _bad_parameter: ["StorageClass", f"{PREFIX}resizer-secret-name"],
    _no_snapshot: ["VolumeSnapshot default/missing", "default/data", "not found"],
    _deleted_snapshot: ["VolumeSnapshot default/gone", "being deleted"],
    _no_source: ["PersistentVolumeClaim default/missing", "no such claim"],
    _no_attributes: ["VolumeAttributesClass", "gold", "not found"],
    _selector: ["default/data", "selector"],
}


@pytest.mark.parametrize("arrange", FAILURES, ids=lambda arrange: arrange.__name__.strip("_"))
async def test_messages_say_what_was_tried_on_what_and_what_was_answered(site: Installation, arrange: Any) -> None:
    site.claim(**arrange(site))
    await site.start()
    failed = await site.event("data", "ProvisioningFailed", 3)
    text = failed["message"]
    for fact in [*FAILURES[arrange], "attempt 3", "next try in 4 s"]:
        assert fact in text
    assert not UUID.search(text.replace(site.volume_of("data"), ""))
    assert not TIME.search(text)
    assert failed["type"] == "Warning"
    [line] = site.logged("Failed, will be tried again")
    assert line.level == "ERROR"
    told = str(line.keys["err"])
    assert told.startswith("claim default/data: ")
    assert told.removeprefix("claim default/data: ") in text


async def test_a_forbidden_secret_names_the_kustomization(site: Installation) -> None:
    said = (
        'secrets "login" is forbidden: User "u" cannot get resource "secrets" in API group "" in the namespace "vault"'
    )
    site.refuse("get", "Secret", 403, message=said)
    site.claim(**_no_secret(site))
    await site.start()
    assert (
        f"{said}; kustomize/components/secrets grants it (403 Forbidden)"
        in (await site.event("data", "ProvisioningFailed"))["message"]
    )


async def test_a_webhook_that_forbids_is_no_missing_right(site: Installation) -> None:
    site.refuse("get", "Secret", 403, message='admission webhook "w" denied the request: not on Sundays')
    site.claim(**_no_secret(site))
    await site.start()
    assert "kustomize" not in (await site.event("data", "ProvisioningFailed"))["message"]


async def test_messages_of_a_conflict_carry_no_versions(site: Installation) -> None:
    site.storage_class()
    site.snapshot("snap")
    await site.start()
    await site.rest(1)
    site.refuse("get", "VolumeSnapshotContent", 0, delay=1.0, times=1)
    site.claim(**from_snapshot("snap"))
    await site.until(lambda: site.requests.of("get", "VolumeSnapshotContent"))
    site.touch("VolumeSnapshot", "snap", "a")
    failed = await site.event("data", "ProvisioningFailed")
    assert "the object has been modified" in failed["message"]
    assert "resourceVersion" not in failed["message"]
    await site.bound("data")
    assert SNAPSHOT_FINALIZER not in site.finalizers("VolumeSnapshot", "snap")


async def test_messages_of_a_foreign_source_are_vague(site: Installation) -> None:
    """provision.md 8.8: the reason is for the log only."""
    site.storage_class()
    site.claim("source")
    await site.start()
    await site.bound("source")
    volume = site.volume_of("source")
    site.refuse("get", VOLUME, 403, name=volume)
    site.claim(**from_claim("source"))
    failed = await site.event("data", "ProvisioningFailed")
    assert "not bound or not valid" in failed["message"]
    assert volume not in failed["message"]
    [line] = [line for line in site.lines if volume in str(line.keys) and line.level == "ERROR"]
    assert str(line.keys["err"]).endswith("(403 Forbidden))")
