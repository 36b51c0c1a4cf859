"""The stores of everything that is watched, in one value for all who read them."""

from collections.abc import Callable

import msgspec

from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.errors import unless_gone
from csi_provisioner.kube.store import Store
from csi_provisioner.model.kubernetes import (
    CSINode,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    ReferenceGrant,
    StorageClass,
    VolumeAttachment,
)


class Caches(msgspec.Struct, frozen=True):
    """A store stays empty where its kind is not watched with this driver or these gates."""

    claims: Store[PersistentVolumeClaim]
    volumes: Store[PersistentVolume]
    """Those that share the driver's id, which ought to be one each, are `sharing` it."""
    storage_classes: Store[StorageClass] = msgspec.field(default_factory=Store)
    attachments: Store[VolumeAttachment] = msgspec.field(default_factory=Store)
    grants: Store[ReferenceGrant] = msgspec.field(default_factory=Store)
    nodes: Store[Node] = msgspec.field(default_factory=Store)
    csinodes: Store[CSINode] = msgspec.field(default_factory=Store)
    unsynced: set[str] = msgspec.field(default_factory=set)
    """Kinds whose first list is not complete, or that are to be listed again before they are believed."""
    ended: set[str] = msgspec.field(default_factory=set)
    """Kinds that are not followed any more, although they should be."""
    lags: dict[str, Callable[[], float]] = msgspec.field(default_factory=dict)
    """Kinds that are followed, and how to ask for how many seconds nothing was heard of each."""
    followers: dict[str, Callable[[], None]] = msgspec.field(default_factory=dict)
    """How to have each kind listed at once."""

    @property
    def seen(self) -> int:
        """The highest version that was shown of what volumes are made and deleted by."""
        return max(self.claims.seen, self.volumes.seen)

    async def whole(self, kube: KubeClient, sketch: PersistentVolume) -> PersistentVolume | None:
        """A volume of which only a record is kept as the API server has it; None: it is gone."""
        name = sketch.metadata.name
        with unless_gone():
            return self.volumes.get(name) or await kube.get(PersistentVolume, name)
        return None
