"""Random lives on virtual time: claims come and go while driver, API server, watches and provisioner fail in turn.

Each seed is one history; what it did is in the captured log of a test that fails. Whatever happened, once all is well
again every claim has its volume, what was deleted is gone, and a volume that is left over was told. Processes keep a
volume journal, and are killed as well as stopped. Not here: codes by which a driver says for certain that there is no
volume, because one that lies leaks.
"""

import random
from dataclasses import replace

import pytest
import trio

from csi_provisioner.settings import ElectionSettings
from sandbox.api.faults import Fault as ApiFault
from sandbox.driver import Fault
from tests.installation import CLAIM, NAMESPACE, PROVISIONING, VOLUME, Installation, site

__all__ = ["site"]

# Each is a second of work: the session with the control plane, which takes its time, lives the longer list.
SEEDS = (*range(20), *(pytest.param(seed, marks=pytest.mark.cluster) for seed in range(20, 80)))
STEPS = 50
UNCERTAIN = ("CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED")
# not 404, which would be a lie
REFUSALS = (401, 403, 409, 410, 429, 500, 503, 504)
# what a watch says before it ends
ENDS = ("", '{"type":"ERROR","object":{"kind":"Status","code":500}}\n', '{"type":"ADDED","object":{"metadata":5}}\n')
PAUSES = (0.0, 0.01, 0.05, 0.3, 2.0, 20.0)
LEFT_OVER = "A volume may be left over"
ELECTED = ElectionSettings(enabled=True, namespace=NAMESPACE, own_namespace=NAMESPACE)
ALONE = ElectionSettings(own_namespace=NAMESPACE)


class Life:
    """What may happen next; all of it decided by the seed."""

    def __init__(self, site: Installation, seed: int) -> None:
        self._site = site
        self._random = random.Random(seed)
        self._election = self._random.choice([ELECTED, ALONE])
        self._is_serving = True
        self._made = 0
        self.wanted: list[str] = []

    async def live(self) -> None:
        happenings = {
            self._claims: 35,
            self._deletions: 15,
            self._driver_fault: 12,
            self._api_fault: 18,
            self._watches: 10,
            self._driver_restart: 5,
            self._provisioner_restart: 5,
            self._provisioner_killed: 5,
        }
        await self._start()
        for happening in self._random.choices(list(happenings), list(happenings.values()), k=STEPS):
            print(happening.__name__)
            await happening()
            await trio.sleep(self._random.choice(PAUSES))

    async def calm(self) -> None:
        self._site.api.clear()
        self._resume_watches()
        self._site.driver.faults.clear()
        await self._serve()
        if self._site.is_over:  # it lost its lease
            await self._start()

    async def _claims(self) -> None:
        for _ in range(self._random.randint(1, 4)):
            self._made += 1
            name = f"claim-{self._made}"
            self._site.claim(name)
            self.wanted.append(name)

    async def _deletions(self) -> None:
        waiting = [name for name in self.wanted if not self._site.cluster.is_bound(name)]
        some = waiting if waiting and self._random.random() < 0.5 else self.wanted
        for name in self._random.sample(some, min(len(some), 3)):
            self.wanted.remove(name)
            self._site.delete(CLAIM, name)

    async def _driver_fault(self) -> None:
        times = self._random.randint(1, 4)
        wrong = self._random.choice(
            [
                Fault(code=self._random.choice(UNCERTAIN), created=self._random.random() < 0.5),
                Fault(delay=self._random.choice([0.3, 2.0, 15.0])),
                Fault(hang=True),
                Fault(capacity_delta=-1),
                Fault("DeleteVolume", code="INTERNAL", created=self._random.random() < 0.5),
                Fault("DeleteVolume", delay=2.0),
            ]
        )
        self._site.driver.faults.add(Fault(**{**_fields(wrong), "times": times}))

    async def _api_fault(self) -> None:
        fault = ApiFault(
            verb=self._random.choice(["*", "create", "patch", "delete", "get", "list", "watch"]),
            kind=self._random.choice(["*", VOLUME, CLAIM, "Event", "StorageClass"]),
            agent="csi-provisioner*",
            times=self._random.randint(1, 6),
            skip=self._random.randint(0, 2),
        )
        wrong = self._random.random()
        if wrong < 0.5:
            fault = replace(fault, code=self._random.choice(REFUSALS))
        elif wrong < 0.85:
            fault = replace(fault, cut=self._random.choice(["before", "after", "answer"]))
        else:
            fault = replace(fault, delay=self._random.choice([0.5, 20.0]))
        self._site.api.add(fault)

    async def _watches(self) -> None:
        kind = self._random.choice(["*", VOLUME, CLAIM])
        match self._random.randrange(6):
            case 0:
                self._site.api.cut_watches(kind)
            case 1:
                self._site.api.stall_watches(kind)
            case 2:
                self._site.objects.lag(VOLUME if kind == VOLUME else CLAIM)
            case 3:
                line, times = self._random.choice(ENDS), self._random.randint(1, 6)
                self._site.api.add(ApiFault("watch", kind, page=line, times=times))
                self._site.api.cut_watches(kind)
            case _:
                self._resume_watches()

    def _resume_watches(self) -> None:
        self._site.api.resume_watches()
        for kind in (VOLUME, CLAIM):
            self._site.objects.catch_up(kind)

    async def _driver_restart(self) -> None:
        if self._is_serving:
            self._site.kill_driver()
            self._is_serving = False
        else:
            await self._serve()

    async def _serve(self) -> None:
        if not self._is_serving:
            await trio.sleep(0.5)  # until its old socket is gone
            await self._site.serve()
            self._is_serving = True

    async def _provisioner_restart(self) -> None:
        await self._serve()  # without a driver the first connection gives up, as it should
        await self._site.stop()
        await trio.sleep(self._random.choice([0.0, 1.0, 30.0]))
        await self._start()

    async def _provisioner_killed(self) -> None:
        await self._serve()
        await self._site.kill()
        await trio.sleep(self._random.choice([0.0, 1.0, 30.0]))
        await self._start()

    async def _start(self) -> None:
        grace = self._random.choice([0.5, 5.0, 25.0])
        await self._site.start(
            call_timeout=self._random.choice([1.0, 3.0, 10.0]),
            provisioning=PROVISIONING,
            shutdown_grace=grace,
            election=self._election,
        )


def _fields(fault: Fault) -> dict[str, object]:
    return {name: getattr(fault, name) for name in fault.__struct_fields__}


@pytest.mark.parametrize("seed", SEEDS)
async def test_all_is_well_again(site: Installation, seed: int) -> None:
    site.storage_class()
    life = Life(site, seed)
    await life.live()
    await life.calm()

    def volumes() -> set[str]:
        return {volume["metadata"]["name"] for volume in site.objects.all(VOLUME)}

    def settled() -> bool:
        names = set(site.cluster.claims())
        return names == set(life.wanted) and site.cluster.is_bound(*names) and len(volumes()) == len(names)

    def nothing_lost() -> bool:
        left_over = {volume.name for volume in site.driver.state.volumes.values()} - volumes()
        return left_over <= {line.keys["volume"] for line in site.logged(LEFT_OVER)}

    await site.until(lambda: settled() and nothing_lost())
    assert volumes() <= {volume.name for volume in site.driver.state.volumes.values()}
