"""Makes `csi_provisioner/model/csi/` from `csi.proto`: `python protos/generate.py`; with `--check` it only compares.

Three things come out. The messages, without any server code, because every layer imports them and none but the sandbox
serves them; the server bases, in a module of their own (`services.py`); and the table of secret fields
(`secret_fields.py`), read from the option `csi_secret` in the descriptors, which the message compiler drops.

The compiler would also generate all of `google/protobuf/descriptor.proto` for that option, so it gets a copy of the
proto without the option; the table is made from the original.
"""

import argparse
import filecmp
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from betterproto2_compiler.compile.naming import pythonize_class_name
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROTO = Path(__file__).with_name("csi.proto")
TARGET = PROTO.parent.parent / "csi_provisioner" / "model" / "csi"

PACKAGE = '''"""Messages of the Container Storage Interface, made by `protos/generate.py` from `protos/csi.proto`.

Never edited. The server bases are in `services`, which only the sandbox imports.
"""

from typing import TYPE_CHECKING

from .csi.v1 import *  # noqa: F403

if TYPE_CHECKING:
    from .csi.v1.others import *  # noqa: F403
else:

    def __getattr__(name):
        """Messages that no first volume needs are made when one of them is asked for."""
        from .csi.v1 import others

        return getattr(others, name)
'''

FIRST_CALLS = (
    "Probe",
    "GetPluginInfo",
    "GetPluginCapabilities",
    "ControllerGetCapabilities",
    "CreateVolume",
    "DeleteVolume",
)
"""What a start and its first volume say to a driver; the messages of all else are in a module of their own."""

SERVICES = '''"""Bases of servers for the services of `protos/csi.proto`. Made by `protos/generate.py`; never edited."""

from typing import TYPE_CHECKING

import grpclib
from betterproto2 import grpclib as betterproto2_grpclib

from .csi.v1 import *  # noqa: F403
from .csi.v1.others import *  # noqa: F403

if TYPE_CHECKING:
    import grpclib.server


'''

SECRETS = '''"""Fields marked `csi_secret` in `protos/csi.proto`. Made by `protos/generate.py`; never edited."""

SECRET_FIELDS: frozenset[tuple[str, str]] = frozenset(
    {{
{rows}    }}
)
"""(name of the message class, name of the field)"""
'''


def protoc(folder: Path, *arguments: str) -> None:
    # protoc looks for the message compiler on the path, and that one for ruff: take those of this environment. The
    # folder decides which ruff settings the messages are formatted by.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", *arguments, PROTO.name]
    done = subprocess.run(
        command, cwd=PROTO.parent, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(done.stderr)


def without_option(proto: str) -> str:
    proto = proto.replace('import "google/protobuf/descriptor.proto";\n', "")
    proto = re.sub(r"^extend google\.protobuf\.FieldOptions \{.*?^\}\n", "", proto, flags=re.DOTALL | re.MULTILINE)
    return proto.replace(" [(csi_secret) = true]", "")


def compile_messages(source: Path, output: Path, *, server: str) -> None:
    output.mkdir(parents=True, exist_ok=True)
    protoc(
        source,
        f"--python_betterproto2_out={output}",
        "--python_betterproto2_opt=client_generation=none",
        f"--python_betterproto2_opt=server_generation={server}",
    )


def lighter(generated: str) -> str:
    """As it is, each start would load a parser of dates, and make texts of the signatures of all messages."""
    text = generated.replace("import dateutil.parser\n", "").replace(
        "dateutil.parser.isoparse", "datetime.datetime.fromisoformat"
    )
    return re.sub(
        r'^(class (\w+)\(betterproto2\.Message\):\n)(?!    """)', r'\1    """\2"""\n\n', text, flags=re.MULTILINE
    )


def parted(generated: str) -> tuple[str, str]:
    """The module of messages as two: those of the first calls, and all others."""
    top, last = generated.index("__all__ = ("), generated.index("\n\n\nfrom ...google import")
    imports = generated.index("\n)\n", top) + 3
    begin = generated.index("\n\n\n", generated.index("check_compiler_version", imports))
    pieces = re.split(r"\n\n\n(?=@dataclass|class )", generated[begin:last])[1:]
    made = {re.search(r"^class (\w+)\(", piece, re.MULTILINE)[1]: piece for piece in pieces}  # type: ignore[index]
    first, more = set(), {f"{call}{end}" for call in FIRST_CALLS for end in ("Request", "Response")}
    while more:
        first |= more
        more = {word for name in more for word in re.findall(r"\w+", made[name]) if word in made} - first

    def module(names: list[str], besides: str = "") -> str:
        everything = "".join(f'    "{name}",\n' for name in sorted(names))
        body = "".join(f"\n\n\n{made[name]}" for name in names)
        return (
            f"{generated[:top]}__all__ = (\n{everything})\n{generated[imports:begin]}{besides}{body}{generated[last:]}"
        )

    others = [name for name in made if name not in first]
    return module([name for name in made if name in first]), module(others, "\n\nfrom . import *  # noqa: F403")


def only(names: set[str], generated: str) -> str:
    """A module without the messages that nobody names."""
    top, *pieces = re.split(r"\n\n\n(?=@dataclass|class )", generated.rstrip("\n"))
    made = {re.search(r"^class (\w+)\(", piece, re.MULTILINE)[1]: piece for piece in pieces}  # type: ignore[index]
    for name in set(made) - names:
        top = top.replace(f'    "{name}",\n', "")
        del made[name]
    return "\n\n\n".join([top, *made.values()]) + "\n"


def server_bases(generated: str) -> str:
    """The tail of a module generated with servers: they come after all messages."""
    return generated[generated.index("class ControllerBase(") :]


def secret_fields(files: descriptor_pb2.FileDescriptorSet) -> Iterator[tuple[str, str]]:
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    secret = pool.FindExtensionByName("csi.v1.csi_secret")
    options_class = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))

    def walk(prefix: str, message: descriptor_pb2.DescriptorProto) -> Iterator[tuple[str, str]]:
        path = prefix + message.name
        for field in message.field:
            options = options_class.FromString(field.options.SerializeToString())
            if options.Extensions[secret]:
                yield pythonize_class_name(path), field.name
        for nested in message.nested_type:
            yield from walk(f"{path}.", nested)

    for file in files.file:
        if file.package == "csi.v1":
            for message in file.message_type:
                yield from walk("", message)


def generate(output: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / PROTO.name).write_text(without_option(PROTO.read_text()))
        compile_messages(folder, output, server="none")
        for package in ("csi/v1", "google/protobuf"):
            module = output / package / "__init__.py"
            module.write_text(lighter(module.read_text()))
        compile_messages(folder, folder / "served", server="async")
        served = (folder / "served" / "csi" / "v1" / "__init__.py").read_text()
        protoc(PROTO.parent, f"--descriptor_set_out={folder / 'set'}", "--include_imports")
        descriptors = descriptor_pb2.FileDescriptorSet.FromString((folder / "set").read_bytes())
        messages = output / "csi" / "v1" / "__init__.py"
        first, others = parted(messages.read_text())
        google = output / "google" / "protobuf" / "__init__.py"
        google.write_text(only(set(re.findall(r"__google__protobuf__\.(\w+)", first + others)), google.read_text()))
        messages.write_text(first)
        messages.with_name("others.py").write_text(others)
    rows = "".join(f'        ("{message}", "{field}"),\n' for message, field in sorted(secret_fields(descriptors)))
    (output / "__init__.py").write_text(PACKAGE)
    (output / "services.py").write_text(SERVICES + server_bases(served))
    (output / "secret_fields.py").write_text(SECRETS.format(rows=rows))


def differences(made: Path, kept: Path) -> list[str]:
    def names(folder: Path) -> set[str]:
        return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"}

    everything = names(made) | names(kept)
    _, changed, missing = filecmp.cmpfiles(made, kept, everything, shallow=False)
    return sorted(changed + missing)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", nargs="?", type=lambda text: Path(text).resolve(), default=TARGET)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the output is not up to date")
    arguments = parser.parse_args()
    if not arguments.check:
        generate(arguments.output)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = differences(Path(scratch), arguments.output)
    for name in stale:
        print(f"not as protos/csi.proto says: {arguments.output / name}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
