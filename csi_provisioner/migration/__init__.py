"""In-tree volumes and classes turned into CSI ones and back (provision.md 14, delete.md 11). Pure."""
