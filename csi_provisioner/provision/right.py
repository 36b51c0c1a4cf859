"""May this process write PersistentVolumes? Asked before the driver is: a volume that cannot be written down is lost.

The answer is that of the API server (SelfSubjectAccessReview). Where it does not answer, the right is taken for
granted: a cluster may do without reviews.
"""

import math

import trio

from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.reviews import is_allowed
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import steps
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.rights import SAVE, Right

AGAIN = 10.0
"""Seconds between two looks at a right that is missing: somebody may grant it at any time."""
FRESH = 60.0
"""Seconds for which the answer to somebody else is one for us too."""
RULE = "grant create on persistentvolumes to the service account of this process (kustomize/base does)"


class RightToSave:
    """`granted`: what anybody in this process has found out of its rights, and when."""

    def __init__(self, kube: KubeClient, granted: dict[Right, float]) -> None:
        self._kube = kube
        self._found = granted
        # A hundred claims that come at once share one question.
        self._asking = trio.Lock()
        self._asked_at = -math.inf
        self._granted = True
        self._doubted = True

    def doubt(self) -> None:
        """A PersistentVolume was refused with 403."""
        if not self._doubted:
            self._doubted, self._asked_at = True, -math.inf
            self._found.pop(SAVE, None)

    async def look(self) -> None:
        """Once a term, and while it is in doubt again, at most once in `AGAIN` seconds."""
        async with self._asking:
            if self._doubted and trio.current_time() >= self._asked_at + AGAIN:
                self._asked_at = trio.current_time()
                granted = self._is_known()
                if not granted:
                    allowed = await is_allowed(self._kube, SAVE.verb, SAVE.resource)
                    granted = allowed is not False
                    self._found |= {SAVE: trio.current_time()} if allowed else {}
                self._granted, self._doubted = granted, not granted

    async def check(self) -> None:
        """Raises Refusal."""
        if self._doubted:
            await self.look()
        if not self._granted:
            text = f"this process may not create PersistentVolumes, so the driver is not asked for a volume; {RULE}"
            raise Refusal(State.NO_CHANGE, text, step=steps.RIGHT)

    def _is_known(self) -> bool:
        return self._found.get(SAVE, -math.inf) > trio.current_time() - FRESH
