"""Capacity.md 9 to 12 with the whole program: which objects come of what there is, and at which cost."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from csi_provisioner.settings import CapacitySettings
from sandbox.api.faults import Fault
from tests.capacity.objects import DRIVER, LABELS
from tests.capacity.publishing import KIND, SETTINGS, ZONE, exists, made, start
from tests.embedded import VIRTUAL, Cluster


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@dataclass
class Scenario:
    """What is there before, and what it costs."""

    zones: tuple[str, ...] = ("z-1",)
    late: tuple[str, ...] = ("fast",)
    immediate: tuple[str, ...] = ()
    objects: tuple[tuple[Any, ...], ...] = ()
    settings: CapacitySettings = SETTINGS
    calls: int = 0
    writes: dict[str, int] = field(default_factory=dict)
    published: set[tuple[str, str]] = field(default_factory=set)


FOR_IMMEDIATE = replace(SETTINGS, immediate_binding=True)
FAST = {("z-1", "fast")}
SMALL: dict[str, Any] = {"capacity": "1Gi"}
UNOWNED: dict[str, Any] = {"metadata": {"labels": {**LABELS, "csi.storage.k8s.io/managed-by": "somebody"}}}
FOREIGN_OWNER = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "old", "uid": "1-2-3", "controller": True}
OWNED: dict[str, Any] = {"metadata": {"ownerReferences": [FOREIGN_OWNER]}}
SCENARIOS = {
    "one-pair": Scenario(calls=1, writes={"create": 1}, published=FAST),
    "class-without-segment": Scenario(zones=()),
    "segment-without-class": Scenario(late=()),
    "immediate-flag-off": Scenario(late=(), immediate=("now",)),
    "immediate-flag-on": Scenario(
        late=(), immediate=("now",), settings=FOR_IMMEDIATE, calls=1, writes={"create": 1}, published={("z-1", "now")}
    ),
    "two-by-two": Scenario(
        zones=("z-1", "z-2"),
        late=("fast", "slow"),
        calls=4,
        writes={"create": 4},
        published={(zone, name) for zone in ("z-1", "z-2") for name in ("fast", "slow")},
    ),
    "same-values-capacity-15-5": Scenario(objects=(("a", "z-1", "fast", {}),), calls=1, published=FAST),
    "owner-of-before-is-kept": Scenario(objects=(("a", "z-1", "fast", OWNED),), calls=1, published=FAST),
    "other-size": Scenario(objects=(("a", "z-1", "fast", SMALL),), calls=1, writes={"patch": 1}, published=FAST),
    "other-maximum-capacity-15-3": Scenario(
        objects=(("a", "z-1", "fast", {"maximumVolumeSize": "5Gi"}),), calls=1, writes={"patch": 1}, published=FAST
    ),
    "two-vanished-classes": Scenario(
        zones=("z-1", "z-2"),
        late=("fast", "slow"),
        objects=(
            ("a", "z-1", "fast", SMALL),
            ("b", "z-2", "fast", SMALL),
            ("c", "z-1", "gone", {}),
            ("d", "z-2", "lost", {}),
        ),
        calls=4,
        writes={"create": 2, "patch": 2, "delete": 2},
        published={(zone, name) for zone in ("z-1", "z-2") for name in ("fast", "slow")},
    ),
    "vanished-segment": Scenario(
        objects=(("a", "z-1", "fast", {}), ("b", "z-2", "fast", {})), calls=1, writes={"delete": 1}, published=FAST
    ),
    "duplicate": Scenario(
        objects=(("a", "z-1", "fast", {}), ("b", "z-1", "fast", {})), calls=1, writes={"delete": 1}, published=FAST
    ),
    "of-another-manager": Scenario(
        objects=(("a", "z-1", "fast", UNOWNED),), calls=1, writes={"create": 1}, published=FAST
    ),
    "zero-capacity-is-published": Scenario(zones=("z-3",), calls=1, writes={"create": 1}, published={("z-3", "fast")}),
    "immediate-class-sorts-first": Scenario(
        zones=("z-1", "z-2"),
        immediate=("a-first",),
        calls=2,
        writes={"create": 2},
        published={("z-1", "fast"), ("z-2", "fast")},
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=[f"capacity-9-{name}" for name in SCENARIOS])
async def test_what_comes_of_what_is_there(cluster: Cluster, scenario: Scenario) -> None:
    for zone in scenario.zones:
        cluster.node(f"in-{zone}", DRIVER, zone=zone)
    for name in scenario.late:
        cluster.storage_class(name, DRIVER)
    for name in scenario.immediate:
        cluster.storage_class(name, DRIVER, late=False)
    for name, zone, class_name, fields in scenario.objects:
        exists(cluster, name, zone, class_name, **fields)

    driver = await start(cluster, scenario.settings)

    assert len(driver.made("GetCapacity")) == scenario.calls
    assert cluster.counts(KIND) == scenario.writes
    ours = {key for key, obj in made(cluster).items() if obj["metadata"]["labels"].items() >= LABELS.items()}
    assert ours == scenario.published


async def test_the_object_has_everything_and_the_question_is_unstripped(cluster: Cluster) -> None:
    """What the object says; the parameters go unstripped, no capability is named. capacity.md 8, capacity.md 15.16."""
    cluster.node("n", DRIVER, zone="z-1")
    cluster.storage_class("fast", DRIVER, parameters={"csi.storage.k8s.io/fstype": "xfs", "tier": "gold"})
    driver = await start(cluster)
    [call] = driver.made("GetCapacity")
    assert call.request.parameters == {"csi.storage.k8s.io/fstype": "xfs", "tier": "gold"}
    assert call.request.accessible_topology.segments == {ZONE: "z-1"}
    assert call.request.volume_capabilities == []
    [obj] = cluster.objects.all(KIND)
    assert obj["metadata"]["generateName"] == "csisc-"
    assert obj["metadata"]["namespace"] == "ns1"
    assert obj["metadata"]["labels"] == LABELS
    assert "ownerReferences" not in obj["metadata"]
    assert obj["nodeTopology"] == {"matchLabels": {ZONE: "z-1"}}
    assert (obj["capacity"], obj["maximumVolumeSize"]) == ("10Gi", "4Gi")


async def test_a_failure_names_class_and_segment(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.node("n-1", DRIVER, zone="z-1")
    cluster.storage_class("fast", DRIVER)
    cluster.server.faults.add(Fault("create", KIND, skip=1, code=403, message="no"))  # the start asks with one too
    await start(cluster)
    said = capsys.readouterr().err
    assert f'err="StorageClass fast in {{{ZONE}=z-1}}: create CSIStorageCapacity' in said
