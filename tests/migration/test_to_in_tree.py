"""Provision.md 14.3: the made CSI volume as the in-tree volume it stands for."""

import copy

import pytest

from csi_provisioner.migration import TranslationError, registry, translate
from csi_provisioner.model import kubernetes as k8s

from .objects import BETA_REGION, BETA_ZONE, GA_REGION, GA_ZONE, Terms, csi_volume, terms

EBS, GCE, DISK, FILE = "ebs.csi.aws.com", "pd.csi.storage.gke.io", "disk.csi.azure.com", "file.csi.azure.com"
CINDER, VSPHERE, PORTWORX = "cinder.csi.openstack.org", "csi.vsphere.vmware.com", "pxd.portworx.com"
EBS_ZONE, GCE_ZONE = "topology.ebs.csi.aws.com/zone", "topology.gke.io/zone"
VSPHERE_ZONE, VSPHERE_REGION = "topology.csi.vmware.com/zone", "topology.csi.vmware.com/region"
CINDER_ZONE = "topology.cinder.csi.openstack.org/zone"
URI = "/subscriptions/s1/resourceGroups/rg1/providers/Microsoft.Compute/disks/disk1"
BLOB = "HTTPS://acct.blob.core.windows.net/vhds/old.vhd"
PD = "projects/p/zones/us-central1-b/disks/d1"

SOURCES: list[tuple[str, str, k8s.PersistentVolume, object]] = [
    ("ebs", EBS, csi_volume("vol-1", fsType="xfs", readOnly=True), k8s.AWSElasticBlockStore("vol-1", "xfs", True)),
    (
        "ebs-partition",
        EBS,
        csi_volume("vol-1", volumeAttributes={"partition": "3"}),
        k8s.AWSElasticBlockStore("vol-1", partition=3),
    ),
    ("gce", GCE, csi_volume(PD, fsType="ext4", readOnly=True), k8s.GCEPersistentDisk("d1", "ext4", 0, True)),
    (
        "gce-partition",
        GCE,
        csi_volume(PD, volumeAttributes={"partition": "1"}),
        k8s.GCEPersistentDisk("d1", partition=1),
    ),
    ("gce-empty-partition", GCE, csi_volume(PD, volumeAttributes={"partition": ""}), k8s.GCEPersistentDisk("d1")),
    ("disk", DISK, csi_volume(URI), k8s.AzureDisk("disk1", URI, None, "", False, "Managed")),
    (
        "golden-migrate-azure-disk",
        DISK,
        csi_volume(URI, fsType="ext4", volumeAttributes={"cachingmode": "ReadOnly", "fsType": "xfs"}),
        k8s.AzureDisk("disk1", URI, "ReadOnly", "xfs", False, "Managed"),
    ),
    (
        "disk-empty-attributes-do-not-override",
        DISK,
        csi_volume(URI, fsType="ext4", readOnly=True, volumeAttributes={"CachingMode": "", "fstype": ""}),
        k8s.AzureDisk("disk1", URI, None, "ext4", True, "Managed"),
    ),
    ("disk-blob", DISK, csi_volume(BLOB), k8s.AzureDisk("old.vhd", BLOB, None, "", False, "Managed")),
    (
        "file-attributes",
        FILE,
        csi_volume(readOnly=True, volumeAttributes={"shareName": "s", "SecretName": "k", "secretnamespace": "n"}),
        k8s.AzureFile("k", "s", True, "n"),
    ),
    (
        "file-stage-secret-wins",
        FILE,
        csi_volume(
            volumeAttributes={"sharename": "s", "secretname": "k", "secretnamespace": "n"},
            nodeStageSecretRef=k8s.SecretReference("k2", "n2"),
        ),
        k8s.AzureFile("k2", "s", False, "n2"),
    ),
    (
        "file-stage-secret-without-name",
        FILE,
        csi_volume(
            volumeAttributes={"sharename": "s", "secretname": "k"}, nodeStageSecretRef=k8s.SecretReference("", "n2")
        ),
        k8s.AzureFile("k", "s", False, "default"),
    ),
    (
        "file-handle",
        FILE,
        csi_volume("rg#acct#share"),
        k8s.AzureFile("azure-storage-account-acct-secret", "share", False, "default"),
    ),
    (
        "file-handle-fills-only-gaps",
        FILE,
        csi_volume("rg#acct#share#x#y", volumeAttributes={"sharename": "mine"}),
        k8s.AzureFile("azure-storage-account-acct-secret", "mine", False, "default"),
    ),
    ("cinder", CINDER, csi_volume("c-1", fsType="xfs", readOnly=True), k8s.Cinder("c-1", "xfs", True)),
    (
        "vsphere",
        VSPHERE,
        csi_volume(fsType="ext4", volumeAttributes={"initialvolumefilepath": "[ds1] kubevols/a.vmdk"}),
        k8s.VsphereVolume("[ds1] kubevols/a.vmdk", "ext4"),
    ),
    ("portworx", PORTWORX, csi_volume("p-1", fsType="ext4", readOnly=True), k8s.PortworxVolume("p-1", "ext4", True)),
]


@pytest.mark.parametrize(
    ("driver", "given", "expected"), [row[1:] for row in SOURCES], ids=[f"provision-14.3-{row[0]}" for row in SOURCES]
)
def test_source(driver: str, given: k8s.PersistentVolume, expected: object) -> None:
    translated = translate.volume_to_in_tree(given, driver)
    assert translated.spec.csi is None
    [field] = [field for field, of in registry.SOURCES.items() if of == driver]
    assert getattr(translated.spec, field) == expected


ERRORS = [
    ("ebs-partition-not-a-number", EBS, csi_volume(volumeAttributes={"partition": "one"}), "partition='one'"),
    ("ebs-partition-empty", EBS, csi_volume(volumeAttributes={"partition": ""}), "partition=''"),
    (
        "ebs-partition-too-large",
        EBS,
        csi_volume(volumeAttributes={"partition": "2147483648"}),
        "not a partition number",
    ),
    (
        "gce-partition-not-a-number",
        GCE,
        csi_volume(PD, volumeAttributes={"partition": "1_0"}),
        "not a partition number",
    ),
    ("gce-short-handle", GCE, csi_volume("projects/p/zones/z/disks"), "fewer than six parts"),
    ("disk-no-name", DISK, csi_volume("/subscriptions/s1/disks/disk1"), "no disk name"),
    ("disk-http-is-a-blob", DISK, csi_volume("http://x" + URI), "no disk name"),
    ("file-short-handle", FILE, csi_volume("rg#acct", volumeAttributes={"sharename": "s"}), "<resource group>"),
]


@pytest.mark.parametrize(
    ("driver", "given", "message"), [row[1:] for row in ERRORS], ids=[f"provision-14.3-{row[0]}" for row in ERRORS]
)
def test_error(driver: str, given: k8s.PersistentVolume, message: str) -> None:
    with pytest.raises(TranslationError, match=message):
        translate.volume_to_in_tree(given, driver)


def test_the_resource_group_of_the_handle_becomes_an_annotation() -> None:
    """provision.md 14.3."""
    group = "kubernetes.io/azure-file-resource-group"
    given = csi_volume("rg#acct#share")
    given.metadata.annotations = {"a": "b"}
    assert translate.volume_to_in_tree(given, FILE).metadata.annotations == {"a": "b", group: "rg"}
    assert translate.volume_to_in_tree(csi_volume("#acct#share"), FILE).metadata.annotations is None


US_EAST = {GA_ZONE: ["us-east-1a"], GA_REGION: ["us-east-1"]}
TOPOLOGY: list[tuple[str, str, k8s.PersistentVolume, Terms | None, dict[str, str] | None]] = [
    ("no-affinity", EBS, csi_volume(), None, None),
    (
        "golden-migrate-aws-zones-topology-13-7",
        EBS,
        csi_volume(at=[{EBS_ZONE: ["us-east-1a"]}]),
        [US_EAST],
        {GA_ZONE: "us-east-1a", GA_REGION: "us-east-1"},
    ),
    (
        "several-terms-one-region",
        GCE,
        csi_volume(
            PD, at=[{GCE_ZONE: ["us-central1-c"]}, {GCE_ZONE: ["us-central1-b", "us-central1-c"], "rack": ["r"]}]
        ),
        [
            {GA_ZONE: ["us-central1-c"], GA_REGION: ["us-central1"]},
            {GA_ZONE: ["us-central1-b", "us-central1-c"], "rack": ["r"], GA_REGION: ["us-central1"]},
        ],
        {GA_ZONE: "us-central1-b__us-central1-c", GA_REGION: "us-central1"},
    ),
    (
        "several-regions-no-region-label",
        GCE,
        csi_volume(PD, at=[{GCE_ZONE: ["us-central1-c"]}, {GCE_ZONE: ["us-east1-b"]}]),
        [
            {GA_ZONE: ["us-central1-c"], GA_REGION: ["us-central1"]},
            {GA_ZONE: ["us-east1-b"], GA_REGION: ["us-east1"]},
        ],
        {GA_ZONE: "us-central1-c__us-east1-b"},
    ),
    (
        "beta-label-chooses-the-family",
        EBS,
        csi_volume(at=[{EBS_ZONE: ["us-east-1a"]}], labels={BETA_ZONE: "kept"}),
        [{BETA_ZONE: ["us-east-1a"], BETA_REGION: ["us-east-1"]}],
        {BETA_ZONE: "kept", BETA_REGION: "us-east-1"},
    ),
    (
        "ga-affinity-before-beta-label",
        EBS,
        csi_volume(at=[{GA_ZONE: ["us-east-1a"]}], labels={BETA_ZONE: "b"}),
        [US_EAST],
        {BETA_ZONE: "b", GA_ZONE: "us-east-1a", GA_REGION: "us-east-1"},
    ),
    (
        "region-in-the-term-stays",
        EBS,
        csi_volume(at=[{EBS_ZONE: ["us-east-1a"], GA_REGION: ["mine"]}]),
        [{GA_ZONE: ["us-east-1a"], GA_REGION: ["mine"]}],
        {GA_ZONE: "us-east-1a", GA_REGION: "mine"},
    ),
    (
        "cinder-without-region",
        CINDER,
        csi_volume(at=[{CINDER_ZONE: ["nova"]}, {"rack": ["r"]}]),
        [{GA_ZONE: ["nova"]}, {"rack": ["r"]}],
        {GA_ZONE: "nova"},
    ),
    ("disk-has-no-topology", DISK, csi_volume(URI, at=[{"k": ["v"]}]), [{"k": ["v"]}], None),
    (
        "golden-migrate-vsphere",
        VSPHERE,
        csi_volume(at=[{VSPHERE_REGION: ["ra"], VSPHERE_ZONE: ["za"]}]),
        [{GA_REGION: ["ra"], GA_ZONE: ["za"]}],
        {GA_REGION: "ra", GA_ZONE: "za"},
    ),
    (
        "vsphere-first-sorted-value",
        VSPHERE,
        csi_volume(at=[{VSPHERE_ZONE: ["zb"]}, {VSPHERE_ZONE: ["za"]}], labels={GA_REGION: "kept"}),
        [{GA_ZONE: ["zb"]}, {GA_ZONE: ["za"]}],
        {GA_ZONE: "za", GA_REGION: "kept"},
    ),
]


@pytest.mark.parametrize(
    ("driver", "given", "expected_terms", "labels"),
    [row[1:] for row in TOPOLOGY],
    ids=[f"provision-14.3-T-{row[0]}" for row in TOPOLOGY],
)
def test_topology(
    driver: str, given: k8s.PersistentVolume, expected_terms: Terms | None, labels: dict[str, str] | None
) -> None:
    translated = translate.volume_to_in_tree(given, driver)
    assert terms(translated) == expected_terms
    assert translated.metadata.labels == labels


@pytest.mark.parametrize(
    ("at", "message"),
    [([{"rack": ["r"]}], "without a zone"), ([{EBS_ZONE: ["mars"]}], "'mars'")],
    ids=["provision-14.3-T3-term-without-zone", "provision-14.3-T3-unknown-zone"],
)
def test_a_region_that_cannot_be_told_fails_the_translation(at: Terms, message: str) -> None:
    with pytest.raises(TranslationError, match=message):
        translate.volume_to_in_tree(csi_volume(at=at), EBS)


def test_everything_else_stays_and_the_given_volume_too() -> None:
    """provision.md 14.3."""
    given = csi_volume(at=[{EBS_ZONE: ["us-east-1a"]}], labels={"a": "b"})
    given.metadata.annotations, given.metadata.finalizers = {"c": "d"}, ["f"]
    given.spec.capacity, given.spec.claimRef = {"storage": "1Gi"}, k8s.ObjectReference(name="claim", uid="u")
    before = copy.deepcopy(given)
    translated = translate.volume_to_in_tree(given, EBS)
    assert given == before
    assert translated.metadata.annotations == {"c": "d"}
    assert translated.metadata.finalizers == ["f"]
    assert (translated.metadata.labels or {})["a"] == "b"
    assert translated.spec.capacity == {"storage": "1Gi"}
    assert translated.spec.claimRef == given.spec.claimRef
