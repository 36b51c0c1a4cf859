"""Delete.md 11: in-tree volumes as the CSI driver knows them."""

import copy
from typing import Any

import pytest

from csi_provisioner.migration import TranslationError, translate
from csi_provisioner.model import kubernetes as k8s

from .objects import BETA_REGION, BETA_ZONE, GA_REGION, GA_ZONE, Terms, csi_volume, terms, volume

EBS_ZONE, GCE_ZONE = "topology.ebs.csi.aws.com/zone", "topology.gke.io/zone"
VSPHERE_ZONE, VSPHERE_REGION = "topology.csi.vmware.com/zone", "topology.csi.vmware.com/region"
URI = "/subscriptions/s1/resourceGroups/rg1/providers/Microsoft.Compute/disks/disk1"
FILE_SECRET = k8s.SecretReference("azure-storage-account-acct-secret", "ns")
PORTWORX_TOKEN = k8s.SecretReference("s", "ns")


def to_csi(pv: k8s.PersistentVolume) -> k8s.PersistentVolume:
    translated = translate.volume_to_csi(pv)
    assert translated is not None
    return translated


def ebs(volume_id: str = "vol-1", **rest: Any) -> k8s.PersistentVolume:
    return volume(awsElasticBlockStore=k8s.AWSElasticBlockStore(volume_id), **rest)


def gce(**rest: Any) -> k8s.PersistentVolume:
    return volume(gcePersistentDisk=k8s.GCEPersistentDisk("d1"), **rest)


def csi(driver: str, handle: str, **rest: Any) -> k8s.CSIVolumeSource:
    return k8s.CSIVolumeSource(driver=driver, volumeHandle=handle, **rest)


def pd(place: str) -> k8s.CSIVolumeSource:
    return csi("pd.csi.storage.gke.io", f"projects/UNSPECIFIED/{place}/disks/d1", volumeAttributes={"partition": ""})


SOURCES: list[tuple[str, k8s.PersistentVolume, k8s.CSIVolumeSource]] = [
    (
        "ebs",
        volume(awsElasticBlockStore=k8s.AWSElasticBlockStore("vol-1", "xfs", readOnly=True, partition=2)),
        csi("ebs.csi.aws.com", "vol-1", fsType="xfs", readOnly=True, volumeAttributes={"partition": "2"}),
    ),
    ("ebs-url", ebs("aws://us-east-1a/vol-1"), csi("ebs.csi.aws.com", "vol-1", volumeAttributes={"partition": "0"})),
    ("ebs-url-without-zone", ebs("aws:///vol-1"), csi("ebs.csi.aws.com", "vol-1", volumeAttributes={"partition": "0"})),
    (
        "gce",
        volume(gcePersistentDisk=k8s.GCEPersistentDisk("d1", "ext4", 3, True), labels={GA_ZONE: "us-east1-b"}),
        csi(
            "pd.csi.storage.gke.io",
            "projects/UNSPECIFIED/zones/us-east1-b/disks/d1",
            fsType="ext4",
            readOnly=True,
            volumeAttributes={"partition": "3"},
        ),
    ),
    ("gce-beta-label-first", gce(labels={GA_ZONE: "a-b-c", BETA_ZONE: "x-y-z"}), pd("zones/x-y-z")),
    ("gce-regional", gce(labels={GA_ZONE: "us-east1-b__us-east1-c"}), pd("regions/us-east1")),
    ("gce-one-non-empty", gce(labels={GA_ZONE: "__us-east1-b__"}), pd("zones/us-east1-b")),
    ("gce-no-zone", gce(), pd("zones/UNSPECIFIED")),
    (
        "disk",
        volume(azureDisk=k8s.AzureDisk("disk1", URI, "ReadOnly", "xfs", True, "managed")),
        csi(
            "disk.csi.azure.com",
            URI,
            fsType="xfs",
            readOnly=True,
            volumeAttributes={"kind": "Managed", "cachingmode": "ReadOnly", "fstype": "xfs"},
        ),
    ),
    (
        "disk-bare",
        volume(azureDisk=k8s.AzureDisk("disk1", URI)),
        csi("disk.csi.azure.com", URI, volumeAttributes={"kind": "Managed"}),
    ),
    (
        "file",
        volume(
            azureFile=k8s.AzureFile("azure-storage-account-acct-secret", "share", True, "ns"),
            annotations={"kubernetes.io/azure-file-resource-group": "rg"},
        ),
        csi(
            "file.csi.azure.com",
            "rg#acct#share#pv-1#ns",
            readOnly=True,
            volumeAttributes={"sharename": "share"},
            nodeStageSecretRef=FILE_SECRET,
        ),
    ),
    (
        "file-namespace-of-the-claim",
        volume(azureFile=k8s.AzureFile("own", "share"), claimRef=k8s.ObjectReference(namespace="cns")),
        csi(
            "file.csi.azure.com",
            "#own#share#pv-1#cns",
            volumeAttributes={"sharename": "share"},
            nodeStageSecretRef=k8s.SecretReference("own", "cns"),
        ),
    ),
    (
        "cinder",
        volume(cinder=k8s.Cinder("c-1", "xfs", True)),
        csi("cinder.csi.openstack.org", "c-1", fsType="xfs", readOnly=True, volumeAttributes={}),
    ),
    (
        "vsphere",
        volume(vsphereVolume=k8s.VsphereVolume("[ds1] a.vmdk", "ext4", "gold")),
        csi("csi.vsphere.vmware.com", "[ds1] a.vmdk", fsType="ext4", volumeAttributes={"storagepolicyname": "gold"}),
    ),
    (
        "golden-migrate-vsphere",
        volume(vsphereVolume=k8s.VsphereVolume("[ds1] kubevols/a.vmdk")),
        csi("csi.vsphere.vmware.com", "[ds1] kubevols/a.vmdk", volumeAttributes={}),
    ),
    (
        "portworx",
        volume(
            portworxVolume=k8s.PortworxVolume("p-1", "ext4", True),
            annotations={"openstorage.io/auth-secret-name": "s", "openstorage.io/auth-secret-namespace": "ns"},
        ),
        csi(
            "pxd.portworx.com",
            "p-1",
            fsType="ext4",
            controllerPublishSecretRef=PORTWORX_TOKEN,
            nodeStageSecretRef=PORTWORX_TOKEN,
            nodePublishSecretRef=PORTWORX_TOKEN,
            controllerExpandSecretRef=PORTWORX_TOKEN,
            nodeExpandSecretRef=PORTWORX_TOKEN,
        ),
    ),
    (
        "portworx-one-annotation-only",
        volume(
            portworxVolume=k8s.PortworxVolume("p-1"),
            annotations={"openstorage.io/auth-secret-name": "s"},
        ),
        csi("pxd.portworx.com", "p-1"),
    ),
]


@pytest.mark.parametrize(
    ("given", "expected"), [row[1:] for row in SOURCES], ids=[f"delete-11-{row[0]}" for row in SOURCES]
)
def test_source(given: k8s.PersistentVolume, expected: k8s.CSIVolumeSource) -> None:
    before = copy.deepcopy(given)
    translated = to_csi(given)
    assert translated.spec.csi == expected
    assert translate.volume_to_csi(translated) is None
    assert (translated.metadata.name, translated.metadata.annotations) == ("pv-1", given.metadata.annotations)
    assert translated.spec.claimRef == given.spec.claimRef
    assert given == before


ERRORS = [
    ("ebs-url-without-volume", ebs("aws://us-east-1a/snap-1"), "does not name a volume"),
    ("ebs-url-with-path", ebs("aws://us-east-1a/vol-1/x"), "does not name a volume"),
    ("ebs-url-broken", ebs("aws://[/vol-1"), "does not name a volume"),
    ("gce-several-regions", gce(labels={GA_ZONE: "us-east1-b__us-west1-b"}), "several regions"),
    ("disk-unmanaged", volume(azureDisk=k8s.AzureDisk("d", URI, kind="Dedicated")), "kind 'Dedicated'"),
    ("file-no-namespace", volume(azureFile=k8s.AzureFile("own", "share")), "names no namespace"),
]


@pytest.mark.parametrize(
    ("given", "message"), [row[1:] for row in ERRORS], ids=[f"delete-11-{row[0]}" for row in ERRORS]
)
def test_error(given: k8s.PersistentVolume, message: str) -> None:
    with pytest.raises(TranslationError, match=message):
        translate.volume_to_csi(given)


@pytest.mark.parametrize("given", [volume(), csi_volume()], ids=["no source", "csi source"])
def test_a_volume_of_no_plugin_is_not_translated(given: k8s.PersistentVolume) -> None:
    """delete.md 11."""
    assert translate.volume_to_csi(given) is None


MODES: list[tuple[str, list[str] | None, list[str] | None]] = [
    ("rwx-counts-as-rwo", ["ReadWriteMany"], ["ReadWriteOnce"]),
    ("rwo-wins", ["ReadOnlyMany", "ReadWriteOnce"], ["ReadWriteOnce"]),
    ("rox", ["ReadOnlyMany"], ["ReadOnlyMany"]),
    ("rwop", ["ReadWriteOncePod"], ["ReadWriteOnce"]),
    ("rwop-and-rox", ["ReadWriteOncePod", "ReadOnlyMany"], ["ReadOnlyMany"]),
    ("empty", [], ["ReadWriteOnce"]),
    ("nil", None, None),
]


@pytest.mark.parametrize(
    ("modes", "expected"), [row[1:] for row in MODES], ids=[f"delete-11-{row[0]}" for row in MODES]
)
def test_access_modes_of_a_disk(modes: list[str] | None, expected: list[str] | None) -> None:
    assert to_csi(gce(accessModes=modes)).spec.accessModes == expected


def vsphere(**rest: Any) -> k8s.PersistentVolume:
    return volume(vsphereVolume=k8s.VsphereVolume("p"), **rest)


TOPOLOGY: list[tuple[str, k8s.PersistentVolume, Terms | None]] = [
    ("nothing-known", ebs(), None),
    (
        "zone-renamed",
        ebs(at=[{GA_ZONE: ["a"]}, {GA_ZONE: ["b"], "k": ["v"]}]),
        [{EBS_ZONE: ["a"]}, {EBS_ZONE: ["b"], "k": ["v"]}],
    ),
    ("affinity-before-label", ebs(at=[{GA_ZONE: ["a"]}], labels={GA_ZONE: "z"}), [{EBS_ZONE: ["a"]}]),
    (
        "label-split",
        gce(labels={GA_ZONE: "us-east1-c__ us-east1-b__us-east1-c__"}),
        [{GCE_ZONE: ["us-east1-b", "us-east1-c"]}],
    ),
    (
        "label-into-every-term",
        ebs(at=[{"k": ["v"]}, {}], labels={GA_ZONE: "a"}),
        [{"k": ["v"], EBS_ZONE: ["a"]}, {EBS_ZONE: ["a"]}],
    ),
    ("label-into-no-term", ebs(at=[], labels={BETA_ZONE: "a"}), [{EBS_ZONE: ["a"]}]),
    ("label-without-zone", ebs(at=[{"k": ["v"]}], labels={GA_ZONE: " __ "}), [{"k": ["v"]}]),
    (
        "beta-region-becomes-ga",
        ebs(at=[{BETA_ZONE: ["a"], BETA_REGION: ["r"]}]),
        [{EBS_ZONE: ["a"], GA_REGION: ["r"]}],
    ),
    (
        "ga-family-leaves-beta-region",
        ebs(at=[{GA_ZONE: ["a"], BETA_REGION: ["r"]}]),
        [{EBS_ZONE: ["a"], BETA_REGION: ["r"]}],
    ),
    ("disk-untouched", volume(azureDisk=k8s.AzureDisk("d", URI), at=[{GA_ZONE: ["a"]}]), [{GA_ZONE: ["a"]}]),
    (
        "vsphere-renamed",
        vsphere(at=[{BETA_ZONE: ["a"], BETA_REGION: ["r"]}]),
        [{VSPHERE_ZONE: ["a"], VSPHERE_REGION: ["r"]}],
    ),
    (
        "vsphere-labels-unsplit",
        vsphere(labels={GA_ZONE: "a__b", GA_REGION: "r"}),
        [{VSPHERE_ZONE: ["a__b"], VSPHERE_REGION: ["r"]}],
    ),
    (
        "vsphere-region-of-the-label",
        vsphere(at=[{GA_ZONE: ["a"]}], labels={GA_ZONE: "z", GA_REGION: "r"}),
        [{VSPHERE_ZONE: ["a"], VSPHERE_REGION: ["r"]}],
    ),
    ("vsphere-empty-labels", vsphere(labels={GA_ZONE: "", GA_REGION: ""}), None),
]


@pytest.mark.parametrize(
    ("given", "expected"), [row[1:] for row in TOPOLOGY], ids=[f"delete-11-U-{row[0]}" for row in TOPOLOGY]
)
def test_topology(given: k8s.PersistentVolume, expected: Terms | None) -> None:
    assert terms(to_csi(given)) == expected
