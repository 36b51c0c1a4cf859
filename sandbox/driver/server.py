"""The driver as a whole: its services behind one socket, every call logged, faults applied. What the tests hold in
their hands.

A Driver outlives its socket: `serve` can be ended and started again on the same path, with the same volumes, and with
another Config in between when a new version of a driver is to be played.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Never

import trio

from csi_provisioner.model import csi
from sandbox.driver import bridge
from sandbox.driver.backend import Queue
from sandbox.driver.config import Config
from sandbox.driver.controller import Controller
from sandbox.driver.disk import Disk
from sandbox.driver.faults import Fault, Faults
from sandbox.driver.identity import Identity
from sandbox.driver.newer import with_unknown
from sandbox.driver.node import Node
from sandbox.driver.state import Refused, State

# Which capability a call needs to be there at all. Calls of the services that are not named here are always there.
_NEEDS = {
    "CreateVolume": "CREATE_DELETE_VOLUME",
    "DeleteVolume": "CREATE_DELETE_VOLUME",
    "ListVolumes": "LIST_VOLUMES",
    "GetCapacity": "GET_CAPACITY",
    "CreateSnapshot": "CREATE_DELETE_SNAPSHOT",
    "DeleteSnapshot": "CREATE_DELETE_SNAPSHOT",
    "ListSnapshots": "LIST_SNAPSHOTS",
    "GetSnapshot": "GET_SNAPSHOT",
    "ControllerExpandVolume": "EXPAND_VOLUME",
    "ControllerGetVolume": "GET_VOLUME",
    "ControllerModifyVolume": "MODIFY_VOLUME",
}

_NOT_SERVED = frozenset({"ControllerPublishVolume", "ControllerUnpublishVolume"})

Method = Callable[[Any], Awaitable[Any]]


@dataclass(eq=False)
class Call:
    """One call as the driver saw it. `deadline` is what the client gave it, in seconds; `code` is None until it has
    ended.
    """

    rpc: str
    request: Any
    deadline: float | None
    metadata: Mapping[str, Any]
    running: bool = True
    cancelled: bool = False
    code: str | None = None


class Driver:
    """The embedded driver: `state` to look at, `faults` to add to, `calls` to read, `wait_until` to wait on."""

    def __init__(self, config: Config | None = None, *, folder: Path | None = None) -> None:
        self.config = config or Config()
        self.state = State(self.config, Disk(folder) if folder else None)
        self.faults = Faults(self.config.faults)
        self.calls: list[Call] = []
        self.on_call: Callable[[Call], None] = lambda call: None  # told when a call begins and when it has ended
        self._server: bridge.Connections | None = None
        self._backend: Queue | None = None
        self._changed = trio.Event()

    def made(self, rpc: str, *, running: bool | None = None) -> list[Call]:
        """The calls of one kind so far; `running` keeps those that have (not) ended."""
        return [call for call in self.calls if call.rpc == rpc and running in (None, call.running)]

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that only changes with a call's begin or end."""
        while not holds():
            await self._changed.wait()

    def break_connections(self) -> None:
        """Cut every open connection without a word; clients may connect again."""
        if self._server is not None:
            self._server.break_connections()

    def say_goodbye(self) -> None:
        """End every open connection politely: what runs on it is still answered."""
        if self._server is not None:
            self._server.say_goodbye()

    async def serve(
        self, path: str | Path, *, task_status: trio.TaskStatus["Driver"] = trio.TASK_STATUS_IGNORED
    ) -> Never:
        """Listen on the socket until cancelled. The socket is gone afterwards."""
        # Made anew each time: the config may have changed while nobody was served.
        services = [Identity(self.config), Controller(self.config, self.state), Node(self.config)]
        try:
            async with trio.open_nursery() as nursery:
                if self.config.backend is not None:
                    self._backend = self._backend or Queue(self.config.backend)
                    await nursery.start(self._backend.run)
                self._server = await nursery.start(bridge.listen, str(path), services, self._answer)
                task_status.started(self)
        finally:
            Path(path).unlink(missing_ok=True)  # noqa: ASYNC240 - no await after a cancellation
        raise AssertionError("listen returned")

    async def _answer(
        self, rpc: str, method: Method, request: Any, deadline: float | None, metadata: Mapping[str, Any]
    ) -> Any:
        call = Call(rpc, request, deadline, metadata)
        self.calls.append(call)
        self._tell(call)
        try:
            response = await self._respond(call, method)
            if self.config.unknown_fields:
                with_unknown(response)
            call.code = "OK"
        except Refused as refused:
            call.code = refused.code
            raise
        except trio.Cancelled:
            call.cancelled = True
            raise
        finally:
            # Also for a call that was cut off: tests wait for it to have ended.
            call.running = False
            self._tell(call)
        return response

    def _tell(self, call: Call) -> None:
        self.on_call(call)
        self._changed.set()
        self._changed = trio.Event()

    async def _respond(self, call: Call, method: Method) -> Any:
        needed = _NEEDS.get(call.rpc)
        # A driver does not serve what it has no capability for, whatever its code could do.
        if call.rpc in _NOT_SERVED or (needed and needed not in self.config.controller):
            raise Refused("UNIMPLEMENTED", f"this driver has no {call.rpc}")
        fault = self.faults.take(call.rpc, self._subjects(call.request))
        if fault is None:
            return await self._worked(call, method)
        # In this order a fault may combine them: late, then held at a gate, then no answer or a wrong one.
        await trio.sleep(fault.delay)
        if fault.gate:
            await self.faults.gate(fault.gate).wait()
        if fault.hang:
            await trio.sleep_forever()
        if fault.code:
            # The worst case for a client: the work is done and the answer says that it failed.
            if fault.created:
                await method(call.request)
            raise Refused(fault.code, fault.message)
        return _altered(await method(call.request), fault)

    async def _worked(self, call: Call, method: Method) -> Any:
        if self._backend is None or call.rpc not in ("CreateVolume", "DeleteVolume"):
            return await method(call.request)
        volume = getattr(call.request, "name", "") or call.request.volume_id
        return await self._backend.call(f"{call.rpc} {volume}", lambda: method(call.request))

    def _subjects(self, request: Any) -> list[str]:
        """What a fault's pattern is searched in: the volume's name and id, the claim's name where it is known, and the
        token of a list."""
        # Requests have different fields; a pattern is simply not found in those that lack one.
        name, id_ = getattr(request, "name", ""), getattr(request, "volume_id", "")
        token = getattr(request, "starting_token", "")
        volume = self.state.volumes.get(id_)
        parameters = getattr(request, "parameters", {}) or (volume.parameters if volume else {})
        keys = ("csi.storage.k8s.io/pvc/namespace", "csi.storage.k8s.io/pvc/name")
        claim = "/".join(parameters[key] for key in keys if key in parameters)
        return [subject for subject in (name, id_, token, volume.name if volume else "", claim) if subject]


def _altered(response: Any, fault: Fault) -> Any:
    if isinstance(response, csi.ProbeResponse):
        return csi.ProbeResponse(ready=not fault.not_ready)
    if isinstance(response, csi.ListVolumesResponse):
        return replace(response, next_token=fault.next_token or response.next_token)
    if not isinstance(response, csi.CreateVolumeResponse) or response.volume is None:
        return response
    volume = response.volume
    volume.capacity_bytes += fault.capacity_delta
    if fault.volume_id is not None:
        volume.volume_id = fault.volume_id
    if fault.volume_context is not None:
        volume.volume_context = fault.volume_context
    if fault.accessible_topology is not None:
        volume.accessible_topology = [csi.Topology(segments=segments) for segments in fault.accessible_topology]
    if fault.drop_content_source:
        volume.content_source = None
    return csi.CreateVolumeResponse() if fault.no_volume else response


async def serve(
    path: str | Path,
    config: Config | None = None,
    *,
    folder: Path | None = None,
    task_status: trio.TaskStatus[Driver] = trio.TASK_STATUS_IGNORED,
) -> Never:
    """A new driver on this socket; `started` gives it. To serve the same volumes again later, keep the Driver and use
    its `serve`.
    """
    await Driver(config, folder=folder).serve(path, task_status=task_status)
