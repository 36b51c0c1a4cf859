"""Why a claim has no volume yet, in one word: cheap, from what the caches and the memory of a leader hold."""

from csi_provisioner.model.kubernetes import PersistentVolumeClaim, StorageClass
from csi_provisioner.planning import gate, steps
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal


def reason(
    claim: PersistentVolumeClaim,
    storage_class: StorageClass | None,
    driver: DriverFacts,
    *,
    ready: bool = True,
    calling: bool = False,
    unsaved: bool = False,
    written: bool = False,
    failed: str = "",
) -> str | None:
    """Why the claim waits, of `steps.REASONS`; None: it is bound, or not ours.

    `storage_class` is what the cache has under `gate.claim_class`; `ready`: the driver answers; `failed`: the step at
    which the last try ended (`step` of its outcome).
    """
    if not gate.concerns(claim, driver):
        return None
    # Whatever has become of its class since: the volume is made.
    if written or unsaved:
        return steps.BIND if written else steps.SAVE
    try:
        gate.check_class(gate.decide(claim, storage_class, driver), driver)
    except Refusal as refusal:
        return refusal.step if refusal.step in steps.REASONS else None
    if calling:
        return steps.CALL
    if not ready:
        return steps.DRIVER
    return failed or steps.QUEUE
