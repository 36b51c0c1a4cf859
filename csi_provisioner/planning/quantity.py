"""Kubernetes quantities as bytes: parsed exactly and rounded up, written in binary suffixes (provision.md 10.1)."""

import re
from functools import lru_cache

from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from csi_provisioner.model.outcome import State
from csi_provisioner.planning.refusal import Refusal

LARGEST = 2**63 - 1
"""The CSI fields are int64. A quantity beyond this is capped, as the API server does, unless a volume is to have it."""

_LONGEST_TEXT = 128
"""The API server stores a canonical form far shorter than this."""

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
# The whole grammar of the API: signs, exponents and a point at either end are legal, though nobody writes them.
_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:[eE](?P<exponent>[+-]?[0-9]+)|(?P<suffix>[numkMGTPE]?|[KMGTPE]i))",
)


def parse(text: str) -> int:
    """The quantity in whole units, fractions rounded up."""
    return max(-LARGEST, min(LARGEST, _exact(text)))


@lru_cache(maxsize=1024)
def _exact(text: str) -> int:
    # Exact and not a float: 0.1Gi has to be rounded up, and 2**63 - 1 must not become 2**63.
    match = _QUANTITY.fullmatch(text)
    if match is None or len(text) > _LONGEST_TEXT:
        raise Refusal(State.FINISHED, f"cannot read {text[:64]!r} as a quantity")
    number, exponent, suffix = match["number"], match["exponent"], match["suffix"] or ""
    # beyond this every number of the longest text is capped or a fraction of one, and 10**(10**9) would not end
    power = max(-999, min(999, int(exponent) if exponent is not None else _DECIMAL.get(suffix, 0)))
    whole, _, decimals = number.partition(".")
    amount, power = int(whole + decimals) << _BINARY.get(suffix, 0), power - len(decimals)
    scale: int = 10 ** abs(power)
    return amount * scale if power >= 0 else -(-amount // scale)


def format(amount: int) -> str:
    """The largest binary suffix that divides `amount` exactly, else the plain integer."""
    for suffix, shift in reversed(_BINARY.items()):
        # 0 can be divided by all of them, and is written without any.
        if amount and not amount % (1 << shift):
            return f"{amount >> shift}{suffix}"
    return str(amount)


def requested(claim: PersistentVolumeClaim) -> int | None:
    """The storage a claim asks for in bytes; None if it does not say. More than a driver can be told is refused."""
    resources = claim.spec.resources
    text = resources.requests.get("storage") if resources and resources.requests else None
    if text is None:
        return None
    amount = _exact(text)
    if amount > LARGEST:
        raise Refusal(
            State.FINISHED,
            f"claim {kubernetes.key(claim)} asks for {text} of storage; more than {LARGEST} bytes cannot be asked for",
        )
    return amount
