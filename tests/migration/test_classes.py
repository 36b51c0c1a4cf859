"""Provision.md 14.2: in-tree classes as the CSI driver understands them."""

import copy

import pytest

from csi_provisioner.migration import TranslationError, translate
from csi_provisioner.migration.registry import IN_TREE_NAMES

from .objects import BETA_ZONE, GA_REGION, GA_ZONE, Terms, allowed, storage_class

EBS, GCE, DISK, FILE = "ebs.csi.aws.com", "pd.csi.storage.gke.io", "disk.csi.azure.com", "file.csi.azure.com"
CINDER, VSPHERE, PORTWORX = "cinder.csi.openstack.org", "csi.vsphere.vmware.com", "pxd.portworx.com"
EBS_ZONE, GCE_ZONE = "topology.ebs.csi.aws.com/zone", "topology.gke.io/zone"
DISK_ZONE, CINDER_ZONE = "topology.disk.csi.azure.com/zone", "topology.cinder.csi.openstack.org/zone"
VSPHERE_ZONE = "topology.csi.vmware.com/zone"
FSTYPE = "csi.storage.k8s.io/fstype"

Parameters = dict[str, str]

PARAMETERS: list[tuple[str, str, Parameters, Parameters]] = [
    ("fstype-is-prefixed", EBS, {"fstype": "xfs", "type": "gp3"}, {FSTYPE: "xfs", "type": "gp3"}),
    ("fstype-in-any-case", EBS, {"fsType": "xfs"}, {FSTYPE: "xfs"}),
    ("iops-per-gb", EBS, {"iopsPerGB": "10"}, {"iopsPerGB": "10", "allowautoiopspergbincrease": "true"}),
    ("prefixed-fstype-stays", EBS, {FSTYPE: "ext4"}, {FSTYPE: "ext4"}),
    (
        "golden-migrate-aws-late",
        EBS,
        {"type": "gp3", "fsType": "xfs", "iopsPerGB": "10"},
        {"type": "gp3", FSTYPE: "xfs", "iopsPerGB": "10", "allowautoiopspergbincrease": "true"},
    ),
    (
        "fstype-and-rest",
        GCE,
        {"FSTYPE": "ext4", "replication-type": "none", "iopspergb": "1"},
        {FSTYPE: "ext4", "replication-type": "none", "iopspergb": "1"},
    ),
    ("fstype-not-renamed", DISK, {"fsType": "xfs", "kind": "Managed"}, {"fsType": "xfs", "kind": "Managed"}),
    ("unchanged", FILE, {"fstype": "x", "zone": "z", "skuName": "s"}, {"fstype": "x", "zone": "z", "skuName": "s"}),
    (
        "availability-kept",
        CINDER,
        {"fstype": "xfs", "availability": "nova", "type": "fast"},
        {FSTYPE: "xfs", "availability": "nova", "type": "fast"},
    ),
    ("cinder-zone-is-a-plain-parameter", CINDER, {"zone": "z"}, {"zone": "z"}),
    (
        "golden-migrate-vsphere",
        VSPHERE,
        {"diskformat": "thin", "storagePolicyName": "gold", "datastore": "ds1", "fstype": "ext4", "unknownthing": "x"},
        {
            "diskformat-migrationparam": "thin",
            "storagepolicyname": "gold",
            "datastore-migrationparam": "ds1",
            FSTYPE: "ext4",
            "csimigration": "true",
        },
    ),
    (
        "every-migration-parameter",
        VSPHERE,
        {
            "hostFailuresToTolerate": "1",
            "forceProvisioning": "2",
            "cacheReservation": "3",
            "diskStripes": "4",
            "objectSpaceReservation": "5",
            "iopsLimit": "6",
        },
        {
            "hostfailurestotolerate-migrationparam": "1",
            "forceprovisioning-migrationparam": "2",
            "cachereservation-migrationparam": "3",
            "diskstripes-migrationparam": "4",
            "objectspacereservation-migrationparam": "5",
            "iopslimit-migrationparam": "6",
            "csimigration": "true",
        },
    ),
    ("nothing-given", VSPHERE, {}, {"csimigration": "true"}),
    (
        "auth-secret-for-every-role",
        PORTWORX,
        {"openstorage.io/auth-secret-name": "s", "openstorage.io/auth-secret-namespace": "ns", "repl": "2"},
        {"repl": "2"}
        | {
            f"csi.storage.k8s.io/{role}-secret-{part}": value
            for part, value in (("name", "s"), ("namespace", "ns"))
            for role in (
                "provisioner",
                "controller-publish",
                "node-publish",
                "node-stage",
                "controller-expand",
                "node-expand",
            )
        },
    ),
]


@pytest.mark.parametrize(
    ("driver", "given", "expected"),
    [row[1:] for row in PARAMETERS],
    ids=[f"provision-14.2-{row[0]}" for row in PARAMETERS],
)
def test_parameters(driver: str, given: Parameters, expected: Parameters) -> None:
    assert translate.storage_class(storage_class(given), driver).parameters == expected


ZONES: list[tuple[str, str, Parameters, Terms, Parameters, Terms]] = [
    ("zone", EBS, {"zone": "us-east-1a"}, [], {}, [{EBS_ZONE: ["us-east-1a"]}]),
    ("zones-in-any-case", GCE, {"Zones": "z-b-1, z-a-1"}, [], {}, [{GCE_ZONE: ["z-b-1", "z-a-1"]}]),
    (
        "golden-migrate-aws-zones",
        EBS,
        {"zones": "us-east-1b,us-east-1a", "type": "io1"},
        [],
        {"type": "io1"},
        [{EBS_ZONE: ["us-east-1b", "us-east-1a"]}],
    ),
    ("golden-migrate-aws-allowed", EBS, {}, [{GA_ZONE: ["us-east-1b"]}], {}, [{EBS_ZONE: ["us-east-1b"]}]),
    (
        "several-terms",
        GCE,
        {},
        [{BETA_ZONE: ["a"], "rack": ["r"]}, {GA_ZONE: ["b", "c"]}, {GA_REGION: ["d"]}],
        {},
        [{GCE_ZONE: ["a"], "rack": ["r"]}, {GCE_ZONE: ["b", "c"]}, {GA_REGION: ["d"]}],
    ),
    ("golden-migrate-azure-disk", DISK, {}, [{GA_ZONE: ["westus2-1", "0"]}], {}, [{DISK_ZONE: ["westus2-1", ""]}]),
    ("fault-domain-of-a-parameter", DISK, {"zone": "1"}, [], {}, [{DISK_ZONE: [""]}]),
    ("only-on-the-csi-key", DISK, {}, [{"rack": ["7"]}], {}, [{"rack": ["7"]}]),
    ("file-unchanged", FILE, {}, [{GA_ZONE: ["a"]}], {}, [{GA_ZONE: ["a"]}]),
    ("cinder-renamed", CINDER, {}, [{BETA_ZONE: ["nova"]}], {}, [{CINDER_ZONE: ["nova"]}]),
    ("vsphere-renamed", VSPHERE, {}, [{GA_ZONE: ["za"]}], {"csimigration": "true"}, [{VSPHERE_ZONE: ["za"]}]),
    ("portworx-unchanged", PORTWORX, {}, [{GA_ZONE: ["a"]}], {}, [{GA_ZONE: ["a"]}]),
]


@pytest.mark.parametrize(
    ("driver", "parameters", "terms", "expected_parameters", "expected_terms"),
    [row[1:] for row in ZONES],
    ids=[f"provision-14.2-{row[0]}" for row in ZONES],
)
def test_allowed_topologies(
    driver: str, parameters: Parameters, terms: Terms, expected_parameters: Parameters, expected_terms: Terms
) -> None:
    translated = translate.storage_class(storage_class(parameters, terms), driver)
    assert translated.parameters == expected_parameters
    assert allowed(translated) == expected_terms


@pytest.mark.parametrize("driver", [EBS, GCE, DISK])
@pytest.mark.parametrize("parameter", ["zone", "zones"])
def test_zone_and_allowed_topologies_exclude_each_other(driver: str, parameter: str) -> None:
    """provision.md 14.2."""
    given = storage_class({parameter: "us-east-1a"}, [{GA_ZONE: ["us-east-1b"]}])
    with pytest.raises(TranslationError, match=rf"StorageClass fast .*allowedTopologies.*{parameter}:"):
        translate.storage_class(given, driver)


@pytest.mark.parametrize("driver", IN_TREE_NAMES)
def test_only_portworx_changes_the_provisioner(driver: str) -> None:
    """provision.md 14.2."""
    translated = translate.storage_class(storage_class(), driver)
    assert translated.provisioner == (PORTWORX if driver == PORTWORX else "kubernetes.io/in-tree")


@pytest.mark.parametrize("driver", IN_TREE_NAMES)
def test_the_given_class_is_not_changed(driver: str) -> None:
    """provision.md 8.9."""
    given = storage_class({"fstype": "xfs", "iopspergb": "1"}, [{GA_ZONE: ["1"]}])
    before = copy.deepcopy(given)
    translate.storage_class(given, driver)
    assert given == before
