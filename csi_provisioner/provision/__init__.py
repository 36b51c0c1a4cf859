"""A claim's way to its volume: what is read, the call, the PersistentVolume that is written, and what is remembered."""
