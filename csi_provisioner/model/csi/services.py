"""Bases of servers for the services of `protos/csi.proto`. Made by `protos/generate.py`; never edited."""

from typing import TYPE_CHECKING

import grpclib
from betterproto2 import grpclib as betterproto2_grpclib

from .csi.v1 import *  # noqa: F403
from .csi.v1.others import *  # noqa: F403

if TYPE_CHECKING:
    import grpclib.server


class ControllerBase(betterproto2_grpclib.ServiceBase):
    async def create_volume(self, message: "CreateVolumeRequest") -> "CreateVolumeResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def delete_volume(self, message: "DeleteVolumeRequest") -> "DeleteVolumeResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def controller_publish_volume(
        self, message: "ControllerPublishVolumeRequest"
    ) -> "ControllerPublishVolumeResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def controller_unpublish_volume(
        self, message: "ControllerUnpublishVolumeRequest"
    ) -> "ControllerUnpublishVolumeResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def validate_volume_capabilities(
        self, message: "ValidateVolumeCapabilitiesRequest"
    ) -> "ValidateVolumeCapabilitiesResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def list_volumes(self, message: "ListVolumesRequest") -> "ListVolumesResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def get_capacity(self, message: "GetCapacityRequest") -> "GetCapacityResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def controller_get_capabilities(
        self, message: "ControllerGetCapabilitiesRequest"
    ) -> "ControllerGetCapabilitiesResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def create_snapshot(self, message: "CreateSnapshotRequest") -> "CreateSnapshotResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def delete_snapshot(self, message: "DeleteSnapshotRequest") -> "DeleteSnapshotResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def list_snapshots(self, message: "ListSnapshotsRequest") -> "ListSnapshotsResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def get_snapshot(self, message: "GetSnapshotRequest") -> "GetSnapshotResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def controller_expand_volume(
        self, message: "ControllerExpandVolumeRequest"
    ) -> "ControllerExpandVolumeResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def controller_get_volume(self, message: "ControllerGetVolumeRequest") -> "ControllerGetVolumeResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def controller_modify_volume(
        self, message: "ControllerModifyVolumeRequest"
    ) -> "ControllerModifyVolumeResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def __rpc_create_volume(
        self, stream: "grpclib.server.Stream[CreateVolumeRequest, CreateVolumeResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.create_volume(request)
        await stream.send_message(response)

    async def __rpc_delete_volume(
        self, stream: "grpclib.server.Stream[DeleteVolumeRequest, DeleteVolumeResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.delete_volume(request)
        await stream.send_message(response)

    async def __rpc_controller_publish_volume(
        self, stream: "grpclib.server.Stream[ControllerPublishVolumeRequest, ControllerPublishVolumeResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.controller_publish_volume(request)
        await stream.send_message(response)

    async def __rpc_controller_unpublish_volume(
        self, stream: "grpclib.server.Stream[ControllerUnpublishVolumeRequest, ControllerUnpublishVolumeResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.controller_unpublish_volume(request)
        await stream.send_message(response)

    async def __rpc_validate_volume_capabilities(
        self, stream: "grpclib.server.Stream[ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.validate_volume_capabilities(request)
        await stream.send_message(response)

    async def __rpc_list_volumes(
        self, stream: "grpclib.server.Stream[ListVolumesRequest, ListVolumesResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.list_volumes(request)
        await stream.send_message(response)

    async def __rpc_get_capacity(
        self, stream: "grpclib.server.Stream[GetCapacityRequest, GetCapacityResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.get_capacity(request)
        await stream.send_message(response)

    async def __rpc_controller_get_capabilities(
        self, stream: "grpclib.server.Stream[ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.controller_get_capabilities(request)
        await stream.send_message(response)

    async def __rpc_create_snapshot(
        self, stream: "grpclib.server.Stream[CreateSnapshotRequest, CreateSnapshotResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.create_snapshot(request)
        await stream.send_message(response)

    async def __rpc_delete_snapshot(
        self, stream: "grpclib.server.Stream[DeleteSnapshotRequest, DeleteSnapshotResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.delete_snapshot(request)
        await stream.send_message(response)

    async def __rpc_list_snapshots(
        self, stream: "grpclib.server.Stream[ListSnapshotsRequest, ListSnapshotsResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.list_snapshots(request)
        await stream.send_message(response)

    async def __rpc_get_snapshot(
        self, stream: "grpclib.server.Stream[GetSnapshotRequest, GetSnapshotResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.get_snapshot(request)
        await stream.send_message(response)

    async def __rpc_controller_expand_volume(
        self, stream: "grpclib.server.Stream[ControllerExpandVolumeRequest, ControllerExpandVolumeResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.controller_expand_volume(request)
        await stream.send_message(response)

    async def __rpc_controller_get_volume(
        self, stream: "grpclib.server.Stream[ControllerGetVolumeRequest, ControllerGetVolumeResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.controller_get_volume(request)
        await stream.send_message(response)

    async def __rpc_controller_modify_volume(
        self, stream: "grpclib.server.Stream[ControllerModifyVolumeRequest, ControllerModifyVolumeResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.controller_modify_volume(request)
        await stream.send_message(response)

    def __mapping__(self) -> "dict[str, grpclib.const.Handler]":
        return {
            "/csi.v1.Controller/CreateVolume": grpclib.const.Handler(
                self.__rpc_create_volume,
                grpclib.const.Cardinality.UNARY_UNARY,
                CreateVolumeRequest,
                CreateVolumeResponse,
            ),
            "/csi.v1.Controller/DeleteVolume": grpclib.const.Handler(
                self.__rpc_delete_volume,
                grpclib.const.Cardinality.UNARY_UNARY,
                DeleteVolumeRequest,
                DeleteVolumeResponse,
            ),
            "/csi.v1.Controller/ControllerPublishVolume": grpclib.const.Handler(
                self.__rpc_controller_publish_volume,
                grpclib.const.Cardinality.UNARY_UNARY,
                ControllerPublishVolumeRequest,
                ControllerPublishVolumeResponse,
            ),
            "/csi.v1.Controller/ControllerUnpublishVolume": grpclib.const.Handler(
                self.__rpc_controller_unpublish_volume,
                grpclib.const.Cardinality.UNARY_UNARY,
                ControllerUnpublishVolumeRequest,
                ControllerUnpublishVolumeResponse,
            ),
            "/csi.v1.Controller/ValidateVolumeCapabilities": grpclib.const.Handler(
                self.__rpc_validate_volume_capabilities,
                grpclib.const.Cardinality.UNARY_UNARY,
                ValidateVolumeCapabilitiesRequest,
                ValidateVolumeCapabilitiesResponse,
            ),
            "/csi.v1.Controller/ListVolumes": grpclib.const.Handler(
                self.__rpc_list_volumes,
                grpclib.const.Cardinality.UNARY_UNARY,
                ListVolumesRequest,
                ListVolumesResponse,
            ),
            "/csi.v1.Controller/GetCapacity": grpclib.const.Handler(
                self.__rpc_get_capacity,
                grpclib.const.Cardinality.UNARY_UNARY,
                GetCapacityRequest,
                GetCapacityResponse,
            ),
            "/csi.v1.Controller/ControllerGetCapabilities": grpclib.const.Handler(
                self.__rpc_controller_get_capabilities,
                grpclib.const.Cardinality.UNARY_UNARY,
                ControllerGetCapabilitiesRequest,
                ControllerGetCapabilitiesResponse,
            ),
            "/csi.v1.Controller/CreateSnapshot": grpclib.const.Handler(
                self.__rpc_create_snapshot,
                grpclib.const.Cardinality.UNARY_UNARY,
                CreateSnapshotRequest,
                CreateSnapshotResponse,
            ),
            "/csi.v1.Controller/DeleteSnapshot": grpclib.const.Handler(
                self.__rpc_delete_snapshot,
                grpclib.const.Cardinality.UNARY_UNARY,
                DeleteSnapshotRequest,
                DeleteSnapshotResponse,
            ),
            "/csi.v1.Controller/ListSnapshots": grpclib.const.Handler(
                self.__rpc_list_snapshots,
                grpclib.const.Cardinality.UNARY_UNARY,
                ListSnapshotsRequest,
                ListSnapshotsResponse,
            ),
            "/csi.v1.Controller/GetSnapshot": grpclib.const.Handler(
                self.__rpc_get_snapshot,
                grpclib.const.Cardinality.UNARY_UNARY,
                GetSnapshotRequest,
                GetSnapshotResponse,
            ),
            "/csi.v1.Controller/ControllerExpandVolume": grpclib.const.Handler(
                self.__rpc_controller_expand_volume,
                grpclib.const.Cardinality.UNARY_UNARY,
                ControllerExpandVolumeRequest,
                ControllerExpandVolumeResponse,
            ),
            "/csi.v1.Controller/ControllerGetVolume": grpclib.const.Handler(
                self.__rpc_controller_get_volume,
                grpclib.const.Cardinality.UNARY_UNARY,
                ControllerGetVolumeRequest,
                ControllerGetVolumeResponse,
            ),
            "/csi.v1.Controller/ControllerModifyVolume": grpclib.const.Handler(
                self.__rpc_controller_modify_volume,
                grpclib.const.Cardinality.UNARY_UNARY,
                ControllerModifyVolumeRequest,
                ControllerModifyVolumeResponse,
            ),
        }


class IdentityBase(betterproto2_grpclib.ServiceBase):
    async def get_plugin_info(self, message: "GetPluginInfoRequest") -> "GetPluginInfoResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def get_plugin_capabilities(self, message: "GetPluginCapabilitiesRequest") -> "GetPluginCapabilitiesResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def probe(self, message: "ProbeRequest") -> "ProbeResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def __rpc_get_plugin_info(
        self, stream: "grpclib.server.Stream[GetPluginInfoRequest, GetPluginInfoResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.get_plugin_info(request)
        await stream.send_message(response)

    async def __rpc_get_plugin_capabilities(
        self, stream: "grpclib.server.Stream[GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.get_plugin_capabilities(request)
        await stream.send_message(response)

    async def __rpc_probe(self, stream: "grpclib.server.Stream[ProbeRequest, ProbeResponse]") -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.probe(request)
        await stream.send_message(response)

    def __mapping__(self) -> "dict[str, grpclib.const.Handler]":
        return {
            "/csi.v1.Identity/GetPluginInfo": grpclib.const.Handler(
                self.__rpc_get_plugin_info,
                grpclib.const.Cardinality.UNARY_UNARY,
                GetPluginInfoRequest,
                GetPluginInfoResponse,
            ),
            "/csi.v1.Identity/GetPluginCapabilities": grpclib.const.Handler(
                self.__rpc_get_plugin_capabilities,
                grpclib.const.Cardinality.UNARY_UNARY,
                GetPluginCapabilitiesRequest,
                GetPluginCapabilitiesResponse,
            ),
            "/csi.v1.Identity/Probe": grpclib.const.Handler(
                self.__rpc_probe,
                grpclib.const.Cardinality.UNARY_UNARY,
                ProbeRequest,
                ProbeResponse,
            ),
        }


class NodeBase(betterproto2_grpclib.ServiceBase):
    async def node_get_capabilities(self, message: "NodeGetCapabilitiesRequest") -> "NodeGetCapabilitiesResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def node_get_info(self, message: "NodeGetInfoRequest") -> "NodeGetInfoResponse":

        raise grpclib.GRPCError(grpclib.const.Status.UNIMPLEMENTED)

    async def __rpc_node_get_capabilities(
        self, stream: "grpclib.server.Stream[NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.node_get_capabilities(request)
        await stream.send_message(response)

    async def __rpc_node_get_info(
        self, stream: "grpclib.server.Stream[NodeGetInfoRequest, NodeGetInfoResponse]"
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        response = await self.node_get_info(request)
        await stream.send_message(response)

    def __mapping__(self) -> "dict[str, grpclib.const.Handler]":
        return {
            "/csi.v1.Node/NodeGetCapabilities": grpclib.const.Handler(
                self.__rpc_node_get_capabilities,
                grpclib.const.Cardinality.UNARY_UNARY,
                NodeGetCapabilitiesRequest,
                NodeGetCapabilitiesResponse,
            ),
            "/csi.v1.Node/NodeGetInfo": grpclib.const.Handler(
                self.__rpc_node_get_info,
                grpclib.const.Cardinality.UNARY_UNARY,
                NodeGetInfoRequest,
                NodeGetInfoResponse,
            ),
        }
