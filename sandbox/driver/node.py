"""The Node service, as far as a provisioner asks it: which node this is and which topology segment it lies in."""

from grpclib.const import Handler

from csi_provisioner.model import csi
from csi_provisioner.model.csi import services
from sandbox.driver.config import Config


class Node(services.NodeBase):
    def __init__(self, config: Config) -> None:
        self._config = config

    async def node_get_capabilities(self, message: csi.NodeGetCapabilitiesRequest) -> csi.NodeGetCapabilitiesResponse:
        return csi.NodeGetCapabilitiesResponse()

    async def node_get_info(self, message: csi.NodeGetInfoRequest) -> csi.NodeGetInfoResponse:
        segment = self._config.node_segment
        return csi.NodeGetInfoResponse(
            node_id=self._config.node_id,
            # Without a segment the driver knows no topology at all, which is not the same as an empty one.
            accessible_topology=csi.Topology(segments=dict(segment)) if segment else None,
        )

    async def node_unpublish_volume(self, message: csi.NodeGetCapabilitiesRequest) -> csi.NodeGetCapabilitiesResponse:
        return csi.NodeGetCapabilitiesResponse()

    def __mapping__(self) -> dict[str, Handler]:
        """The generated calls, and NodeUnpublishVolume, which csi-sanity makes before every delete.

        Nothing is ever mounted, so it succeeds whatever it says; an empty message takes the place of its own.
        """
        calls: dict[str, Handler] = super().__mapping__()
        return calls | {"/csi.v1.Node/NodeUnpublishVolume": calls["/csi.v1.Node/NodeGetCapabilities"]}
