"""Messages of the Container Storage Interface, generated from `protos/csi.proto` (nox session `protos`); never edited."""

from .csi.v1 import *  # noqa: F403
