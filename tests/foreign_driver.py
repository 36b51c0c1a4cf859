"""A CSI driver that shares nothing with the product: grpcio and protobuf's own messages, in a process of its own.

    python -m tests.foreign_driver --sock PATH --state FILE [--calls FILE] [--config FILE]

It prints `ready` on stdout once the socket is served. `tests.foreign_process` starts it from a test.

`--state`: what exists, one JSON object a line, only ever appended to, so that it survives `kill -9`. Volumes and
snapshots are idempotent by name, and each new one gets a random id: a volume made twice has two ids in there.

`--calls`: one JSON object a line. `{"phase": "begin", "method", "request", "timeout"}` when a call comes, with the
request in proto JSON, and `{"phase": "end", "method", "code"}` when it has ended; `code` is CANCELLED when the caller
went away. `call` is the same number in both.

`--config`: JSON, read again for every call, so a test may change it while the driver runs. All keys are optional:

    name          what GetPluginInfo says
    plugin        names of plugin capabilities; default: CONTROLLER_SERVICE
    controller    names of controller capabilities; default: CREATE_DELETE_VOLUME
    extra         more numbers for both lists: capabilities of a driver newer than the proto
    not_ready     answer so many probes of this process with ready = false
    node_id       for NodeGetInfo
    topology      {key: value}: for NodeGetInfo, and of volumes whose request requires none
    capacity      bytes for GetCapacity, or a list of {"topology": {...}, "available": N, "maximum": N}: the first
                  entry whose topology is part of the asked one answers
    grace         seconds that calls have to end in after SIGTERM; connections are ended politely at once
    page          entries on a page of ListVolumes; default: all
    max_age       milliseconds after which each connection is ended politely; read when the process starts
    snapshots     {id: size}: snapshots that exist beside those made by CreateSnapshot
    rules         list of faults. The first whose `method` is that of the call, whose `match` (a regular expression,
                  searched) fits its subject, and which is not used up, applies:
                    method     CreateVolume, DeleteVolume ...; any when left out
                    match      any when left out. The subjects: name and id in the request, and NAMESPACE/NAME of the
                               claim if --extra-create-metadata tells it
                    times      how often it applies in the life of this process; default: always
                    together   first wait for so many calls that the rule applies to
                    delay      seconds to wait; ended by a cancellation, which is then the answer
                    error      a gRPC status to answer with: RESOURCE_EXHAUSTED, ...
                    message    its text
                    capacity   what CreateVolume's answer says the volume's size is, whatever it is
                    after      true: do the work first, then wait and fail: the answer is lost, the volume is there
                    exit       true: the process ends with _exit(1) where the error would be answered
"""

import argparse
import itertools
import json
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from tests import protobuf

MAX_CALLS = 256
"""At once: more than the 100 creates and 100 deletes of one provisioner. Waiting calls hold a thread."""


class Config:
    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self._path.read_text()) if self._path else {}
        return values


class State:
    """Volumes and snapshots by id, replayed from the file."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self.volumes: dict[str, dict[str, Any]] = {}
        self.snapshots: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                self._apply(json.loads(line))
        self._file = path.open("a", buffering=1)

    def write(self, **change: Any) -> None:
        self._file.write(json.dumps(change) + "\n")
        self._apply(change)

    def _apply(self, change: dict[str, Any]) -> None:
        kept = getattr(self, change["kind"])
        if change["op"] == "create":
            kept[change["id"]] = change
        else:
            kept.pop(change["id"], None)

    def named(self, kind: str, name: str) -> dict[str, Any] | None:
        return next((kept for kept in getattr(self, kind).values() if kept["name"] == name), None)


class RefusedError(Exception):
    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Controller:
    def __init__(self, config: Config, state: State) -> None:
        self._config = config
        self._state = state

    def controller_get_capabilities(self, request: Any) -> dict[str, Any]:
        config = self._config.read()
        names = config.get("controller", ["CREATE_DELETE_VOLUME"])
        return {"capabilities": [{"rpc": {"type": name}} for name in [*names, *config.get("extra", [])]]}

    def create_volume(self, request: Any) -> dict[str, Any]:
        if not request.name:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "a volume needs a name")
        with self._state.lock:
            volume = self._state.named("volumes", request.name)
            wanted = max(request.capacity_range.required_bytes, self._source_size(request))
            if volume is None:
                self._state.write(
                    op="create",
                    kind="volumes",
                    id=f"vol-{uuid.uuid4()}",
                    name=request.name,
                    capacity=wanted or 1 << 30,
                    parameters=dict(request.parameters),
                    topology=self._topology(request),
                )
                volume = self._state.named("volumes", request.name)
            assert volume is not None
            if volume["capacity"] < wanted:
                raise RefusedError(grpc.StatusCode.ALREADY_EXISTS, f"volume {request.name} exists and is smaller")
        answer = {"volumeId": volume["id"], "capacityBytes": volume["capacity"], "volumeContext": {"foreign": "yes"}}
        if volume["topology"]:
            answer["accessibleTopology"] = [{"segments": volume["topology"]}]
        if request.HasField("volume_content_source"):
            answer["contentSource"] = json_format.MessageToDict(request.volume_content_source)
        return {"volume": answer}

    def _source_size(self, request: Any) -> int:
        source = request.volume_content_source
        kind = source.WhichOneof("type")
        if kind == "volume":
            found = self._state.volumes.get(source.volume.volume_id, {}).get("capacity")
        elif kind == "snapshot":
            known = self._config.read().get("snapshots", {})
            found = self._state.snapshots.get(source.snapshot.snapshot_id, {}).get("size")
            found = known.get(source.snapshot.snapshot_id, found)
        else:
            return 0
        if found is None:
            raise RefusedError(grpc.StatusCode.NOT_FOUND, f"the {kind} to copy from does not exist")
        return int(found)

    def _topology(self, request: Any) -> dict[str, str]:
        config = self._config.read()
        if "VOLUME_ACCESSIBILITY_CONSTRAINTS" not in config.get("plugin", []):
            return {}
        required = request.accessibility_requirements
        for topology in itertools.chain(required.preferred, required.requisite):
            return dict(topology.segments)
        return dict(config.get("topology", {}))

    def delete_volume(self, request: Any) -> dict[str, Any]:
        with self._state.lock:
            if request.volume_id in self._state.volumes:
                self._state.write(op="delete", kind="volumes", id=request.volume_id)
        return {}

    def list_volumes(self, request: Any) -> dict[str, Any]:
        """The token is the number of entries that went before; pages are as long as the configuration says."""
        with self._state.lock:
            volumes = list(self._state.volumes.values())
        first, page = int(request.starting_token or 0), self._config.read().get("page", len(volumes))
        entries = [
            {
                "volume": {
                    "volumeId": volume["id"],
                    "capacityBytes": volume["capacity"],
                    "volumeContext": {"foreign": "yes"} | volume["parameters"],
                }
            }
            for volume in volumes[first : first + page]
        ]
        more = first + page < len(volumes)
        return {"entries": entries} | ({"nextToken": str(first + page)} if more else {})

    def get_capacity(self, request: Any) -> dict[str, Any]:
        capacity = self._config.read().get("capacity", 1 << 40)
        if isinstance(capacity, int):
            return {"availableCapacity": capacity}
        asked = dict(request.accessible_topology.segments)
        for entry in capacity:
            if entry.get("topology", {}).items() <= asked.items():
                answer = {"availableCapacity": entry["available"]}
                return answer | ({"maximumVolumeSize": entry["maximum"]} if "maximum" in entry else {})
        return {"availableCapacity": 0}

    def create_snapshot(self, request: Any) -> dict[str, Any]:
        with self._state.lock:
            snapshot = self._state.named("snapshots", request.name)
            if snapshot is None:
                source = self._state.volumes.get(request.source_volume_id)
                if source is None:
                    raise RefusedError(grpc.StatusCode.NOT_FOUND, "the volume to snapshot does not exist")
                self._state.write(
                    op="create",
                    kind="snapshots",
                    id=f"snap-{uuid.uuid4()}",
                    name=request.name,
                    source=source["id"],
                    size=source["capacity"],
                    time=int(time.time()),
                )
                snapshot = self._state.named("snapshots", request.name)
        assert snapshot is not None
        return {
            "snapshot": {
                "snapshotId": snapshot["id"],
                "sourceVolumeId": snapshot["source"],
                "sizeBytes": snapshot["size"],
                "creationTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(snapshot["time"])),
                "readyToUse": True,
            }
        }

    def delete_snapshot(self, request: Any) -> dict[str, Any]:
        with self._state.lock:
            if request.snapshot_id in self._state.snapshots:
                self._state.write(op="delete", kind="snapshots", id=request.snapshot_id)
        return {}


class Identity:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._probes = itertools.count()

    def get_plugin_info(self, request: Any) -> dict[str, Any]:
        return {"name": self._config.read().get("name", "foreign.csi.example.com"), "vendorVersion": "1"}

    def get_plugin_capabilities(self, request: Any) -> dict[str, Any]:
        config = self._config.read()
        names = config.get("plugin", ["CONTROLLER_SERVICE"])
        return {"capabilities": [{"service": {"type": name}} for name in [*names, *config.get("extra", [])]]}

    def probe(self, request: Any) -> dict[str, Any]:
        return {"ready": False} if next(self._probes) < self._config.read().get("not_ready", 0) else {}


class Node:
    def __init__(self, config: Config) -> None:
        self._config = config

    def node_get_info(self, request: Any) -> dict[str, Any]:
        config = self._config.read()
        answer: dict[str, Any] = {"nodeId": config.get("node_id", "node-1")}
        return answer | ({"accessibleTopology": {"segments": config["topology"]}} if "topology" in config else {})


class Calls:
    """What every call goes through: the log, the rules, the translation between messages and dictionaries."""

    def __init__(self, config: Config, path: Path | None) -> None:
        self._config = config
        self._file = path.open("a", buffering=1) if path else None
        self._numbers = itertools.count()
        self._used: dict[str, int] = {}
        self._barriers: dict[int, threading.Barrier] = {}
        self._lock = threading.Lock()

    def handlers(self, service: str, implementation: Any) -> grpc.GenericRpcHandler:
        methods = {}
        for method in protobuf.service(service).methods:
            work = getattr(implementation, re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower(), None)
            if work is not None:
                request, response = protobuf.message(method.input_type.name), protobuf.message(method.output_type.name)
                methods[method.name] = grpc.unary_unary_rpc_method_handler(
                    self._handler(method.name, work, response), request.FromString, response.SerializeToString
                )
        return grpc.method_handlers_generic_handler(f"csi.v1.{service}", methods)

    def _handler(self, name: str, work: Any, response_class: Any) -> Any:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            call = next(self._numbers)
            shown = json_format.MessageToDict(request, preserving_proto_field_name=True)
            self._log(phase="begin", call=call, method=name, request=shown, timeout=context.time_remaining())
            code = grpc.StatusCode.UNKNOWN  # what grpcio makes of any other exception
            try:
                answer = self._answer(name, work, request, context)
                code = grpc.StatusCode.OK
                return json_format.ParseDict(answer, response_class())
            except RefusedError as refusal:
                code = refusal.code
                context.abort(code, str(refusal))
            finally:
                self._log(phase="end", call=call, method=name, code=code.name)

        return handle

    def _answer(self, name: str, work: Any, request: Any, context: grpc.ServicerContext) -> Any:
        rule = self._rule(name, request)
        answer = work(request) if rule.get("after") else None
        if "together" in rule:
            with self._lock:
                barrier = self._barriers.setdefault(rule["together"], threading.Barrier(rule["together"]))
            barrier.wait(timeout=60)  # only so that a failing test ends
        if rule.get("delay"):
            gone = threading.Event()
            if not context.add_callback(gone.set) or gone.wait(rule["delay"]):
                raise RefusedError(grpc.StatusCode.CANCELLED, "the caller went away")
        if rule.get("exit"):
            os._exit(1)
        if rule.get("error"):
            raise RefusedError(grpc.StatusCode[rule["error"]], rule.get("message", "as the test wants it"))
        answer = answer if answer is not None else work(request)
        if "capacity" in rule:
            answer["volume"]["capacityBytes"] = rule["capacity"]
        return answer

    def _rule(self, method: str, request: Any) -> dict[str, Any]:
        subjects = list(_subjects(request))
        for rule in self._config.read().get("rules", []):
            if rule.get("method", method) != method:
                continue
            if "match" in rule and not any(re.search(rule["match"], subject) for subject in subjects):
                continue
            with self._lock:
                used = self._used.get(key := json.dumps(rule), 0)
                if "times" in rule and used >= rule["times"]:
                    continue
                self._used[key] = used + 1
            return dict(rule)
        return {}

    def _log(self, **entry: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"time": time.time()} | entry) + "\n")


def _subjects(request: Any) -> Iterator[str]:
    yield from (getattr(request, field, "") for field in ("name", "volume_id", "snapshot_id", "starting_token"))
    parameters = dict(getattr(request, "parameters", {}))
    claim = parameters.get("csi.storage.k8s.io/pvc/name")
    if claim:
        yield f"{parameters.get('csi.storage.k8s.io/pvc/namespace')}/{claim}"


def main() -> None:
    parser = argparse.ArgumentParser(description="A CSI driver for tests, on grpcio")
    parser.add_argument("--sock", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--calls", type=Path)
    parser.add_argument("--config", type=Path)
    arguments = parser.parse_args()
    config = Config(arguments.config)
    calls = Calls(config, arguments.calls)
    age = config.read().get("max_age")
    options = [("grpc.max_connection_age_ms", age)] if age else []
    server = grpc.server(futures.ThreadPoolExecutor(MAX_CALLS), options=options)
    server.add_generic_rpc_handlers(
        (
            calls.handlers("Identity", Identity(config)),
            calls.handlers("Controller", Controller(config, State(arguments.state))),
            calls.handlers("Node", Node(config)),
        )
    )
    arguments.sock.unlink(missing_ok=True)  # of a process that was killed
    server.add_insecure_port(f"unix:{arguments.sock}")
    server.start()
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.stop(grace=config.read().get("grace")).wait()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
