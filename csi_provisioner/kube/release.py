"""Watches a Lease that somebody else holds, so that its release is seen at once (process.md 6.5).

Only a help: the candidate looks at the Lease again and again whether or not this works, and decides by what it reads.
"""

import random as randomness
from collections.abc import Callable
from typing import NoReturn

import trio

from csi_provisioner.kube.client import KubeClient, Scope
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.reflector import LONGEST_WATCH, SHORTEST_WATCH
from csi_provisioner.kube.watching import INACTIVITY
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import Lease

# Seconds between tries: of a right that is missing only now and then, since somebody may grant it.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0


async def watch(
    client: KubeClient,
    name: str,
    namespace: str,
    *,
    version: Callable[[], str],
    released: Callable[[], None],
    random: Callable[[], float] = randomness.random,
) -> NoReturn:
    """Calls `released` each time the Lease is seen to have no holder. `version`: what the last look at it found, "" if
    nothing; a watch begins there, so that it needs no list and so no right to one.

    A Lease that is deleted is not released: its leader works on until it notices.
    """
    scope, pause = Scope(namespace, fields=f"metadata.name={name}"), FIRST_PAUSE
    while True:
        if begin := version():
            seconds = SHORTEST_WATCH + int((LONGEST_WATCH - SHORTEST_WATCH) * random())
            try:
                with trio.move_on_after(INACTIVITY) as silence:
                    async with client.watch(Lease, scope, resource_version=begin, timeout_seconds=seconds) as events:
                        async for event, _ in events:
                            silence.deadline, pause = trio.current_time() + INACTIVITY, FIRST_PAUSE
                            if event.type in ("ADDED", "MODIFIED") and not event.object.spec.holderIdentity:
                                released()
            except KubeError as error:
                log.v(3, "The lease is not watched, its release is seen by looks alone", lease=name, err=error)
        await trio.sleep(pause * (0.5 + random()))
        pause = min(2 * pause, LONGEST_PAUSE)
