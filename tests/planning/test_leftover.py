"""What stands in the Lease of leftover volumes, which others may write too (design.md 6)."""

import secrets

import msgspec
import pytest

from csi_provisioner.model.kubernetes import CSIVolumeSource, VolumeSpec
from csi_provisioner.planning import entries, leftover
from csi_provisioner.planning.leftover import Leftover


@pytest.mark.parametrize(("handle", "understood"), [("vol-1", 1), ("somebody's", 0)])
def test_a_leftover_that_shows_another_volume_is_not_understood(handle: str, understood: int) -> None:
    spec = VolumeSpec(csi=CSIVolumeSource("d", handle))
    text = msgspec.json.encode(Leftover("dropped", "d", "pvc-1", 0, volume_id="vol-1", spec=spec))
    found, strange = leftover.understood({"vol-1": text}, "d")
    assert (len(found), strange) == (understood, 1 - understood)


def named(volume_id: str, **attributes: str) -> Leftover:
    spec = VolumeSpec(csi=CSIVolumeSource("d", volume_id, volumeAttributes=attributes))
    return Leftover("dropped", "d", f"pv-of-{volume_id}", 0, volume_id=volume_id, spec=spec)


def kept(*news: Leftover) -> list[Leftover]:
    """What the next one reads."""
    packed = entries.pack(leftover.added({}, news))
    assert len(packed) <= entries.MOST_STORED
    found, strange = leftover.understood(entries.unpack(packed), "d")
    assert strange == 0
    return found


def test_large_ones_leave_room_for_the_newest_and_can_be_read_again() -> None:
    found = kept(*(named(str(number), alike="x" * 15_000) for number in range(leftover.KEPT)))
    assert len(found) > 25
    assert found[-1].volume_id == str(leftover.KEPT - 1)


def test_many_that_cannot_be_compressed_leave_room_for_the_newest() -> None:
    found = kept(*(named(str(number), chance=secrets.token_hex(4_000)) for number in range(50)))
    assert found[-1].volume_id == "49"
    assert found[-1].spec is not None


def test_one_that_is_too_large_goes_without_what_the_driver_may_still_tell() -> None:
    large = named("large", chance=secrets.token_hex(300_000))
    found = kept(named("before"), msgspec.structs.replace(large, reason="r" * 300_000))
    assert [each.volume_id for each in found] == ["before", "large"]
    assert found[-1].spec is None
    assert len(found[-1].reason) == leftover.MOST_REASON


def test_one_whose_id_alone_is_too_large_hides_no_other() -> None:
    assert [each.volume_id for each in kept(named("before"), named("x" * 100_000))] == ["before"]
