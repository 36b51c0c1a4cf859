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


def marked_fields() -> set[tuple[str, str]]:
    """Message and field of every `csi_secret`; none of the messages is nested."""
    pool = _pool()
    secret = pool.FindExtensionByName("csi.v1.csi_secret")
    options_class = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))
    return {
        (name, field.name)
        for name, kind in pool.FindFileByName(PROTO.name).message_types_by_name.items()
        for field in kind.fields
        if options_class.FromString(field.GetOptions().SerializeToString()).Extensions[secret]
    }
