"""Topology terms: label pairs that hold together, in canonical form (topology.md 3 and 5).

A term is a tuple of (key, value) pairs sorted by key, then value; lists of terms are sorted by length, then pairs.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product

import msgspec

from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import TopologySelectorTerm
from csi_provisioner.planning import dns

Term = tuple[tuple[str, str], ...]
Keys = tuple[str, ...]
"""Distinct label keys, sorted."""

MOST = 10_000
"""Terms of a class. Each claim carries them all, twice, and a few values a key multiply to millions."""

_KEY_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def normalised(keys: Iterable[str]) -> Keys:
    return tuple(sorted(set(keys)))


def of_labels(labels: Mapping[str, str], keys: Keys) -> Term | None:
    """The term these labels make for the keys; None if a key has no label."""
    try:
        return tuple([(key, labels[key]) for key in keys])
    except KeyError:
        return None


def order(term: Term) -> tuple[int, Term]:
    """As the reference sorts, byte by byte: z-10 comes before z-2."""
    return len(term), term


def canonical(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Sorted, without identical terms; a term that is part of another stays."""
    return tuple(sorted(set(terms), key=order))


def flatten(allowed: Iterable[TopologySelectorTerm]) -> list[Term]:
    """`allowedTopologies` with the ORs inside multiplied out, which a CSI topology cannot say.

    An expression without values, which the API refuses, throws away what its selector term had collected so far.
    """
    flat: list[Term] = []
    for selector in allowed:
        collected: list[Term] = []
        for expression in selector.matchLabelExpressions or []:
            pairs = [(expression.key, value) for value in expression.values]
            collected = [(*before, pair) for before, pair in product(collected or [()], pairs)]
        flat.extend(tuple(sorted(pairs)) for pairs in collected)
    return flat


def too_many(allowed: Iterable[TopologySelectorTerm], most: int = MOST) -> bool:
    """Would `flatten` make more? Counting stops there: the number itself may have thousands of digits."""
    total = 0
    for selector in allowed:
        count = 0
        for expression in selector.matchLabelExpressions or []:
            count = min((count or 1) * len(expression.values), most + 1)
        total += count
    return total > most


class Allowed(msgspec.Struct, frozen=True):
    """`allowedTopologies` as terms in canonical order, and as the driver gets them; shared, so not to be changed."""

    terms: tuple[Term, ...]
    messages: Sequence[csi.Topology]


def read(allowed: Collection[TopologySelectorTerm] | None) -> Allowed | None:
    """None if the class has no allowedTopologies; no terms if all of them are empty."""
    if not allowed:
        return None
    found = canonical(flatten(allowed))
    return Allowed(found, [topology(term) for term in found])


def is_label_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(_KEY_NAME.fullmatch(name)) and (not slash or dns.is_subdomain(prefix))


def topology(term: Term) -> csi.Topology:
    # Of two values for one key the larger one stays, as in the reference: the later pair wins.
    return csi.Topology(segments=dict(term))


def text(term: Term) -> str:
    return ", ".join(f"{key}={value}" for key, value in term)
