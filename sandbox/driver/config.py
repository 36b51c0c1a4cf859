"""What the embedded driver is told to be: its name, its capabilities, its storage pools. Data only.

A Config can be written as JSON (see `load`), for a driver that runs as a process of its own.
"""

from pathlib import Path
from typing import Literal

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


class Backend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is behind the driver: one queue that serves `rate` requests a second. A volume needs `requests`, one after
    the other, to be made and to be deleted.

    `after_timeout`, when the caller has given up: its requests are dropped; or the one that waits is served in vain;
    or the call goes on, and the next ones for the volume are Aborted meanwhile. `noise`: times are exponential.
    """

    rate: float
    requests: int = 1
    after_timeout: Literal["drop", "serve", "go_on"] = "drop"
    noise: bool = False


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
    backend: Backend | None = None  # None: each call is answered at once
    unknown_fields: bool = False  # every answer has fields that its client does not know


def load(path: Path) -> Config:
    return msgspec.json.decode(path.read_bytes(), type=Config)
