"""Short ways to write the objects of the tables."""

from typing import Any

from csi_provisioner.model import kubernetes as k8s

GA_ZONE, GA_REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
BETA_ZONE, BETA_REGION = "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region"

Terms = list[dict[str, list[str]]]


def storage_class(parameters: dict[str, str] | None = None, allowed: Terms | None = None) -> k8s.StorageClass:
    terms = [
        k8s.TopologySelectorTerm(
            matchLabelExpressions=[k8s.LabelSelectorRequirement(key=key, values=values) for key, values in term.items()]
        )
        for term in allowed or []
    ]
    return k8s.StorageClass(
        metadata=k8s.ObjectMeta(name="fast"),
        provisioner="kubernetes.io/in-tree",
        parameters=parameters,
        allowedTopologies=terms or None,
    )


def allowed(sc: k8s.StorageClass) -> Terms:
    return [
        {expression.key: expression.values for expression in term.matchLabelExpressions or []}
        for term in sc.allowedTopologies or []
    ]


def affinity(terms: Terms) -> k8s.VolumeNodeAffinity:
    return k8s.VolumeNodeAffinity(
        required=k8s.NodeSelector(
            nodeSelectorTerms=[
                k8s.NodeSelectorTerm(
                    matchExpressions=[
                        k8s.NodeSelectorRequirement(key=key, operator="In", values=values)
                        for key, values in term.items()
                    ]
                )
                for term in terms
            ]
        )
    )


def terms(pv: k8s.PersistentVolume) -> Terms | None:
    """The terms of a volume's affinity, or None if it has none."""
    if pv.spec.nodeAffinity is None or pv.spec.nodeAffinity.required is None:
        return None
    found: Terms = []
    for term in pv.spec.nodeAffinity.required.nodeSelectorTerms:
        expressions = term.matchExpressions or []
        assert all(expression.operator == "In" for expression in expressions)
        found.append({expression.key: list(expression.values or []) for expression in expressions})
    return found


def volume(
    *,
    at: Terms | None = None,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> k8s.PersistentVolume:
    return k8s.PersistentVolume(
        metadata=k8s.ObjectMeta(name="pv-1", labels=labels, annotations=annotations),
        spec=k8s.VolumeSpec(nodeAffinity=affinity(at) if at is not None else None, **spec),
    )


def csi_volume(
    handle: str = "h-1", *, at: Terms | None = None, labels: dict[str, str] | None = None, **csi: Any
) -> k8s.PersistentVolume:
    return volume(at=at, labels=labels, csi=k8s.CSIVolumeSource(driver="d", volumeHandle=handle, **csi))
