"""What is decided about a volume before anything is read for it (provision.md 8 rows 1 to 11).

The later steps, in `sources`, `secrets`, `attributes_class` and `request`, all start from this value.
"""

from collections.abc import Mapping

import msgspec

from csi_provisioner.model import csi
from csi_provisioner.model.kubernetes import NodeName, PersistentVolumeClaim
from csi_provisioner.planning.classes import ClassPlan
from csi_provisioner.planning.facts import DriverFacts


class DataSource(msgspec.Struct, frozen=True):
    """A claim's data source, from whichever of the two fields it stands in; `namespace` is never empty."""

    kind: str
    name: str
    namespace: str
    # None is the core group, which the API writes as no group at all.
    group: str | None = None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class Draft(msgspec.Struct, frozen=True):
    """`required_bytes` is 0 when the claim names no size."""

    claim: PersistentVolumeClaim
    class_plan: ClassPlan
    driver: DriverFacts
    name: str
    fstype: str
    required_bytes: int
    # Messages of one claim share these, so that nobody may change them.
    capabilities: tuple[csi.VolumeCapability, ...]
    source: DataSource | None
    attributes_class: str | None
    selected_node: NodeName
    annotations: Mapping[str, str] = {}
    """Of the claim, for the driver: taken when it was first asked for the volume."""
