"""A released volume's way out: the driver first, then the PersistentVolume."""
