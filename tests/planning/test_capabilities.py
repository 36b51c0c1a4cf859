"""provision.md 8.3 and 8.6: what the driver must do and what it is asked for."""

from typing import Any

import pytest

from csi_provisioner.model.csi import VolumeCapabilityAccessModeMode as Mode
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import capabilities
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from tests.planning.objects import ALL, CREATES, claim, driver

FINER = CREATES | {"SINGLE_NODE_MULTI_WRITER"}


SNAPSHOT, CLONE = "VolumeSnapshot", "PersistentVolumeClaim"


@pytest.mark.parametrize(
    ("facts", "needs", "missing"),
    [
        pytest.param(DriverFacts("a", controller=ALL), {}, "CONTROLLER_SERVICE", id="8.3 always: plugin"),
        pytest.param(driver(controller=ALL - CREATES), {}, "CREATE_DELETE_VOLUME", id="8.3 always: controller"),
        pytest.param(
            driver(controller=CREATES), {"source_kind": SNAPSHOT}, "CREATE_DELETE_SNAPSHOT", id="8.3 snapshot"
        ),
        pytest.param(driver(controller=CREATES), {"source_kind": CLONE}, "CLONE_VOLUME", id="8.3 clone"),
        pytest.param(
            driver(controller=CREATES), {"attributes_class": True}, "MODIFY_VOLUME", id="16 VAC, no MODIFY_VOLUME"
        ),
        pytest.param(
            driver(controller=CREATES), {"source_kind": CLONE, "attributes_class": True}, "CLONE_VOLUME", id="8.3 order"
        ),
    ],
)
def test_lacking(facts: DriverFacts, needs: dict[str, Any], missing: str) -> None:
    with pytest.raises(Refusal, match=missing) as refused:
        capabilities.check_driver(facts, **needs)
    assert refused.value.state is State.FINISHED
    assert facts.name in refused.value.message


def test_having_all() -> None:
    for kind in ("", SNAPSHOT, CLONE):
        capabilities.check_driver(driver(), kind, attributes_class=True)
    capabilities.check_driver(driver(controller=CREATES))


@pytest.mark.parametrize(
    ("mode", "plain", "finer"),
    [
        ("ReadWriteOnce", Mode.SINGLE_NODE_WRITER, Mode.SINGLE_NODE_MULTI_WRITER),
        ("ReadWriteOncePod", Mode.SINGLE_NODE_WRITER, Mode.SINGLE_NODE_SINGLE_WRITER),
        ("ReadOnlyMany", Mode.MULTI_NODE_READER_ONLY, Mode.MULTI_NODE_READER_ONLY),
        ("ReadWriteMany", Mode.MULTI_NODE_MULTI_WRITER, Mode.MULTI_NODE_MULTI_WRITER),
    ],
    ids=lambda value: f"8.6 {value}, p19-request-8" if isinstance(value, str) else "",
)
def test_access_modes(mode: str, plain: Mode, finer: Mode) -> None:
    for controller, expected in ((CREATES, plain), (FINER, finer)):
        [found] = capabilities.of_claim(claim(modes=(mode,)), driver(controller=controller), "", None)
        assert found.access_mode is not None
        assert found.access_mode.mode == expected


@pytest.mark.parametrize("controller", [CREATES, FINER], ids=["plain", "finer"])
def test_an_unknown_access_mode_is_refused(controller: frozenset[str]) -> None:
    """provision.md 8.6."""
    with pytest.raises(Refusal, match=r"shop/a has access mode 'ReadSometimes'") as refused:
        capabilities.of_claim(claim(modes=("ReadWriteOnce", "ReadSometimes")), driver(controller=controller), "", None)
    assert refused.value.state is State.FINISHED


@pytest.mark.parametrize(
    ("modes", "count"),
    [
        pytest.param((), 0, id="8.6 none"),
        pytest.param(("ReadOnlyMany", "ReadWriteOnce"), 2, id="8.6 ROX and RWO"),
        pytest.param(("ReadWriteOnce", "ReadWriteOnce"), 2, id="8.6 repeats kept"),
    ],
)
def test_one_capability_for_each_mode(modes: tuple[str, ...], count: int) -> None:
    assert len(capabilities.of_claim(claim(modes=modes), driver(), "", None)) == count


def test_more_access_modes_than_anybody_needs_are_refused() -> None:
    with pytest.raises(Refusal, match="claim shop/a has 1001 access modes"):
        capabilities.of_claim(claim(modes=("ReadWriteOnce",) * 1001), driver(), "", None)


def test_a_mounted_volume_has_fs_type_and_mount_options_p19_request_1() -> None:
    """provision.md 8.6."""
    [found] = capabilities.of_claim(claim(), driver(), "xfs", ["noatime", "ro"])
    assert found.block is None
    assert found.mount is not None
    assert (found.mount.fs_type, found.mount.mount_flags) == ("xfs", ["noatime", "ro"])


def test_a_block_volume_is_asked_for_as_such_p19_request_1() -> None:
    """provision.md 8.6."""
    [found] = capabilities.of_claim(claim(volumeMode="Block"), driver(), "xfs", ["noatime"])
    assert found.mount is None
    assert found.block is not None
