"""`protos/csi.proto` by protobuf's own implementation: the other side of every wire test. Nothing generated is kept."""

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import ServiceDescriptor

PROTO = Path(__file__).parent.parent / "protos" / "csi.proto"


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "set"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}", f"--descriptor_set_out={output}"]
        subprocess.run([*command, "--include_imports", PROTO.name], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


def message(name: str) -> Any:
    """The class of a message, by its name in the proto: `CreateVolumeRequest`, `VolumeCapability.AccessMode`."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"csi.v1.{name}"))


def service(name: str) -> ServiceDescriptor:
    return _pool().FindServiceByName(f"csi.v1.{name}")
