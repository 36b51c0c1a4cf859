"""Everything that speaks to the CSI driver: the connection, its calls, their errors, and how messages are shown."""
