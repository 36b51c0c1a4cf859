"""A client for the driver's tests, on grpcio: another gRPC implementation than the driver's own."""

import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import trio

from csi_provisioner.model import csi


class Client:
    """`await client.call("CreateVolume", request)`; a refusal comes as grpc.RpcError."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    async def call(self, rpc: str, request: Any, *, service: str = "Controller") -> Any:
        return await trio.to_thread.run_sync(self.start(rpc, request, service=service).result, 20)

    def start(self, rpc: str, request: Any, *, service: str = "Controller", timeout: float | None = 20) -> grpc.Future:
        response = getattr(csi, f"{rpc}Response", csi.ProbeResponse)
        method = self._channel.unary_unary(
            f"/csi.v1.{service}/{rpc}", request_serializer=bytes, response_deserializer=response.parse
        )
        return method.future(request, timeout=timeout, wait_for_ready=True)

    async def create(self, name: str, **fields: Any) -> csi.Volume:
        response = await self.call("CreateVolume", creation(name, **fields))
        volume: csi.Volume = response.volume
        return volume


@contextlib.contextmanager
def connected(path: object) -> Iterator[Client]:
    # a pool of its own: grpcio otherwise shares connections between the channels of a process
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 50)]
    with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
        yield Client(channel)


def mount_capability() -> csi.VolumeCapability:
    mode = csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
    return csi.VolumeCapability(
        mount=csi.VolumeCapabilityMountVolume(), access_mode=csi.VolumeCapabilityAccessMode(mode=mode)
    )


def creation(name: str, **fields: Any) -> csi.CreateVolumeRequest:
    return csi.CreateVolumeRequest(name=name, volume_capabilities=[mount_capability()], **fields)
