"""Zones and regions of migrated objects: T and U of provision.md 14.3 and delete.md 11, and the class rule Z of 14.2.

In-tree volumes carry the zone in node labels (two families of them: GA and beta), CSI volumes under a key of the
driver. The functions edit the affinity, labels or class they are given, which `translate` has copied.
"""

from collections.abc import Callable, Iterable
from functools import partial

from csi_provisioner.migration.plugin import TranslationError
from csi_provisioner.model.kubernetes import (
    LabelSelectorRequirement,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    PersistentVolume,
    StorageClass,
    TopologySelectorTerm,
    VolumeNodeAffinity,
)

GA_ZONE, GA_REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
BETA_ZONE, BETA_REGION = "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region"

RegionOf = Callable[[Iterable[str]], str]


# ---- label values and affinity


def joined(zones: Iterable[str]) -> str:
    """The value of a zone label for volumes in several zones."""
    # The separator of Kubernetes itself, for disks that are kept in two zones.
    return "__".join(sorted(set(zones)))


def split(label: str) -> list[str]:
    """The zones of a zone label: trimmed, distinct, sorted, none empty."""
    return sorted({zone.strip() for zone in label.split("__")} - {""})


def terms_of(pv: PersistentVolume) -> list[NodeSelectorTerm]:
    affinity = pv.spec.nodeAffinity
    return affinity.required.nodeSelectorTerms if affinity and affinity.required else []


def values_of(terms: Iterable[NodeSelectorTerm], key: str) -> list[str]:
    """Distinct values under this key, sorted."""
    found = (
        expression.values or [] for term in terms for expression in term.matchExpressions or [] if expression.key == key
    )
    return sorted({value for values in found for value in values})


def rename(terms: Iterable[NodeSelectorTerm], old: str, new: str) -> None:
    for term in terms:
        for expression in term.matchExpressions or []:
            if expression.key == old:
                expression.key = new


def append_to_all(pv: PersistentVolume, key: str, values: list[str]) -> None:
    """Adds `key In values` to every term, making the one term of an affinity that has none."""
    affinity = pv.spec.nodeAffinity = pv.spec.nodeAffinity or VolumeNodeAffinity()
    required = affinity.required = affinity.required or NodeSelector()
    required.nodeSelectorTerms = required.nodeSelectorTerms or [NodeSelectorTerm()]
    # A node needs to meet only one term, so that each of them has to name the zones.
    for term in required.nodeSelectorTerms:
        _append(term, key, values)


def label_if_absent(pv: PersistentVolume, key: str, value: str) -> None:
    labels = pv.metadata.labels = pv.metadata.labels or {}
    # Somebody may have set it by hand.
    labels.setdefault(key, value)


def family(pv: PersistentVolume) -> tuple[str, str]:
    """The zone and region label keys this volume speaks in (T.1): affinity before labels, GA before beta."""
    labels = pv.metadata.labels or {}
    mentioned = {expression.key for term in terms_of(pv) for expression in term.matchExpressions or []}
    # In one volume all keys have to be of one family, or the scheduler would ask for a node that has both.
    for keys in (mentioned, labels):
        if GA_ZONE in keys:
            return GA_ZONE, GA_REGION
        if BETA_ZONE in keys:
            return BETA_ZONE, BETA_REGION
    return GA_ZONE, GA_REGION


def _append(term: NodeSelectorTerm, key: str, values: list[str]) -> None:
    expression = NodeSelectorRequirement(key=key, operator="In", values=list(values))
    term.matchExpressions = [*(term.matchExpressions or []), expression]


# ---- volumes


def to_in_tree(pv: PersistentVolume, csi_key: str, region_of: RegionOf | None = None) -> None:
    """T: the driver's zone key becomes the zone label key, regions join it, labels say both."""
    terms = terms_of(pv)
    zone_key, region_key = family(pv)
    rename(terms, csi_key, zone_key)
    if region_of and terms:
        for term in terms:
            if all(expression.key != region_key for expression in term.matchExpressions or []):
                _append(term, region_key, [region_of(values_of([term], zone_key))])
        regions = values_of(terms, region_key)
        # There is one label but may be several regions: then it would be wrong for some of the terms.
        if len(regions) == 1:
            label_if_absent(pv, region_key, regions[0])
    if zones := values_of(terms, zone_key):
        label_if_absent(pv, zone_key, joined(zones))


def to_csi(pv: PersistentVolume, csi_key: str) -> None:
    """U: zones of the affinity, else of the label, under the driver's key; a beta region becomes a GA one."""
    zone_key, region_key = family(pv)
    terms = terms_of(pv)
    if values_of(terms, zone_key):
        rename(terms, zone_key, csi_key)
    elif zones := split((pv.metadata.labels or {}).get(zone_key, "")):
        append_to_all(pv, csi_key, zones)
    # The region has no key of the driver, and its beta label is out of use.
    if region_key == BETA_REGION and values_of(terms_of(pv), BETA_REGION):
        rename(terms_of(pv), BETA_REGION, GA_REGION)


# ---- classes


def class_topology(sc: StorageClass, csi_key: str) -> None:
    """Z: the parameters zone and zones become one allowed term, or the zone keys of allowedTopologies are renamed."""
    parameters = sc.parameters or {}
    # The in-tree plugins had these before there were allowedTopologies.
    given = {key: value for key, value in parameters.items() if key.lower() in ("zone", "zones")}
    if not given:
        rename_class_keys(sc, csi_key)
        return
    if sc.allowedTopologies:
        raise TranslationError(
            f"StorageClass {sc.metadata.name} has allowedTopologies and the parameter {' and '.join(sorted(given))}: "
            "keep one of them"
        )
    zones = [zone.strip() for value in given.values() for zone in value.split(",")]
    sc.parameters = {key: value for key, value in parameters.items() if key not in given}
    sc.allowedTopologies = [
        TopologySelectorTerm(matchLabelExpressions=[LabelSelectorRequirement(key=csi_key, values=zones)])
    ]


def rename_class_keys(sc: StorageClass, csi_key: str) -> None:
    for term in sc.allowedTopologies or []:
        for expression in term.matchLabelExpressions or []:
            # Any other key may be one of the driver's own.
            if expression.key in (GA_ZONE, BETA_ZONE):
                expression.key = csi_key


# ---- regions


def _one_region(region: Callable[[str], str | None], zones: Iterable[str]) -> str:
    zones = list(zones)
    if not zones:
        raise TranslationError("a topology term without a zone has no region")
    found = {zone: region(zone) for zone in zones}
    unknown = [zone for zone, name in found.items() if name is None]
    if unknown:
        raise TranslationError(f"the zone {unknown[0]!r} has no known form, so its region is unknown")
    regions = {name for name in found.values() if name is not None}
    if len(regions) > 1:
        raise TranslationError(f"the zones {', '.join(sorted(found))} lie in several regions")
    return regions.pop()


def _gce_region(zone: str) -> str | None:
    parts = zone.split("-")
    return "-".join(parts[:2]) if len(parts) == 3 else None


def _aws_region(zone: str) -> str | None:
    """`us-east-1a` -> `us-east-1`; local and wavelength zones have 5 or 7 parts and begin with their region."""
    parts = zone.split("-")
    if len(parts) in (3, 4) and len(parts[-1]) == 2:
        return "-".join([*parts[:-1], parts[-1][0]])
    return "-".join(parts[:3]) if len(parts) in (5, 7) else None


gce_region: RegionOf = partial(_one_region, _gce_region)
aws_region: RegionOf = partial(_one_region, _aws_region)
