"""What the embedded driver is told to be: its name, its capabilities, its storage pools. Data only.

A Config can be written as JSON (see `load`), for a driver that runs as a process of its own.
"""

from pathlib import Path

import msgspec

from sandbox.driver.faults import Fault

GIB = 1 << 30

# Everything the driver can do. Attaching (PUBLISH_UNPUBLISH_VOLUME) is left out: nothing here is ever mounted.
CONTROLLER_CAPABILITIES = (
    "CREATE_DELETE_VOLUME",
    "LIST_VOLUMES",
    "GET_CAPACITY",
    "CREATE_DELETE_SNAPSHOT",
    "LIST_SNAPSHOTS",
    "GET_SNAPSHOT",
    "CLONE_VOLUME",
    "EXPAND_VOLUME",
    "GET_VOLUME",
    "SINGLE_NODE_MULTI_WRITER",
    "MODIFY_VOLUME",
)


class Pool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Storage that the nodes of one topology segment reach; with an empty segment, all nodes reach it."""

    segment: dict[str, str] = {}
    size: int = 10_240 * GIB
    largest_volume: int = 1_024 * GIB


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The driver's identity and limits. Capability names are those of the proto; a number stands for one that has no
    name yet.
    """

    name: str = "sandbox.csi.example.com"
    plugin: tuple[str | int, ...] = ("CONTROLLER_SERVICE",)
    controller: tuple[str | int, ...] = CONTROLLER_CAPABILITIES
    pools: tuple[Pool, ...] = (Pool(),)
    default_size: int = GIB
    volume_context: dict[str, str] = {}
    context_of_parameters: bool = False  # as many drivers have it, the parameters of CreateVolume are in it too
    ids_of_names: bool = False  # a volume's id holds its name
    page: int = 0  # entries on a page of a list, at most; 0: as many as there are
    mutable_parameters: tuple[str, ...] = ("iops", "throughput")  # the keys a volume attributes class may have
    node_id: str = "sandbox-node"
    node_segment: dict[str, str] = {}
    faults: tuple[Fault, ...] = ()


def load(path: Path) -> Config:
    return msgspec.json.decode(path.read_bytes(), type=Config)
