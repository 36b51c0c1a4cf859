"""provision.md 8.10: VolumeAttributesClass."""

import pytest

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import attributes_class
from csi_provisioner.planning.refusal import Refusal
from tests.planning.objects import DRIVER, SETTINGS, claim, draft, settings

GOLD = claim(volumeAttributesClassName="gold")


@pytest.mark.parametrize(
    ("named", "gate", "read"),
    [
        pytest.param("gold", True, "gold", id="8.10 named"),
        pytest.param("gold", False, None, id="16 VAC named, gate off"),
        pytest.param("", True, None, id="8.10 empty"),
        pytest.param(None, True, None, id="8.10 nil"),
    ],
)
def test_wanted(named: str | None, gate: bool, read: str | None) -> None:
    it = claim(volumeAttributesClassName=named)
    assert attributes_class.wanted(it, settings(volume_attributes_class=gate)) == read


def vac(driver: str, parameters: dict[str, str] | None) -> k8s.VolumeAttributesClass:
    return k8s.VolumeAttributesClass(metadata=k8s.ObjectMeta(name="gold"), driverName=driver, parameters=parameters)


@pytest.mark.parametrize("parameters", [{"iops": "1", "csi.storage.k8s.io/x": "kept"}, {}, None])
def test_parameters_are_passed_on_verbatim_p19_request_9(parameters: dict[str, str] | None) -> None:
    """provision.md 8.10."""
    settled = draft(GOLD, options=SETTINGS)
    assert attributes_class.mutable_parameters(settled, vac(DRIVER, parameters)) == (parameters or {})


def test_a_class_of_another_driver_is_refused() -> None:
    """provision.md 16."""
    with pytest.raises(Refusal, match=rf"gold of claim shop/a is for driver other, not {DRIVER}") as refused:
        attributes_class.mutable_parameters(draft(GOLD), vac("other", {}))
    assert refused.value.state is State.FINISHED


def test_a_class_that_cannot_be_read_is_refused() -> None:
    """provision.md 16."""
    no = attributes_class.unreadable(draft(GOLD), "not found")
    assert (no.state, no.message) == (
        State.NO_CHANGE,
        "cannot read VolumeAttributesClass gold of claim shop/a: not found",
    )
