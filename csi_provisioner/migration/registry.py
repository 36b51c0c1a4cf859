"""The in-tree plugins whose volumes a CSI driver took over (provision.md 14.1)."""

from csi_provisioner.migration.plugin import Plugin
from csi_provisioner.migration.plugins import aws_ebs, azure_disk, azure_file, cinder, gce_pd, portworx, vsphere

KNOWN: tuple[Plugin, ...] = (
    aws_ebs.PLUGIN,
    gce_pd.PLUGIN,
    azure_disk.PLUGIN,
    azure_file.PLUGIN,
    cinder.PLUGIN,
    vsphere.PLUGIN,
    portworx.PLUGIN,
)

IN_TREE_NAMES: dict[str, str] = {plugin.driver: plugin.in_tree_name for plugin in KNOWN}
"""The CSI driver's name -> the in-tree name it also answers to."""
