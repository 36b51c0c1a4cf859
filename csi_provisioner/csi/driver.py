"""The CSI driver as the provisioner sees it: is it ready, who is it, what can it do, and the calls that do the work.

Each call is bounded by `--timeout`. What goes into a request and what follows from an answer is planned elsewhere. What
can keep the process from starting is `Fatal` here; the supervisor tries again instead once work has begun.
Spec: process.md 3 (steps 11-19), 4.2, 4.3, 4.5.
"""

import math
from collections.abc import Iterable
from typing import TypeVar

import betterproto2
import trio

from csi_provisioner.advice import advice
from csi_provisioner.csi.channel import Channel
from csi_provisioner.csi.errors import CallError
from csi_provisioner.fatal import Fatal
from csi_provisioner.logs import log
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from csi_provisioner.settings import CsiSettings

ResponseT = TypeVar("ResponseT", bound=betterproto2.Message)

# Volumes a page: with all that a driver says of each they stay well below the 4 MiB of a message.
PAGE = 500
# Seconds from one probe to the next (process.md 4.3).
PROBE_PERIOD = 1.0


class Driver:
    def __init__(self, channel: Channel, settings: CsiSettings) -> None:
        self._channel = channel
        self._settings = settings
        self.version = ""
        """What it says of itself when it is identified."""

    async def connect(self, limit: float = math.inf) -> None:
        """Wait until the socket answers, at most `limit` seconds: 30 for the first connection of the process."""
        with trio.move_on_after(limit) as scope:
            await self._channel.wait_connected()
        # Why it failed is only known to the channel, which goes on trying.
        if scope.cancelled_caught:
            trouble = self._channel.trouble
            raise Fatal(
                f"deadline exceeded: no CSI driver answered within {limit:g} s: {trouble}; {advice(trouble)}", 1
            )

    def met(self) -> None:
        """Who answers now is who is expected: calls that have waited since the last connection ended may go on."""
        self._channel.release()

    async def probe_until_ready(self) -> None:
        """Ask at once and then every second until ready, for as long as it takes. Only a time-out is asked again."""
        tick = trio.current_time() + PROBE_PERIOD
        while not await self._probed_ready():
            # After a slow probe the next one follows at once, but ticks that were missed are not made up for.
            await trio.sleep_until(tick)
            while tick <= trio.current_time():
                tick += PROBE_PERIOD

    async def _probed_ready(self) -> bool:
        try:
            answer = await self._call("Identity/Probe", csi.ProbeRequest(), csi.ProbeResponse, meets=True)
        except CallError as error:
            # A driver that starts slowly may not answer yet. Any other failure is the answer of one that cannot work.
            if error.code != Code.DEADLINE_EXCEEDED:
                raise Fatal(f"the CSI driver does not answer probes ({error}); see its own log", 1) from error
            log.warning("CSI driver probe timed out", err=str(error))
            return False
        if answer.ready is False:  # one that says nothing about it is ready
            log.warning("CSI driver is not ready")
        return answer.ready is not False

    async def identify(self) -> str:
        """The driver's name, which must not be empty."""
        info = await self._meet("Identity", csi.GetPluginInfoResponse, "cannot get the CSI driver's name")
        if not info.name:
            raise Fatal("the CSI driver's name is empty; GetPluginInfo of the driver has to give one", 255)
        self.version = info.vendor_version
        return info.name

    async def read_capabilities(self) -> tuple[frozenset[str], frozenset[str]]:
        """What the plugin and what its controller can do, by the names of the proto. What we have no name for is left
        out: a newer driver may say more than we know."""
        failure = "cannot read the CSI driver's capabilities"
        plugin = await self._meet("Identity", csi.GetPluginCapabilitiesResponse, failure)
        controller = await self._meet("Controller", csi.ControllerGetCapabilitiesResponse, failure)
        return (
            _names(entry.service.type for entry in plugin.capabilities if entry.service),
            _names(entry.rpc.type for entry in controller.capabilities if entry.rpc),
        )

    # Quoted are messages that are only made once they are asked for.
    async def node_get_info(self) -> "csi.NodeGetInfoResponse":
        failure = "cannot get the node's topology from the CSI driver, which --node-deployment needs"
        return await self._meet("Node", csi.NodeGetInfoResponse, failure)

    async def _meet(self, service: str, response_type: type[ResponseT], failure: str) -> ResponseT:
        """Ask a driver on a new connection who it is or what it can do. These requests are empty."""
        name = response_type.__name__.removesuffix("Response")
        try:
            return await self._call(f"{service}/{name}", getattr(csi, f"{name}Request")(), response_type, meets=True)
        except CallError as error:
            raise Fatal(f"{failure}: {error}", 255) from error

    async def create_volume(
        self, request: csi.CreateVolumeRequest, *, migrated: bool | None = None
    ) -> csi.CreateVolumeResponse:
        return await self._call("Controller/CreateVolume", request, csi.CreateVolumeResponse, migrated)

    async def delete_volume(
        self, request: csi.DeleteVolumeRequest, *, migrated: bool | None = None
    ) -> csi.DeleteVolumeResponse:
        return await self._call("Controller/DeleteVolume", request, csi.DeleteVolumeResponse, migrated)

    async def get_capacity(self, request: "csi.GetCapacityRequest") -> "csi.GetCapacityResponse":
        return await self._call("Controller/GetCapacity", request, csi.GetCapacityResponse)

    async def list_volumes(self, starting_token: str = "") -> "csi.ListVolumesResponse":
        """One page."""
        request = csi.ListVolumesRequest(max_entries=PAGE, starting_token=starting_token)
        return await self._call("Controller/ListVolumes", request, csi.ListVolumesResponse)

    async def _call(
        self,
        method: str,
        request: betterproto2.Message,
        response_type: type[ResponseT],
        migrated: bool | None = None,
        *,
        meets: bool = False,
    ) -> ResponseT:
        limit = self._settings.timeout
        return await self._channel.call(
            f"/csi.v1.{method}", request, response_type, timeout=limit, migrated=migrated, meets=meets
        )


def _names(values: Iterable[betterproto2.Enum]) -> frozenset[str]:
    return frozenset(value.name for value in values if value and value.name)
