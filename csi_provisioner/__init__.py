"""A CSI external-provisioner: watches claims, asks a CSI driver for volumes, writes PersistentVolumes."""

__version__ = "0.1.0"
