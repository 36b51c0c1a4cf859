"""Capacity.md 4: the labels that decide who manages an object."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.capacity.objects import DRIVER_LABEL, MANAGER_LABEL, Publication, manager_on
from csi_provisioner.model.kubernetes import CSIStorageCapacity, ObjectMeta
from csi_provisioner.planning.fnv import fnv1a

LONG = "worker-0.rack-17.dc-east.storage-lab.example-corp.internal"
ROWS = [
    ("central", "", "external-provisioner"),
    (
        "41",
        "ip-10-0-0-1.eu-central-1.compute.internal",
        "external-provisioner-ip-10-0-0-1.eu-central-1.compute.internal",
    ),
    ("42", "a" * 42, "external-provisioner-" + "a" * 42),
    ("43", "n" * 43, "external-p-53f40b57-" + "n" * 43),
    ("52", "w" * 52, "e-53f40b57-" + "w" * 52),
    ("53", "w" * 53, "external-provisioner-81109647"),
    ("58", LONG, "external-provisioner-d0a14795"),
]

OURS = Publication("d", "m", "ns1")


@pytest.mark.parametrize(("node", "expected"), [row[1:] for row in ROWS], ids=[f"capacity-4-{row[0]}" for row in ROWS])
def test_managed_by(node: str, expected: str) -> None:
    assert manager_on(node) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("external-provisioner", 0x53F40B57), ("hello", 0x4F9F2CAB), ("", 2166136261)]
)
def test_the_hash_is_fnv1a(text: str, expected: int) -> None:
    """capacity.md 4."""
    assert fnv1a(text) == expected


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?){0,3}", fullmatch=True))
def test_the_managers_name_is_always_a_label_value(node: str) -> None:
    """capacity.md 15.13, node-deployment.md 15.6."""
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", manager_on(node))


@pytest.mark.parametrize("length", range(1, 100))
def test_the_managers_name_differs_for_different_nodes(length: int) -> None:
    """capacity.md 15.13."""
    assert manager_on("n" * length) != manager_on("n" * (length - 1) + "m")


MANAGED = [
    ("both", {DRIVER_LABEL: "d", MANAGER_LABEL: "m"}, True),
    ("and-others", {DRIVER_LABEL: "d", MANAGER_LABEL: "m", "x": "y"}, True),
    ("other-driver", {DRIVER_LABEL: "e", MANAGER_LABEL: "m"}, False),
    ("other-manager", {DRIVER_LABEL: "d", MANAGER_LABEL: "external-provisioner-m"}, False),
    ("no-manager", {DRIVER_LABEL: "d"}, False),
    ("none", None, False),
]


@pytest.mark.parametrize(
    ("labels", "expected"), [row[1:] for row in MANAGED], ids=[f"capacity-4-{row[0]}" for row in MANAGED]
)
def test_is_managed(labels: dict[str, str] | None, expected: bool) -> None:
    assert OURS.manages(CSIStorageCapacity(ObjectMeta(labels=labels))) is expected


def test_the_selector_names_driver_and_manager() -> None:
    """capacity.md 2."""
    assert OURS.selector() == "csi.storage.k8s.io/drivername=d,csi.storage.k8s.io/managed-by=m"
