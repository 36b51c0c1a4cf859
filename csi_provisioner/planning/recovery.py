"""Volumes that an earlier leader began for claims that no longer want them: which may be deleted (design.md 6).

Only what cannot have been anybody's. Everything else is told with its id, and left alone.
"""

from csi_provisioner.model.codes import Code
from csi_provisioner.model.kubernetes import (
    ClaimSpec,
    ObjectMeta,
    ObjectReference,
    PersistentVolumeClaim,
    TypedReference,
)
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import gate, naming, verdict
from csi_provisioner.planning.entries import Entry
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.wellknown import CLAIM_KIND, SNAPSHOT_GROUP, SNAPSHOT_KIND
from csi_provisioner.settings import ProvisioningSettings

# Seconds: an entry that is older when it is first judged is told. Without an election nobody counts the terms in which
# another program may have finished the volume and given it away, so less is believed.
ELECTED, UNELECTED = 3600.0, 600.0

# Codes that drivers give for all kinds of trouble: the next try may be answered otherwise.
_VAGUE = frozenset((Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS))


def is_wanted(claim: PersistentVolumeClaim, name: str, driver: DriverFacts, settings: ProvisioningSettings) -> bool:
    """Does this living claim still want the volume of that name from this driver?"""
    # Bound to another volume it waits for none, and so does one that other flags would name otherwise.
    if claim.spec.volumeName not in (None, "", name) or not gate.addressed_to(claim, driver):
        return False
    return naming.volume_name(claim.metadata.uid, settings) == name


def reader(entry: Entry) -> PersistentVolumeClaim:
    """The entry's claim as far as its source is concerned, which has to stay until the entry is judged."""
    source = entry.source
    given = None
    if source is not None:
        group = SNAPSHOT_GROUP if source.kind == SNAPSHOT_KIND else None
        given = TypedReference(source.kind, source.name, group, source.namespace)
    meta = ObjectMeta(entry.claim.name, entry.claim.namespace, entry.claim.uid)
    return PersistentVolumeClaim(meta, spec=ClaimSpec(dataSource=given))


def claim_of(entry: Entry) -> ObjectReference:
    claim = entry.claim
    return ObjectReference(CLAIM_KIND, "v1", claim.name, claim.namespace, claim.uid)


def why_not_asked(entry: Entry, *, age: float, elected: bool, gap: bool) -> str | None:
    """Why the volume may be somebody's already, so that the driver is not even asked; None if it cannot be.

    `gap`: a leader without journal was there since. `age` in seconds, when the entry was first judged.
    """
    if gap:
        return "a leader without a volume journal worked since, and may have given the volume to somebody"
    # Below zero: the server's clock was set back, or the entry comes from a backup.
    if abs(age) >= (ELECTED if elected else UNELECTED):
        return f"its entry in the volume journal is {abs(age) / 60:.0f} minutes old, somebody may have it since"
    return None


def why_retained(entry: Entry) -> str | None:
    """Why a volume that the driver has named is not deleted."""
    if entry.reclaim_policy != "Delete":
        return f"its StorageClass {entry.storage_class} has the reclaim policy {entry.reclaim_policy}"
    return None


def is_final(code: int | None, *, with_secret: bool) -> bool:
    """Is it no use to ask for the volume again? Without its secret, which is gone, only an answer that is still to come
    is waited for."""
    if verdict.state_of(code, topology_active=False, selected_node="") is not State.FINISHED:
        return False
    return not with_secret or code not in _VAGUE
