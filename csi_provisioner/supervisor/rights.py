"""Looks whether this process has the rights that its flags and its driver need, and tells once what is missing."""

from collections.abc import Callable
from contextlib import closing

import trio

from csi_provisioner.advice import kustomization
from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.reviews import is_allowed
from csi_provisioner.logs import log
from csi_provisioner.model.state import RightsState
from csi_provisioner.planning.rights import Right

# Seconds from the API server's first answer on: a first volume comes first.
FIRST_LOOK = 1.0
# Seconds: roles may be younger than the pod, and are often applied with it.
SECOND_LOOK = 10.0
# Seconds between looks while a needed right is missing.
AGAIN = 300.0
# Seconds between looks while the API server says nothing.
UNANSWERED = 10.0


class Rights:
    """`wanted` are looked at, each with one review, but for those that somebody has found `granted`, and when. `run`
    begins with the API server's first answer."""

    def __init__(self, client: Callable[[], KubeClient], wanted: list[Right], granted: dict[Right, float]) -> None:
        self.state = RightsState()
        self._client = client
        self._wanted = wanted
        self._granted = granted
        self._missing: list[Right] = []

    async def run(self) -> None:
        """Until nothing that is needed is missing."""
        await trio.sleep(FIRST_LOOK)
        with closing(self._client()) as client:
            while not await self._look(client, self._wanted):  # noqa: ASYNC110 - asks the server
                await trio.sleep(UNANSWERED)
            # Roles are often applied together with the pod, in any order.
            if self._missing:
                await trio.sleep(SECOND_LOOK)
                await self._look(client, self._missing)
            self._tell()
            while any(right.needed for right in self._missing):
                await trio.sleep(AGAIN)
                before = len(self._missing)
                if await self._look(client, self._missing) and len(self._missing) < before:
                    log.info("Rights that were missing are there", missing=len(self._missing))

    async def _look(self, client: KubeClient, rights: list[Right]) -> bool:
        """Whether the server has answered. A review without an answer is nothing that is missing."""
        missing = []
        for right in rights:
            if right in self._granted:
                continue
            allowed = await is_allowed(client, right.verb, right.resource, right.group, right.namespace, right.name)
            if allowed is None:
                return False
            if allowed:
                self._granted[right] = trio.current_time()
            else:
                missing.append(right)
        self._missing = missing
        needed = tuple(described(right) for right in self._missing if right.needed)
        others = tuple(described(right) for right in self._missing if not right.needed)
        self.state = RightsState(known=True, missing=needed, lacking=others)
        return True

    def _tell(self) -> None:
        if self._missing:
            text = "Rights are missing; grant them to the service account of this process"
            log.warning(text, missing="; ".join(described(right) for right in self._missing))


def described(right: Right) -> str:
    """With what does not work without it, and what to add."""
    without = f": {right.without}" if right.without else ""
    folder = kustomization(right.group, right.resource, right.verb)
    return f"{right}{without}; add {right.rule}" + (f" (kustomize/{folder} has it)" if folder else "")
