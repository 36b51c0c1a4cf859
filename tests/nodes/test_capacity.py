"""Node-deployment.md 7: does the volume fit here?"""

import pytest

from csi_provisioner.model import csi
from csi_provisioner.nodes import claiming

GIB = 1 << 30
HERE, THERE = csi.Topology(segments={"acme.test/node": "node-7"}), csi.Topology(segments={"acme.test/node": "node-8"})
PARAMETERS = {"type": "ssd", "csi.storage.k8s.io/pvc/name": "data-db-0"}
CAPABILITIES = [
    csi.VolumeCapability(
        access_mode=csi.VolumeCapabilityAccessMode(mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER)
    )
]


def request(size: int | None = 5 * GIB, *places: csi.Topology) -> csi.CreateVolumeRequest:
    return csi.CreateVolumeRequest(
        name="pvc-1",
        capacity_range=None if size is None else csi.CapacityRange(required_bytes=size),
        volume_capabilities=CAPABILITIES,
        parameters=PARAMETERS,
        secrets={"token": "hidden"},
        accessibility_requirements=csi.TopologyRequirement(requisite=list(places)) if places else None,
    )


@pytest.mark.parametrize("size", [0, None], ids=["node-deployment-7-size-0", "node-deployment-7-no-size"])
def test_without_a_size_nothing_is_asked(size: int | None) -> None:
    assert claiming.questions(request(size, HERE)) == []


def test_each_term_of_the_request_is_asked_for_in_its_order() -> None:
    """node-deployment.md 7."""
    asked = claiming.questions(request(GIB, HERE, THERE))
    assert asked == [
        csi.GetCapacityRequest(volume_capabilities=CAPABILITIES, parameters=PARAMETERS, accessible_topology=place)
        for place in (HERE, THERE)
    ]


def test_without_topology_the_driver_is_asked_once() -> None:
    """node-deployment.md 7."""
    assert claiming.questions(request()) == [
        csi.GetCapacityRequest(volume_capabilities=CAPABILITIES, parameters=PARAMETERS)
    ]


@pytest.mark.parametrize(
    ("available", "expected"),
    [(5 * GIB, True), (5 * GIB - 1, False), (50 * GIB, True), (0, False)],
    ids=["node-deployment-14-exact", "node-deployment-14-one-byte-too-little", "more", "none"],
)
def test_fits(available: int, expected: bool) -> None:
    # the largest single volume is not looked at
    response = csi.GetCapacityResponse(available_capacity=available, maximum_volume_size=1)
    assert claiming.fits(response, request()) is expected
