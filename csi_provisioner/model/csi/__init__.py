"""Messages of the Container Storage Interface, made by `protos/generate.py` from `protos/csi.proto`.

Never edited. The server bases are in `services`, which only the sandbox imports.
"""

from .csi.v1 import *  # noqa: F403
