"""provision.md 8.4: the volume's name."""

import pytest

from csi_provisioner.model.outcome import State
from csi_provisioner.planning import naming
from csi_provisioner.planning.refusal import Refusal
from tests.planning.objects import UID, settings


@pytest.mark.parametrize(
    ("prefix", "length", "uid", "name"),
    [
        pytest.param("test", 5, "testid", "test-testi", id="16 vector length 5"),
        pytest.param("pvc", -1, UID, f"pvc-{UID}", id="16 vector whole UID with dashes"),
        pytest.param("vol", 10, UID, "vol-6a1e4d1e30", id="8.4 dashes removed first"),
        pytest.param("vol", 0, UID, "vol-", id="8.4 length 0"),
        pytest.param("vol", 99, UID, f"vol-{UID.replace('-', '')}", id="8.4 beyond the UID: clamped"),
    ],
)
def test_name(prefix: str, length: int, uid: str, name: str) -> None:
    assert naming.volume_name(uid, settings(volume_name_prefix=prefix, volume_name_uuid_length=length)) == name


@pytest.mark.parametrize(
    ("prefix", "uid", "said"),
    [
        pytest.param("", UID, "--volume-name-prefix", id="8.4 prefix empty"),
        pytest.param("pvc", "", "no UID", id="16 vector claim without UID"),
    ],
)
def test_no_name(prefix: str, uid: str, said: str) -> None:
    with pytest.raises(Refusal, match=said) as refused:
        naming.volume_name(uid, settings(volume_name_prefix=prefix))
    assert refused.value.state is State.FINISHED


def test_existence_is_checked_under_the_default_name() -> None:
    """provision.md 18, quirk Q4."""
    assert naming.default_name(UID) == f"pvc-{UID}"
