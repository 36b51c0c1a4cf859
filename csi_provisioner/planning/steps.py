"""The steps from a claim to its volume, a word each: `explain` shows them, refusals carry them, metrics count by them.

The words are an interface: people write alerts on them. One is never renamed, and a new one is a new step.
"""

from types import TracebackType

from csi_provisioner.model.outcome import TryError

CLAIM = "claim"
"""Size, access modes, selector: what the claim itself asks for."""
CLASS = "class"
NODE = "node"
"""The class binds late, and the scheduler has chosen no node yet."""
SOURCE = "source"
DRIVER = "driver"
"""It does not answer, or cannot do what the claim needs."""
TOPOLOGY = "topology"
SECRET = "secret"
PARAMETERS = "parameters"
ATTRIBUTES = "attributes"
"""The VolumeAttributesClass."""
RIGHT = "right"
"""This process may not write PersistentVolumes."""
QUEUE = "queue"
"""Nothing is wrong: it waits for a worker, or for its next try."""
CALL = "call"
"""CreateVolume is under way, or the driver's last answer stands."""
SAVE = "save"
"""The volume is made, and its PersistentVolume is not written yet."""
BIND = "bind"
"""The PersistentVolume is written, and the volume controller has not bound the claim to it yet."""

REASONS = (CLAIM, CLASS, NODE, SOURCE, DRIVER, TOPOLOGY, SECRET, PARAMETERS, ATTRIBUTES, RIGHT, QUEUE, CALL, SAVE, BIND)
"""Why a claim of ours has no volume yet, in the order in which the steps come. A closed set."""

QUOTA, CAPACITY, LEADER, JOURNAL, FINALIZERS, EVENTS = "quota", "capacity", "leader", "journal", "finalizers", "events"
"""What `explain` shows besides."""


class at:  # noqa: N801 - reads like the statement that it is
    """What ends a try inside is a failure of this step, unless it says of which itself."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        if isinstance(error, TryError) and not error.step:
            error.step = self._step
