"""The in-tree plugins whose volumes a CSI driver took over (provision.md 14.1)."""

from functools import cache

from csi_provisioner.migration.plugin import Plugin

# Ceph RBD was one of them in older versions of Kubernetes, and is gone.
IN_TREE_NAMES = {
    "ebs.csi.aws.com": "kubernetes.io/aws-ebs",
    "pd.csi.storage.gke.io": "kubernetes.io/gce-pd",
    "disk.csi.azure.com": "kubernetes.io/azure-disk",
    "file.csi.azure.com": "kubernetes.io/azure-file",
    "cinder.csi.openstack.org": "kubernetes.io/cinder",
    "csi.vsphere.vmware.com": "kubernetes.io/vsphere-volume",
    "pxd.portworx.com": "kubernetes.io/portworx-volume",
}
"""The CSI driver's name -> the in-tree name it also answers to."""
SOURCES = {
    "awsElasticBlockStore": "ebs.csi.aws.com",
    "gcePersistentDisk": "pd.csi.storage.gke.io",
    "azureDisk": "disk.csi.azure.com",
    "azureFile": "file.csi.azure.com",
    "cinder": "cinder.csi.openstack.org",
    "vsphereVolume": "csi.vsphere.vmware.com",
    "portworxVolume": "pxd.portworx.com",
}
"""The field of a PersistentVolume's spec that held a plugin's volumes -> the CSI driver's name."""


@cache
def known() -> dict[str, Plugin]:
    """By the name of the CSI driver. Loaded when the first object of one of them comes: most clusters have none."""
    from csi_provisioner.migration.plugins import aws_ebs, azure_disk, azure_file, cinder, gce_pd, portworx, vsphere

    modules = (aws_ebs, gce_pd, azure_disk, azure_file, cinder, vsphere, portworx)
    return {module.DRIVER: module.PLUGIN for module in modules}
