"""Topology terms: label pairs that hold together, in canonical form (topology.md 3 and 5).

A term is a tuple of (key, value) pairs sorted by key, then value; lists of terms are sorted by length, then pairs.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import product

from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import TopologySelectorTerm
from csi_provisioner.planning import dns

Term = tuple[tuple[str, str], ...]
Keys = tuple[str, ...]
"""Distinct label keys, sorted."""

_KEY_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def normalised(keys: Iterable[str]) -> Keys:
    return tuple(sorted(set(keys)))


def of_labels(labels: Mapping[str, str], keys: Keys) -> Term | None:
    """The term these labels make for the keys; None if a key has no label."""
    try:
        return tuple([(key, labels[key]) for key in keys])
    except KeyError:
        return None


def canonical(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Sorted, without identical terms; a term that is part of another stays."""
    return tuple(sorted(set(terms), key=lambda term: (len(term), term)))


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


def is_label_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(_KEY_NAME.fullmatch(name)) and (not slash or dns.is_subdomain(prefix))


def topology(term: Term) -> csi.Topology:
    return csi.Topology(segments=dict(term))


def text(term: Term) -> str:
    return ", ".join(f"{key}={value}" for key, value in term)
