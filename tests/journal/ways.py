"""What is between a process of `world.py` and the others: its requests to the API server, its calls to the driver."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from csi_provisioner.csi.errors import CallError
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code

if TYPE_CHECKING:
    from .world import History, Process

T = TypeVar("T")

TIMEOUT = 4.0
"""Seconds of a call, and the longest way of a message."""


class Wire:
    """What stands in for `Sender`: requests of one process to the API server."""

    def __init__(self, world: "History", process: "Process") -> None:
        self._world, self._process = world, process
        self.cluster = SimpleNamespace(troubles=set())
        self.transport = SimpleNamespace(close=lambda: None)

    def server_time(self) -> float:
        return self._world.server_time()

    async def send(self, ask: Any, begin: Callable[[], Any] | None = None) -> bytes:
        apply = self._world.server.request(ask.method, ask.url, ask.data)
        if begin is not None:
            begin()
        reads = ask.method == "GET"
        lost = KubeError(0, "Timeout", "no answer")
        return await self._world.message(self._process, f"{ask.method} {ask.url}", apply, lost, reads=reads)

    async def open_stream(self, ask: Any) -> "Stream":
        return Stream(self._world, ask)


class Stream:
    def __init__(self, world: "History", ask: Any) -> None:
        name = (ask.params.get("fieldSelector") or "").removeprefix("metadata.name=")
        self._chunks = world.server.watch(ask.url, str(ask.params["resourceVersion"]), name, world.lag)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def __anext__(self) -> bytes:
        return await self._chunks.__anext__()

    def close(self) -> None:
        return


class Storage:
    """What stands in for the driver's adapter: calls of one process to the one storage backend."""

    def __init__(self, world: "History", process: "Process") -> None:
        self._world, self._process = world, process

    async def create_volume(
        self, request: csi.CreateVolumeRequest, *, migrated: bool | None = None
    ) -> csi.CreateVolumeResponse:
        volume_id = await self._call("CreateVolume", partial(self._world.create, request.name), request.name)
        return csi.CreateVolumeResponse(volume=csi.Volume(volume_id=volume_id, capacity_bytes=1 << 30))

    async def delete_volume(
        self, request: csi.DeleteVolumeRequest, *, migrated: bool | None = None
    ) -> csi.DeleteVolumeResponse:
        await self._call(
            "DeleteVolume", partial(self._world.delete, self._process, request.volume_id), request.volume_id
        )
        return csi.DeleteVolumeResponse()

    async def _call(self, method: str, work: Callable[[], T], about: str) -> T:
        """As `Channel` does it: no call is begun after the lease's end."""
        world = self._world
        if not self._process.end.may_begin():
            raise CallError(Code.UNAVAILABLE, "not sent: the lease is over", method, lost=True)
        world.begun(self._process, method, about)
        late = CallError(Code.DEADLINE_EXCEEDED, "no answer", method)
        with trio.move_on_after(TIMEOUT):
            return await world.message(self._process, f"{method} {about}", work, late, calls=True)
        raise late
