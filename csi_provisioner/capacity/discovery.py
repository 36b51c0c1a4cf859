"""Which segments the cluster has (capacity.md 5.1): looked at anew after nodes have changed, once for many changes."""

from collections.abc import Callable

from csi_provisioner.capacity import segments
from csi_provisioner.capacity.segments import Segment
from csi_provisioner.kube.caches import Caches
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import CSINode, Node
from csi_provisioner.model.outcome import DONE, Attempt, Outcome
from csi_provisioner.settings import RetrySettings
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import Loop

QUEUE = "csitopology"

# The queue's only key
_LOOK = "segments"
# A rollout changes many nodes in a second. One look at 5,000 costs about 15 ms; the scheduler can wait this long.
SETTLE = 0.2


class Discovery:
    """`changed` is called after a change of nodes has settled, and asks `segments`."""

    def __init__(
        self,
        driver: str,
        caches: Caches,
        *,
        changed: Callable[[], None],
        retries: RetrySettings,
        metrics: Metrics,
    ) -> None:
        self._driver = driver
        self._caches = caches
        self._changed = changed
        self._loop = Loop(
            QUEUE,
            self._look,
            workers=1,
            backoff=Backoff(retries.start, retries.maximum),
            exclusive=Exclusive(),
            metrics=metrics.queue(QUEUE),
        )
        caches.nodes.subscribe(self._saw_node)
        caches.csinodes.subscribe(self._saw_csinode)

    def segments(self) -> frozenset[Segment]:
        nodes = {node.metadata.name: node for node in self._caches.nodes.values()}
        return segments.of_nodes(self._driver, self._caches.csinodes.values(), nodes)

    async def run(self) -> None:
        """For ever, beginning with a look. Changes before are noted, and looked at then."""
        self._loop.wake(_LOOK)
        await self._loop.run()

    async def _look(self, _key: str, _attempt: Attempt) -> Outcome:
        self._changed()
        return DONE

    def _saw_node(self, _key: str, old: Node | None, new: Node | None) -> None:
        if segments.node_matters(old, new):
            self._loop.wake(_LOOK, SETTLE)

    def _saw_csinode(self, _key: str, old: CSINode | None, new: CSINode | None) -> None:
        if segments.csinode_matters(self._driver, old, new):
            self._loop.wake(_LOOK, SETTLE)
