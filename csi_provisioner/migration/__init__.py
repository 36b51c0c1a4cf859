"""In-tree volumes and classes turned into CSI ones and back (provision.md 14, delete.md 11). Pure.

`translate` is the door; `TranslationError` is the only way it says no.
"""

from csi_provisioner.migration.plugin import TranslationError

__all__ = ["TranslationError"]
