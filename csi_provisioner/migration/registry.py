"""The in-tree plugins whose volumes a CSI driver took over (provision.md 14.1)."""

from csi_provisioner.migration.plugin import Plugin
from csi_provisioner.migration.plugins import aws_ebs, azure_disk, azure_file, cinder, gce_pd, portworx, vsphere

# Ceph RBD was one of them in older versions of Kubernetes, and is gone.
_MODULES = (aws_ebs, gce_pd, azure_disk, azure_file, cinder, vsphere, portworx)
KNOWN: dict[str, Plugin] = {module.PLUGIN.driver: module.PLUGIN for module in _MODULES}
"""By the name of the CSI driver."""

IN_TREE_NAMES: dict[str, str] = {driver: plugin.in_tree_name for driver, plugin in KNOWN.items()}
"""The CSI driver's name -> the in-tree name it also answers to."""
