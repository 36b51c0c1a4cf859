"""Provision.md 14.1: who replaces whom."""

import pytest

from csi_provisioner.migration.registry import IN_TREE_NAMES, SOURCES, known
from csi_provisioner.model.kubernetes import VolumeSpec

ROWS = [
    ("ebs.csi.aws.com", "kubernetes.io/aws-ebs", "awsElasticBlockStore"),
    ("pd.csi.storage.gke.io", "kubernetes.io/gce-pd", "gcePersistentDisk"),
    ("disk.csi.azure.com", "kubernetes.io/azure-disk", "azureDisk"),
    ("file.csi.azure.com", "kubernetes.io/azure-file", "azureFile"),
    ("cinder.csi.openstack.org", "kubernetes.io/cinder", "cinder"),
    ("csi.vsphere.vmware.com", "kubernetes.io/vsphere-volume", "vsphereVolume"),
    ("pxd.portworx.com", "kubernetes.io/portworx-volume", "portworxVolume"),
]


@pytest.mark.parametrize(("driver", "name", "source"), ROWS, ids=[f"provision-14.1-{row[1]}" for row in ROWS])
def test_each_driver_answers_to_its_in_tree_name(driver: str, name: str, source: str) -> None:
    assert IN_TREE_NAMES[driver] == name
    assert SOURCES[source] == driver
    assert driver in known()
    assert source in VolumeSpec.__struct_fields__


def test_no_other_plugin_is_known() -> None:
    assert len(IN_TREE_NAMES) == len(SOURCES) == len(known()) == len(ROWS)
