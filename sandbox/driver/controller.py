"""The Controller service: requests checked and translated for `state`, its answers translated back. Keeps nothing
itself.
"""

import datetime

from csi_provisioner.model import csi
from csi_provisioner.model.csi import services
from sandbox.driver.config import Config
from sandbox.driver.state import Refused, Snapshot, State, Volume, Wanted, page


class Controller(services.ControllerBase):
    def __init__(self, config: Config, state: State) -> None:
        self._config = config
        self._state = state
        self._topology = "VOLUME_ACCESSIBILITY_CONSTRAINTS" in config.plugin

    async def controller_get_capabilities(
        self, message: csi.ControllerGetCapabilitiesRequest
    ) -> csi.ControllerGetCapabilitiesResponse:
        rpcs = (csi.ControllerServiceCapabilityRpc(type=_type(name)) for name in self._config.controller)
        return csi.ControllerGetCapabilitiesResponse(
            capabilities=[csi.ControllerServiceCapability(rpc=rpc) for rpc in rpcs]
        )

    # -- volumes

    async def create_volume(self, message: csi.CreateVolumeRequest) -> csi.CreateVolumeResponse:
        if not message.name:
            raise Refused("INVALID_ARGUMENT", "a volume name is required")
        sizes = message.capacity_range or csi.CapacityRange()
        source = message.volume_content_source or csi.VolumeContentSource()
        # A driver without the capability must refuse; making an empty volume would lose the user's data.
        if source.volume and "CLONE_VOLUME" not in self._config.controller:
            raise Refused("INVALID_ARGUMENT", "volumes cannot be cloned by this driver")
        wanted = Wanted(
            name=message.name,
            required=sizes.required_bytes,
            limit=sizes.limit_bytes,
            block=_is_block(message.volume_capabilities),
            parameters=message.parameters,
            mutable_parameters=message.mutable_parameters,
            source_snapshot=source.snapshot.snapshot_id if source.snapshot else "",
            source_volume=source.volume.volume_id if source.volume else "",
            segments=_segments(message.accessibility_requirements),
        )
        return csi.CreateVolumeResponse(volume=self._volume(self._state.create_volume(wanted)))

    async def delete_volume(self, message: csi.DeleteVolumeRequest) -> csi.DeleteVolumeResponse:
        self._state.delete_volume(message.volume_id)
        return csi.DeleteVolumeResponse()

    async def validate_volume_capabilities(
        self, message: csi.ValidateVolumeCapabilitiesRequest
    ) -> csi.ValidateVolumeCapabilitiesResponse:
        volume = self._state.volume(message.volume_id)
        if _is_block(message.volume_capabilities) != volume.block:
            return csi.ValidateVolumeCapabilitiesResponse(message=f"volume {volume.id} has the other access type")
        if message.parameters and message.parameters != volume.parameters:
            return csi.ValidateVolumeCapabilitiesResponse(message=f"volume {volume.id} was made with other parameters")
        return csi.ValidateVolumeCapabilitiesResponse(
            confirmed=csi.ValidateVolumeCapabilitiesResponseConfirmed(
                volume_context=message.volume_context,
                volume_capabilities=message.volume_capabilities,
                parameters=message.parameters,
                mutable_parameters=message.mutable_parameters,
            )
        )

    async def list_volumes(self, message: csi.ListVolumesRequest) -> csi.ListVolumesResponse:
        # The driver may give smaller pages than it is asked for, and tests want it to.
        limit = min(filter(None, (message.max_entries, self._config.page)), default=0)
        volumes, token = page(self._state.volumes.values(), limit, message.starting_token)
        entries = [self._entry(volume) for volume in volumes]
        return csi.ListVolumesResponse(entries=entries, next_token=token)

    async def controller_get_volume(self, message: csi.ControllerGetVolumeRequest) -> csi.ControllerGetVolumeResponse:
        return csi.ControllerGetVolumeResponse(
            volume=self._volume(self._state.volume(message.volume_id)),
            status=csi.ControllerGetVolumeResponseVolumeStatus(),
        )

    async def controller_expand_volume(
        self, message: csi.ControllerExpandVolumeRequest
    ) -> csi.ControllerExpandVolumeResponse:
        self._state.volume(message.volume_id)
        sizes = message.capacity_range
        if sizes is None:
            raise Refused("INVALID_ARGUMENT", "a capacity range is required")
        volume = self._state.expand_volume(message.volume_id, sizes.required_bytes, sizes.limit_bytes)
        # Nothing is mounted, so there is no file system for a node to grow.
        return csi.ControllerExpandVolumeResponse(capacity_bytes=volume.size, node_expansion_required=False)

    async def controller_modify_volume(
        self, message: csi.ControllerModifyVolumeRequest
    ) -> csi.ControllerModifyVolumeResponse:
        self._state.modify_volume(message.volume_id, message.mutable_parameters)
        return csi.ControllerModifyVolumeResponse()

    async def get_capacity(self, message: csi.GetCapacityRequest) -> csi.GetCapacityResponse:
        segment = message.accessible_topology.segments if message.accessible_topology else {}
        available, largest = self._state.capacity(segment)
        return csi.GetCapacityResponse(available_capacity=available, maximum_volume_size=largest)

    # -- snapshots

    async def create_snapshot(self, message: csi.CreateSnapshotRequest) -> csi.CreateSnapshotResponse:
        snapshot = self._state.create_snapshot(message.name, message.source_volume_id)
        return csi.CreateSnapshotResponse(snapshot=_snapshot(snapshot))

    async def delete_snapshot(self, message: csi.DeleteSnapshotRequest) -> csi.DeleteSnapshotResponse:
        self._state.delete_snapshot(message.snapshot_id)
        return csi.DeleteSnapshotResponse()

    async def get_snapshot(self, message: csi.GetSnapshotRequest) -> csi.GetSnapshotResponse:
        return csi.GetSnapshotResponse(snapshot=_snapshot(self._state.snapshot(message.snapshot_id)))

    async def list_snapshots(self, message: csi.ListSnapshotsRequest) -> csi.ListSnapshotsResponse:
        wanted = (
            snapshot
            for snapshot in self._state.snapshots.values()
            if message.snapshot_id in ("", snapshot.id) and message.source_volume_id in ("", snapshot.volume)
        )
        snapshots, token = page(wanted, message.max_entries, message.starting_token)
        entries = [csi.ListSnapshotsResponseEntry(snapshot=_snapshot(snapshot)) for snapshot in snapshots]
        return csi.ListSnapshotsResponse(entries=entries, next_token=token)

    def _entry(self, volume: Volume) -> csi.ListVolumesResponseEntry:
        nodes = self._state.published.get(volume.id, ())
        status = csi.ListVolumesResponseVolumeStatus(published_node_ids=list(nodes)) if nodes else None
        return csi.ListVolumesResponseEntry(volume=self._volume(volume), status=status)

    def _volume(self, volume: Volume) -> csi.Volume:
        return csi.Volume(
            volume_id=volume.id,
            capacity_bytes=volume.size,
            # Real drivers put into it what their node service needs; some repeat the parameters there.
            volume_context=self._config.volume_context
            | (volume.parameters if self._config.context_of_parameters else {}),
            content_source=_content_source(volume),
            accessible_topology=[csi.Topology(segments=dict(volume.segment))]
            if self._topology and volume.segment
            else [],
        )


def _content_source(volume: Volume) -> csi.VolumeContentSource | None:
    if volume.source_snapshot:
        return csi.VolumeContentSource(
            snapshot=csi.VolumeContentSourceSnapshotSource(snapshot_id=volume.source_snapshot)
        )
    if volume.source_volume:
        return csi.VolumeContentSource(volume=csi.VolumeContentSourceVolumeSource(volume_id=volume.source_volume))
    return None


def _snapshot(snapshot: Snapshot) -> csi.Snapshot:
    return csi.Snapshot(
        snapshot_id=snapshot.id,
        source_volume_id=snapshot.volume,
        size_bytes=snapshot.size,
        creation_time=datetime.datetime.fromtimestamp(snapshot.created, datetime.UTC),
        ready_to_use=True,
    )


def _segments(requirement: csi.TopologyRequirement | None) -> tuple[dict[str, str], ...]:
    """The segments in which the volume may be made: the preferred ones first, in their order."""
    # CSI wants the preferred segments tried first, and any of the requisite ones after them.
    return tuple(t.segments for t in (*requirement.preferred, *requirement.requisite)) if requirement else ()


def _is_block(capabilities: list[csi.VolumeCapability]) -> bool:
    """Whether a block device is asked for; refuses capabilities that are missing, incomplete or at odds with each
    other.
    """
    if not capabilities:
        raise Refused("INVALID_ARGUMENT", "volume capabilities are required")
    # A newer client's access mode may come as a number without a name; only 0 says that none was given.
    unknown = csi.VolumeCapabilityAccessModeMode.UNKNOWN
    for capability in capabilities:
        if capability.block is None and capability.mount is None:
            raise Refused("INVALID_ARGUMENT", "a volume capability without an access type")
        if capability.access_mode is None or capability.access_mode.mode == unknown:
            raise Refused("INVALID_ARGUMENT", "a volume capability without an access mode")
    # Several capabilities are several ways to use one volume, and it has one form on the disk.
    kinds = {capability.block is not None for capability in capabilities}
    if len(kinds) > 1:
        raise Refused("INVALID_ARGUMENT", "a volume cannot be both a block device and a file system")
    return kinds.pop()


def _type(name: str | int) -> csi.ControllerServiceCapabilityRpcType:
    types = csi.ControllerServiceCapabilityRpcType
    return types[name] if isinstance(name, str) else types(name)
