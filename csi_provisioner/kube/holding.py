"""What a look at the leader's Lease means, and what is written into it (process.md 6): pure. `election` does it."""

import math

from csi_provisioner.model.kubernetes import LeaseSpec

# What the API takes: somebody who writes this number would otherwise keep everybody from leading.
MOST_TRANSITIONS = 2**31 - 1


def taken_until(lease: LeaseSpec | None, identity: str, seen: float) -> float:
    """Until when, on our clock, another holder has the lease. `seen` is when this very spec was seen first."""
    if lease is None or lease.holderIdentity in (None, "", identity):
        return -math.inf
    return seen + (lease.leaseDurationSeconds or 0)


def written(
    before: LeaseSpec | None, identity: str, duration: float, now: str, *, leading: bool = True
) -> dict[str, object]:
    """The fields of `spec` to write: while `leading` a renewal of what is ours, else the taking of anything.

    A Lease that an earlier process of our name has left is taken with a new acquireTime: a new term begins.
    """
    before = before or LeaseSpec(holderIdentity=identity, acquireTime=now)  # a new Lease is ours from its first moment
    changes_hands = before.holderIdentity != identity
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": int(duration),
        "acquireTime": before.acquireTime if leading and not changes_hands else now,
        "renewTime": now,
        "leaseTransitions": min((before.leaseTransitions or 0) + changes_hands, MOST_TRANSITIONS),
    }
