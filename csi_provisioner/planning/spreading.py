"""Where a claim's name starts in the list of terms (topology.md 6).

Claims of one StatefulSet walk through the zones in the order of their replicas. The numbers are those of the Go
external-provisioner bit by bit: volumes of one set must stay spread when the programs are exchanged.
"""

import re

from csi_provisioner.planning.fnv import fnv1

_MASK = 2**32 - 1
# Not `\d`: digits of other scripts are part of the name. More than ten digits are more than 32 bits.
_ORDINAL = re.compile(r"(?P<rest>.*)-0*(?P<ordinal>[0-9]{1,10})", re.DOTALL)


def parse(name: str) -> tuple[str, int]:
    """What of a claim's name is hashed, and the index added to the hash: `data-web-1` gives `web` and 1."""
    match = _ORDINAL.fullmatch(name)
    if not match or int(match["ordinal"]) > _MASK:
        return name, 0
    return match["rest"].rpartition("-")[2], int(match["ordinal"])


def shift(name: str, terms: int) -> int:
    """By how many places to rotate that many terms; the addition wraps at 32 bits."""
    hashed, index = parse(name)
    return (fnv1(hashed) + index & _MASK) % terms
