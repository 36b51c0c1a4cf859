"""What stands in the Lease of leftover volumes, which others may write too (design.md 6)."""

import msgspec
import pytest

from csi_provisioner.model.kubernetes import CSIVolumeSource, VolumeSpec
from csi_provisioner.planning import leftover
from csi_provisioner.planning.leftover import Leftover


@pytest.mark.parametrize(("handle", "understood"), [("vol-1", 1), ("somebody's", 0)])
def test_a_leftover_that_shows_another_volume_is_not_understood(handle: str, understood: int) -> None:
    spec = VolumeSpec(csi=CSIVolumeSource("d", handle))
    text = msgspec.json.encode(Leftover("dropped", "d", "pvc-1", 0, volume_id="vol-1", spec=spec))
    found, strange = leftover.understood({"vol-1": text}, "d")
    assert (len(found), strange) == (understood, 1 - understood)
