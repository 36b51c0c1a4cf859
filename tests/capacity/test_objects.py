"""Capacity.md 8: the request, the object and its correction."""

from typing import Any

import msgspec
import pytest

from csi_provisioner.capacity import objects
from csi_provisioner.capacity.objects import Pair, Publication
from csi_provisioner.capacity.segments import Segment
from csi_provisioner.model import csi
from csi_provisioner.model import kubernetes as k8s

from .objects import DRIVER, MANAGER, OWNER, PUBLICATION, Z1, answer, capacity, storage_class

OWNED = Publication(DRIVER, MANAGER, "ns1", OWNER)
GIB = 1 << 30


def test_a_new_object_says_everything_about_its_pair() -> None:
    """capacity.md 8."""
    made = objects.new(Pair(Z1, "acme-fast"), answer(128 * GIB, 4096 * GIB), OWNED)
    assert msgspec.to_builtins(made) == {
        "metadata": {
            "generateName": "csisc-",
            "namespace": "ns1",
            "labels": {
                "csi.storage.k8s.io/drivername": "disk.acme.test",
                "csi.storage.k8s.io/managed-by": "external-provisioner",
            },
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "acme-ctl", "uid": "7d1e", "controller": True}
            ],
        },
        "storageClassName": "acme-fast",
        "nodeTopology": {"matchLabels": {"acme.test/zone": "z-1"}},
        "capacity": "128Gi",
        "maximumVolumeSize": "4Ti",
    }


def test_the_empty_segment_is_an_empty_selector() -> None:
    """capacity.md 8."""
    assert msgspec.to_builtins(objects.new(Pair((), "fast"), answer(1), PUBLICATION))["nodeTopology"] == {}


def test_what_is_not_known_is_left_out() -> None:
    """capacity.md 8."""
    made = msgspec.to_builtins(objects.new(Pair(Z1, "fast"), answer(0), PUBLICATION))
    assert "ownerReferences" not in made["metadata"]
    assert "maximumVolumeSize" not in made
    assert made["capacity"] == "0"


@pytest.mark.parametrize(
    ("amount", "text"),
    [(1 << 30, "1Gi"), (1610612736, "1536Mi"), (1025, "1025"), (0, "0"), (1 << 62, "4Ei"), (1 << 10, "1Ki")],
)
def test_sizes_are_written_as_quantities(amount: int, text: str) -> None:
    """capacity.md 8."""
    assert objects.new(Pair(Z1, "fast"), answer(amount, amount), PUBLICATION).capacity == text


def test_the_request_is_unstripped_and_names_no_capability() -> None:
    """Also capacity-15-16: drivers take capabilities they are given for a restriction. capacity.md 8."""
    parameters = {"csi.storage.k8s.io/fstype": "xfs", "type": "ssd"}
    asked = objects.question(Pair(Z1, "fast"), storage_class(parameters=parameters))
    assert asked == csi.GetCapacityRequest(
        parameters=parameters, accessible_topology=csi.Topology(segments={"acme.test/zone": "z-1"})
    )
    asked.parameters.clear()
    assert len(parameters) == 2


def test_the_empty_segment_is_still_asked_for() -> None:
    """capacity.md 8."""
    assert bytes(objects.question(Pair((), "fast"), storage_class())) == b"\x1a\x00"


def test_a_maximum_of_zero_is_not_a_missing_one() -> None:
    """capacity.md 8."""
    parsed = csi.GetCapacityResponse.parse(bytes(answer(5, 0)))
    assert objects.new(Pair(Z1, "fast"), parsed, PUBLICATION).maximumVolumeSize == "0"
    parsed = csi.GetCapacityResponse.parse(bytes(csi.GetCapacityResponse(minimum_volume_size=1)))
    assert objects.new(Pair(Z1, "fast"), parsed, PUBLICATION).maximumVolumeSize is None


OTHER = k8s.OwnerReference(kind="Pod", name="p", uid="other", controller=True)
NOT_CONTROLLER = k8s.OwnerReference(kind="StatefulSet", name="acme-ctl", uid="7d1e")
CORRECTIONS: list[tuple[str, k8s.CSIStorageCapacity, csi.GetCapacityResponse, Publication, dict[str, Any] | None]] = [
    ("same", capacity("u"), answer(GIB), PUBLICATION, None),
    ("same-written-otherwise", capacity("u", capacity="1073741824000m"), answer(GIB), PUBLICATION, None),
    ("same-decimal", capacity("u", capacity="1G"), answer(10**9), PUBLICATION, None),
    ("fraction-rounded-up", capacity("u", capacity="1500m"), answer(2), PUBLICATION, None),
    ("smaller", capacity("u"), answer(1), PUBLICATION, {"capacity": "1", "maximumVolumeSize": None}),
    ("zero", capacity("u"), answer(0), PUBLICATION, {"capacity": "0", "maximumVolumeSize": None}),
    (
        "no-capacity-differs-from-zero",
        capacity("u", capacity=None),
        answer(0),
        PUBLICATION,
        {"capacity": "0", "maximumVolumeSize": None},
    ),
    (
        "unreadable",
        capacity("u", capacity="much"),
        answer(0),
        PUBLICATION,
        {"capacity": "0", "maximumVolumeSize": None},
    ),
    ("maximum-same", capacity("u", maximumVolumeSize="1Ti"), answer(GIB, 1 << 40), PUBLICATION, None),
    (
        "maximum-only",
        capacity("u", maximumVolumeSize="1Ti"),
        answer(GIB, 5),
        PUBLICATION,
        {"capacity": "1Gi", "maximumVolumeSize": "5"},
    ),
    (
        "maximum-gone",
        capacity("u", maximumVolumeSize="1Ti"),
        answer(GIB),
        PUBLICATION,
        {"capacity": "1Gi", "maximumVolumeSize": None},
    ),
    (
        "maximum-zero-is-not-unset",
        capacity("u"),
        answer(GIB, 0),
        PUBLICATION,
        {"capacity": "1Gi", "maximumVolumeSize": "0"},
    ),
    ("owner-there", capacity("u", owners=[NOT_CONTROLLER, OWNER]), answer(GIB), OWNED, None),
    ("owner-kept-though-none-configured", capacity("u", owners=[OTHER]), answer(GIB), PUBLICATION, None),
]


@pytest.mark.parametrize(
    ("known", "found", "publication", "expected"),
    [row[1:] for row in CORRECTIONS],
    ids=[f"capacity-8-{row[0]}" for row in CORRECTIONS],
)
def test_correction(
    known: k8s.CSIStorageCapacity,
    found: csi.GetCapacityResponse,
    publication: Publication,
    expected: dict[str, Any] | None,
) -> None:
    patch = objects.correction(known, found, publication)
    assert patch == (expected and {"metadata": {"resourceVersion": "1"}} | expected)


@pytest.mark.parametrize(
    "owners",
    [None, [OTHER], [NOT_CONTROLLER]],
    ids=["capacity-8-none", "capacity-8-other-uid", "capacity-8-no-controller"],
)
def test_owner_is_added(owners: list[k8s.OwnerReference] | None) -> None:
    """A strategic patch merges owners by uid: the one given comes beside the others."""
    patch = objects.correction(capacity("u", owners=owners), answer(GIB), OWNED)
    assert patch is not None
    assert patch["metadata"]["ownerReferences"] == [msgspec.to_builtins(OWNER)]


def selecting(**fields: Any) -> k8s.CSIStorageCapacity:
    return capacity("u", nodeTopology=k8s.LabelSelector(**fields))


PAIRS: list[tuple[str, k8s.CSIStorageCapacity, Segment | None]] = [
    ("segment", capacity("u"), Z1),
    ("sorted", selecting(matchLabels={"b": "1", "a": "2"}), (("a", "2"), ("b", "1"))),
    ("absent-labels-are-empty-ones", selecting(), ()),
    ("empty-labels", selecting(matchLabels={}), ()),
    ("expressions", selecting(matchLabels=dict(Z1), matchExpressions=[{"key": "x"}]), None),
    ("no-selector", capacity("u", nodeTopology=None), None),
]


@pytest.mark.parametrize(("obj", "segment"), [row[1:] for row in PAIRS], ids=[f"capacity-8-{row[0]}" for row in PAIRS])
def test_pair_of(obj: k8s.CSIStorageCapacity, segment: Segment | None) -> None:
    assert objects.pair_of(obj) == (None if segment is None else Pair(segment, "fast"))
