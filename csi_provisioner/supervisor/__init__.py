"""Who starts what, in which order, and who ends it: the only place that sees all settings and all parts.

`process` is the process with its driver connection, `caches` and `loops` are one life of the work inside it.
"""

from .process import run

__all__ = ["run"]
