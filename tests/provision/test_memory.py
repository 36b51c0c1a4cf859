"""Records of claims end with what they are about."""

from csi_provisioner.model.kubernetes import (
    CSIVolumeSource,
    ObjectMeta,
    ObjectReference,
    PersistentVolume,
    PersistentVolumeClaim,
    VolumeSpec,
)
from csi_provisioner.provision.memory import ClaimMemory


def claim(uid: str) -> PersistentVolumeClaim:
    return PersistentVolumeClaim(ObjectMeta(name=f"claim-{uid}", namespace="default", uid=uid))


def volume(name: str, uid: str) -> PersistentVolume:
    reference = ObjectReference(namespace="default", name=f"claim-{uid}", uid=uid)
    spec = VolumeSpec(csi=CSIVolumeSource(driver="d", volumeHandle="v"), claimRef=reference)
    return PersistentVolume(ObjectMeta(name=name), spec)


def test_two_claims_whose_volumes_have_one_name_leave_no_record_behind() -> None:
    """A volume name may be made so short that two claims share it; the volume is then of whoever was answered last."""
    memory = ClaimMemory()
    for uid in ("1", "2"):
        memory.keep_unsaved(volume("pvc-a", uid), claim(uid), "v")
    assert not memory.is_under_way("1")
    memory.note_written("pvc-a")
    memory.note_written("pvc-a")  # the first one's save, which was under way
    assert list(memory.all_unsaved()) == []
    assert memory.of("2").written == "pvc-a"
    for uid in ("1", "2"):
        memory.forget(uid)
        assert uid not in memory


def test_a_claim_that_is_asked_for_and_finished_leaves_no_record_behind() -> None:
    memory = ClaimMemory()
    memory.ask(claim("1"))
    memory.topology("1")
    memory.refuse_before_call("1")
    assert memory.finish("1")
    assert "1" not in memory
