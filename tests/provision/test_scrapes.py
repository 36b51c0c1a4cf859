"""A scrape of a process that works, of one that stands by and of one on a node: how much it tells (process.md 8.5)."""

from typing import Any

import pytest

from csi_provisioner import __version__
from csi_provisioner.metrics import LaneCounts, Metrics
from csi_provisioner.planning import steps
from csi_provisioner.settings import ElectionSettings, NodeSettings
from tests.installation import CLASS, NAMESPACE, Installation
from tests.journeys.objects import from_claim, from_snapshot

MOST = 600
FAMILIES = (
    "claim_to_volume_seconds", "overhead_seconds", "bind_wait_seconds", "release_to_gone_seconds",
    "detach_wait_seconds", "pending_claims", "oldest_pending_seconds", "watch_lag_seconds", "driver_ready",
    "build_info",
)  # fmt: skip
CLASSES = [f"class-{number}" for number in range(5)]
SOURCES: list[dict[str, Any]] = [{}, from_snapshot("snapshot"), from_claim("source")]


def told(found: dict[str, float]) -> dict[str, float]:
    """The series of these families."""
    names = tuple(f"csi_provisioner_{family}" for family in FAMILIES)
    return {series: value for series, value in found.items() if series.startswith(names)}


def of(found: dict[str, float], family: str) -> dict[str, float]:
    name = f"csi_provisioner_{family}"
    return {series.removeprefix(name): value for series, value in found.items() if series.startswith(name)}


async def test_five_classes_and_all_sources_make_at_most_600_series(site: Installation) -> None:
    site.snapshot("snapshot")
    for name in (*CLASSES, "of the source"):
        site.storage_class(name.replace(" ", "-"))
    site.claim("source", "of-the-source")
    await site.start()
    await site.bound("source")
    site.delete(CLASS, "of-the-source")
    for name in CLASSES:
        for number, source in enumerate(SOURCES):
            site.claim(f"{name}-{number}", name, **source)
    await site.bound(*(f"{name}-{number}" for name in CLASSES for number in range(3)))
    for name in CLASSES:
        site.claim(f"{name}-refused", name, selector={})
    await site.rest(1)
    found = await site.metrics()
    assert len(of(found, "claim_to_volume_seconds_count")) == len(of(found, "overhead_seconds_count")) == 15
    assert of(found, "pending_claims") == {f'{{class="{name}",reason="claim"}}': 1 for name in CLASSES}
    assert len(told(found)) < MOST - len(CLASSES) * (len(steps.REASONS) - 1)


def test_no_claims_make_more() -> None:
    """All reasons in all classes at once, and claims whose class is not there."""
    metrics = Metrics()
    for name in CLASSES:
        for source in ("", "VolumeSnapshot", "PersistentVolumeClaim"):
            metrics.volume_written((name, source, "Immediate"), 1.0, 0.5)
    pending: dict[tuple[str, ...], float] = {(name, reason): 1.0 for name in CLASSES for reason in steps.REASONS}
    pending["", steps.CLASS] = 1.0
    kinds = ("PersistentVolumeClaim", "PersistentVolume", "StorageClass", "VolumeAttachment", "ReferenceGrant", "Node")
    lags: dict[tuple[str, ...], float] = {(kind,): 1.0 for kind in (*kinds, "CSINode", "CSIStorageCapacity")}
    metrics.ask(lambda: (pending, {(name,): 1.0 for name in ("", *CLASSES)}, lags))
    metrics.driver_ready(True)
    lines = metrics.render().decode().splitlines()
    assert 550 < len(told({line.rpartition(" ")[0]: 1.0 for line in lines if not line.startswith("#")})) <= MOST


async def test_a_standby_tells_nothing_of_claims_nor_does_a_leader_that_gave_its_lease_back(site: Installation) -> None:
    site.storage_class()
    await site.start(election=ElectionSettings(enabled=True, namespace=NAMESPACE))
    site.claim()
    await site.bound("data")
    site.claim("late")
    site.kill_driver()
    await site.rest(5)
    assert of(await site.metrics(), "pending_claims") == {'{class="fast",reason="driver"}': 1}
    await site.rest(60)
    found = await site.metrics()
    assert not [*of(found, "pending"), *of(found, "oldest"), *of(found, "watch_lag"), *of(found, "lane")]
    assert of(found, "claim_to_volume_seconds_count") != {}
    assert of(found, "build_info") == {f'{{version="{__version__}",driver_name="{site.config.name}"}}': 1}
    assert len(told(found)) <= MOST


async def test_on_a_node_only_its_own_claims_are_told(site: Installation) -> None:
    site.fault(rpc="GetCapacity", delay=3.0)
    await site.start(nodes=NodeSettings(enabled=True, node_name=site.config.node_id))
    site.storage_class(volumeBindingMode="WaitForFirstConsumer")
    site.storage_class("any")
    for name, node in (("here", site.config.node_id), ("there", "another")):
        site.cluster.claim(name, "fast", node=node, selector={})
    site.claim("taken", "any")
    await site.bound("taken")
    await site.rest(1)
    found = await site.metrics()
    assert of(found, "pending_claims") == {'{class="fast",reason="claim"}': 1}
    [whole], [ours] = of(found, "claim_to_volume_seconds_sum").values(), of(found, "overhead_seconds_sum").values()
    assert whole - ours == pytest.approx(3)  # the call before the claim was taken
    assert len(told(found)) <= MOST


async def test_an_outage_of_the_driver_is_not_our_time(site: Installation) -> None:
    site.storage_class()
    await site.start()
    site.kill_driver()
    site.claim()
    await site.rest(30)
    await site.serve()
    await site.bound("data")
    await site.rest(1)
    found = await site.metrics()
    [whole], [ours] = of(found, "claim_to_volume_seconds_sum").values(), of(found, "overhead_seconds_sum").values()
    assert whole >= 30
    assert ours <= 3  # waiting claims are let go one after the other


async def test_the_lag_of_a_watch_is_the_age_of_the_last_thing_that_it_showed(site: Installation) -> None:
    site.storage_class()
    await site.start()
    await site.rest(300)
    kinds = [f'{{kind="{kind}"}}' for kind in ("PersistentVolume", "PersistentVolumeClaim", "StorageClass")]
    quiet = of(await site.metrics(), "watch_lag_seconds")
    assert sorted(quiet) == kinds
    assert max(quiet.values()) <= 60  # there are bookmarks
    for verb in ("list", "watch"):
        site.refuse(verb, "PersistentVolumeClaim")
    site.api.cut_watches()
    await site.rest(300)
    cut = of(await site.metrics(), "watch_lag_seconds")
    assert cut.pop('{kind="PersistentVolumeClaim"}') > 299
    assert max(cut.values()) <= 60


def test_lanes_make_four_series_each() -> None:
    """Five classes with three sources, and their deletions."""
    metrics = Metrics()
    lanes = [LaneCounts("claims", name, source, 1, 4, 2, 0.5) for name in CLASSES for source in ("", "a", "b")]
    lanes += [LaneCounts("volumes", name, "", 1, None, None, 0.5) for name in CLASSES]
    metrics.lanes(lambda: lanes)
    lines = [line for line in metrics.render().decode().splitlines() if line.startswith("csi_provisioner_lane_")]
    assert len(lines) == 4 * 15 + 2 * 5
    assert 'csi_provisioner_lane_cuts_total{name="claims",class="class-0",source="a"} 2' in lines
