"""Whether a volume that an earlier leader may have begun may be deleted again (design.md 6).

Only what cannot have been anybody's: everything else is told with its id, and left alone.
"""

from csi_provisioner.model.codes import Code
from csi_provisioner.planning.entries import Entry

ELECTED, UNELECTED = 3600.0, 600.0
"""Seconds: an entry that was older when it was first judged is told. Without an election nobody counts the terms in
which another program may have finished and given away the volume, so less is believed."""

NEVER_CERTAIN = frozenset((Code.ALREADY_EXISTS, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS))
"""Final codes of CreateVolume that say nothing about a volume made by an earlier call."""


def why_kept(entry: Entry, *, age: float, elected: bool, gap: bool) -> str | None:
    """Why the volume may be somebody's already, before the driver is asked; None if it cannot be.

    `gap`: a leader without journal was there since. `age` in seconds, when the entry was first judged.
    """
    if gap:
        return "a leader without a volume journal worked since, and may have given the volume to somebody"
    if age >= (ELECTED if elected else UNELECTED):
        return f"its entry in the volume journal is {age / 60:.0f} minutes old, and somebody may use the volume since"
    return None


def why_retained(entry: Entry) -> str | None:
    """Why a volume that the driver has named is not deleted."""
    if entry.reclaim_policy != "Delete":
        return f"StorageClass {entry.storage_class} has the reclaim policy {entry.reclaim_policy}"
    return None
