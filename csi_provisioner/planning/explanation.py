"""What `explain` is told and what it answers: the facts, what is still to be read, the steps (design.md 8)."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from csi_provisioner.model.kubernetes import Event, NodeName, PersistentVolumeClaim
from csi_provisioner.model.live import Live
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.request import Plan
from csi_provisioner.settings import ProvisioningSettings


class Status(Enum):
    """`WAITS`: somebody else has to act; `WORKS`: this program will; `DONE`: there is nothing left to do."""

    OK = "ok"
    DONE = "done"
    WORKS = "works"
    WAITS = "waits"
    REFUSED = "refused"
    NOT_KNOWN = "not known"


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """`step` is a word of `planning/steps`, `who` has to act, `fix` is what helps."""

    step: str
    status: Status
    text: str
    fix: str = ""
    who: str = ""


class Read(NamedTuple):
    """An object, or without a name all of a kind: of one namespace, or with these fields."""

    kind: type[Any]
    name: str = ""
    namespace: str = ""
    fields: str = ""


class Unread(msgspec.Struct, frozen=True):
    """In an object's place. `forbidden`: whether it exists is not known either."""

    why: str
    missing: bool = False
    forbidden: bool = False


class NeedError(Exception):
    """The next step depends on something that was not read yet."""

    def __init__(self, read: Read) -> None:
        super().__init__(read)
        self.read = read


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known. `found` has an object, a list or an `Unread` for each `Read`."""

    claim: PersistentVolumeClaim
    driver: DriverFacts
    settings: ProvisioningSettings
    asked: bool = True
    """What the driver can do is its own word; else the claim's needs are assumed to be met."""
    away: str = ""
    """Why the driver does not answer."""
    dry: bool = False
    """There is no such claim: would one be given a volume?"""
    own_node: NodeName | None = None
    """With --node-deployment: only claims of this node are ours."""
    takes_any: bool = True
    """With --node-deployment: claims with immediate binding are taken too."""
    local: ClusterTopology | None = None
    """With --node-deployment: what this node's driver says of its place."""
    same_account: bool = False
    """Who asks has the provisioner's rights: what may not be read here, it may not read either."""
    may_save: bool | None = None
    """The right to create PersistentVolumes."""
    capacity_namespace: str = ""
    """Where the driver's room is published; empty: anywhere."""
    elects: bool | None = None
    """There is an election; None: nobody said."""
    lease: Read | None = None
    """The leader's; None: nobody said in which namespace."""
    live: Live | None = None
    silent: str = ""
    """Why `live` is not known."""
    now: float = 0.0
    """Seconds since 1970 by the API server's clock."""
    found: Mapping[Read, Any] = {}

    def read(self, kind: type[Any], name: str = "", namespace: str = "", fields: str = "") -> Any:
        read = Read(kind, name, namespace, fields)
        # Not there is not the same as gone: for what does not exist there is an `Unread`.
        if read not in self.found:
            raise NeedError(read)
        return self.found[read]


class Explanation(msgspec.Struct, frozen=True):
    """`needs`: to be read before there is an answer. `plan`: the request that would be sent."""

    steps: Sequence[Step]
    needs: Read | None = None
    plan: Plan | None = None
    events: Sequence[Event] = ()

    @property
    def decisive(self) -> Step:
        """The cause: what stops the claim first, else the last step."""
        # Later steps may stop it too: people mend what comes first.
        stops = (step for step in self.steps if step.status in (Status.WAITS, Status.REFUSED))
        ends = (step for step in reversed(self.steps) if step.status in (Status.WORKS, Status.DONE))
        return next(stops, None) or next(ends, self.steps[-1])
