"""What people must find again when this process is gone: the last leftover volumes, in a Lease (design.md 6).

A Lease, because that is the one kind that every published role lets us write. It is written only when something comes
to it. Nobody waits for it: what cannot be written stands in the log and in events too.
"""

from collections import deque
from typing import Any

import msgspec
import trio

from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.errors import KubeError, unless_gone
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import Lease
from csi_provisioner.planning import leftover
from csi_provisioner.planning.entries import UnreadableError, pack
from csi_provisioner.planning.leftover import Leftover

# Seconds between tries
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
# Seconds to wait for more: volumes are often dropped by the hundred, and share a write
COMPANY = 1.0


class Kept(msgspec.Struct, eq=False, dict=True):
    """One Lease, `name` in `namespace`; kept nowhere if that is ""."""

    client: KubeClient
    name: str
    namespace: str

    def __post_init__(self) -> None:
        self._waiting: deque[Leftover] = deque(maxlen=leftover.KEPT)
        self._changed = trio.Event()
        self._told = ""

    def add(self, news: Leftover) -> None:
        self._waiting.append(news)
        self._changed.set()

    async def run(self) -> None:
        """Writes until cancelled."""
        pause = COMPANY
        while self.namespace:
            await self._changed.wait()
            await trio.sleep(pause)
            pause = COMPANY if await self.write() else min(max(FIRST_PAUSE, 2 * pause), LONGEST_PAUSE)

    async def write(self) -> bool:
        """One try at all that waits; whether nothing is left to write."""
        news = list(self._waiting)
        if not news or not self.namespace:
            return True
        try:
            await self._send(news)
        except KubeError as error:
            # The same trouble is told once, not at every try.
            if str(error) != self._told:
                self._told = str(error)
                log.warning("Leftover volumes cannot be noted in the cluster, they are in the log only", err=error)
            return False
        self._told = ""
        # While it was written more may have come, and pushed out the oldest of a full queue.
        # What came while the write was under way is still to be written; the oldest may have been pushed out.
        for written in news:
            if self._waiting and self._waiting[0] is written:
                self._waiting.popleft()
        if not self._waiting:
            self._changed = trio.Event()
        return not self._waiting

    async def _send(self, news: list[Leftover]) -> None:
        def edit(lease: dict[str, Any]) -> bool:
            meta = lease["metadata"]
            meta["labels"] = {**(meta.get("labels") or {}), "app.kubernetes.io/managed-by": "csi-provisioner"}
            annotations = meta["annotations"] = meta.get("annotations") or {}
            try:
                known = leftover.read(annotations)
            except UnreadableError as error:
                log.warning("The list of leftover volumes cannot be read and begins anew", lease=self.name, err=error)
                known = {}
            annotations[leftover.DROPPED] = pack(leftover.added(known, news))
            return True

        with unless_gone():
            await self.client.change(Lease, self.name, self.namespace, seen="", edit=edit)
            return
        lease: dict[str, Any] = {"metadata": {"name": self.name, "namespace": self.namespace}, "spec": {}}
        edit(lease)
        await self.client.create(Lease, lease, self.namespace)
