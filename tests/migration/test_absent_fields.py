"""Any combination of optional fields gives a result or a TranslationError (provision.md 19, delete.md 13)."""

import copy
from contextlib import suppress
from typing import TypeVar

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.migration import TranslationError, registry, translate
from csi_provisioner.migration.registry import IN_TREE_NAMES
from csi_provisioner.model import kubernetes as k8s

from .objects import BETA_REGION, BETA_ZONE, GA_REGION, GA_ZONE

T = TypeVar("T")

KEYS = st.sampled_from([GA_ZONE, GA_REGION, BETA_ZONE, BETA_REGION, "topology.gke.io/zone", "rack"])
TEXT = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["us-east-1a", "a__b", "", "0", "a#b#c", "aws://x/vol-1", "http://x/vhds/d", "a/b/c/d/e/f"]),
)
NAMES = st.sampled_from(
    ["zone", "zones", "FSTYPE", "iopspergb", "partition", "cachingmode", "sharename", "openstorage.io/auth-secret-name"]
)


def optional(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.none(), strategy)


def built(kind: type[T], **fields: st.SearchStrategy[object]) -> st.SearchStrategy[T]:
    """Any instance, with its texts drawn from TEXT."""
    texts = {str: TEXT, str | None: optional(TEXT)}
    drawn = {f.name: texts[f.type] for f in msgspec.structs.fields(kind) if f.type in texts}
    return st.builds(kind, **(drawn | fields))


EXPRESSIONS = built(k8s.NodeSelectorRequirement, key=KEYS, operator=st.just("In"))
TERMS = built(k8s.NodeSelectorTerm, matchExpressions=optional(st.lists(EXPRESSIONS, max_size=3)))
AFFINITY = built(
    k8s.VolumeNodeAffinity,
    required=optional(built(k8s.NodeSelector, nodeSelectorTerms=st.lists(TERMS, max_size=3))),
)
META = built(
    k8s.ObjectMeta,
    labels=optional(st.dictionaries(KEYS, TEXT, max_size=3)),
    annotations=optional(st.dictionaries(NAMES, TEXT, max_size=3)),
    ownerReferences=st.none(),
)
CSI = built(k8s.CSIVolumeSource, volumeAttributes=optional(st.dictionaries(NAMES, TEXT, max_size=4)))
SOURCES = {
    "awsElasticBlockStore": k8s.AWSElasticBlockStore,
    "gcePersistentDisk": k8s.GCEPersistentDisk,
    "azureDisk": k8s.AzureDisk,
    "azureFile": k8s.AzureFile,
    "cinder": k8s.Cinder,
    "vsphereVolume": k8s.VsphereVolume,
    "portworxVolume": k8s.PortworxVolume,
}
MODES = optional(st.lists(st.sampled_from(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteOncePod"]), max_size=2))


def volumes(**source: st.SearchStrategy[object]) -> st.SearchStrategy[k8s.PersistentVolume]:
    claim = optional(built(k8s.ObjectReference))
    spec = built(k8s.VolumeSpec, accessModes=MODES, nodeAffinity=optional(AFFINITY), claimRef=claim, **source)
    return built(k8s.PersistentVolume, metadata=META, spec=spec)


IN_TREE = st.one_of([volumes(**{field: built(kind)}) for field, kind in SOURCES.items()])
CLASSES = built(
    k8s.StorageClass,
    metadata=META,
    parameters=optional(st.dictionaries(st.one_of(NAMES, TEXT), TEXT, max_size=4)),
    allowedTopologies=optional(
        st.lists(
            built(
                k8s.TopologySelectorTerm,
                matchLabelExpressions=optional(st.lists(built(k8s.LabelSelectorRequirement, key=KEYS), max_size=2)),
            ),
            max_size=2,
        )
    ),
)


@given(IN_TREE)
def test_an_in_tree_volume_with_absent_fields_is_translated_or_refused(pv: k8s.PersistentVolume) -> None:
    """delete.md 13."""
    before = copy.deepcopy(pv)
    with suppress(TranslationError):
        translated = translate.volume_to_csi(pv)
        assert translated is not None
        assert translated.spec.csi is not None
        assert translated.spec.csi.driver in IN_TREE_NAMES
    assert pv == before


@given(volumes(csi=CSI), st.sampled_from(sorted(IN_TREE_NAMES)))
def test_a_made_volume_with_absent_fields_is_translated_or_refused(pv: k8s.PersistentVolume, driver: str) -> None:
    """provision.md 19."""
    before = copy.deepcopy(pv)
    with suppress(TranslationError):
        translated = translate.volume_to_in_tree(pv, driver)
        assert translated.spec.csi is None
        [field] = [field for field, of in registry.SOURCES.items() if of == driver]
        assert getattr(translated.spec, field) is not None
    assert pv == before


@given(CLASSES, st.sampled_from(sorted(IN_TREE_NAMES)))
def test_a_class_with_absent_fields_is_translated_or_refused(sc: k8s.StorageClass, driver: str) -> None:
    """provision.md 19."""
    before = copy.deepcopy(sc)
    with suppress(TranslationError):
        translate.storage_class(sc, driver)
    assert sc == before
