"""Messages of the Container Storage Interface, made by `protos/generate.py` from `protos/csi.proto`.

Never edited. The server bases are in `services`, which only the sandbox imports.
"""

from typing import TYPE_CHECKING

from .csi.v1 import *  # noqa: F403

if TYPE_CHECKING:
    from .csi.v1.others import *  # noqa: F403
else:

    def __getattr__(name):
        """Messages that no first volume needs are made when one of them is asked for."""
        from .csi.v1 import others

        return getattr(others, name)
