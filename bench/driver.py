"""A CSI driver that costs next to nothing, on grpcio: no state, every volume exists at once. Run as its own process.

It counts calls and remembers when the first of each kind came; SIGUSR1 makes it print that. (Asking by gRPC would put
grpcio's threads into the process that starts all the others, and a fork does not suit them.)
"""

import collections
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

from csi_provisioner.model import csi

NAME = "bench.csi.example.com"


def _create(request: csi.CreateVolumeRequest) -> csi.CreateVolumeResponse:
    size = request.capacity_range.required_bytes if request.capacity_range else 1 << 30
    volume = csi.Volume(volume_id=f"id-{request.name}", capacity_bytes=size)
    return csi.CreateVolumeResponse(volume=volume)


def _capabilities(request: csi.ControllerGetCapabilitiesRequest) -> csi.ControllerGetCapabilitiesResponse:
    rpc = csi.ControllerServiceCapabilityRpc(type=csi.ControllerServiceCapabilityRpcType.CREATE_DELETE_VOLUME)
    return csi.ControllerGetCapabilitiesResponse(capabilities=[csi.ControllerServiceCapability(rpc=rpc)])


def _plugin(request: csi.GetPluginCapabilitiesRequest) -> csi.GetPluginCapabilitiesResponse:
    service = csi.PluginCapabilityService(type=csi.PluginCapabilityServiceType.CONTROLLER_SERVICE)
    return csi.GetPluginCapabilitiesResponse(capabilities=[csi.PluginCapability(service=service)])


CALLS: dict[str, tuple[type[Any], Any]] = {
    "/csi.v1.Identity/Probe": (csi.ProbeRequest, lambda request: csi.ProbeResponse(ready=True)),
    "/csi.v1.Identity/GetPluginInfo": (
        csi.GetPluginInfoRequest,
        lambda request: csi.GetPluginInfoResponse(name=NAME, vendor_version="1"),
    ),
    "/csi.v1.Identity/GetPluginCapabilities": (csi.GetPluginCapabilitiesRequest, _plugin),
    "/csi.v1.Controller/ControllerGetCapabilities": (csi.ControllerGetCapabilitiesRequest, _capabilities),
    "/csi.v1.Controller/CreateVolume": (csi.CreateVolumeRequest, _create),
    "/csi.v1.Controller/DeleteVolume": (csi.DeleteVolumeRequest, lambda request: csi.DeleteVolumeResponse()),
}


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._counts: collections.Counter[str] = collections.Counter()
        self._first: dict[str, float] = {}

    def service(self, details: Any) -> Any:
        if details.method not in CALLS:
            return None
        request_type, answer = CALLS[details.method]
        rpc = details.method.rpartition("/")[2]
        delay = self._delay if rpc == "CreateVolume" else 0.0

        def respond(request: Any, context: Any) -> Any:
            self._counts[rpc] += 1
            self._first.setdefault(rpc, time.time())
            time.sleep(delay)
            return answer(request)

        return grpc.unary_unary_rpc_method_handler(respond, request_type.parse, bytes)

    def take(self) -> str:
        taken = json.dumps({"counts": self._counts, "first": self._first})
        self._counts.clear()
        self._first.clear()
        return taken


class Driver:
    """The driver's process, from outside."""

    def __init__(self, socket: Path, delay: float = 0.0) -> None:
        self.socket = socket
        command = [sys.executable, "-m", "bench.driver", str(socket), str(delay)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout
        self._out = self._process.stdout
        self._out.readline()  # it says when it listens

    def stats(self) -> dict[str, Any]:
        """Calls since the last time this was asked, and the wall clock at the first of each kind."""
        self._process.send_signal(signal.SIGUSR1)
        taken: dict[str, Any] = json.loads(self._out.readline())
        return taken

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def main() -> None:
    signals = {signal.SIGTERM, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # for all threads: only this one takes them
    delay = float(sys.argv[2])
    handlers = Handlers(delay)
    server = grpc.server(ThreadPoolExecutor(max_workers=100 if delay else 8), handlers=[handlers])
    server.add_insecure_port(f"unix:{sys.argv[1]}")
    server.start()
    print("listening", flush=True)
    while signal.sigwait(signals) != signal.SIGTERM:
        print(handlers.take(), flush=True)
    server.stop(grace=0)


if __name__ == "__main__":
    main()
