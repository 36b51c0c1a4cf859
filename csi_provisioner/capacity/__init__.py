"""Free space for the scheduler: one CSIStorageCapacity for each segment and class (capacity.md)."""
