"""Three hundred that hang until their timeout keep three hundred of another lane waiting for less than a second.

The suite has the cheap cases; `LANES=all` in the environment makes all kinds of lanes, timeouts and moments.
"""

import os
from collections.abc import Callable

import pytest

from csi_provisioner.settings import ElectionSettings, RetrySettings
from tests.deletion.released import released
from tests.installation import NAMESPACE, VOLUME, Installation

JOURNAL = ElectionSettings(enabled=True, namespace=NAMESPACE, own_namespace=NAMESPACE)
COUNT = 300
WHOLE = os.environ.get("LANES") == "all"
TIMEOUTS = (10.0, 60.0) if WHOLE else (10.0,)
LATER = (5.0, 0.0) if WHOLE else (5.0,)
SECONDS = COUNT if WHOLE else 20

Make = Callable[[Installation, str, bool], object]


def claim(site: Installation, name: str, hangs: bool) -> None:
    site.claim(name, "hangs" if hangs else "quick")


def clone(site: Installation, name: str, hangs: bool) -> None:
    source = {"kind": "PersistentVolumeClaim", "name": "source"}
    site.claim(name, "quick", **({"dataSource": source} if hangs else {}))


def deletion(site: Installation, name: str, hangs: bool) -> None:
    released(site, name, storageClassName="hangs" if hangs else "quick")


class Lanes:
    """What hangs, and what is answered at once."""

    def __init__(self, site: Installation, make: Make) -> None:
        self.site, self.make = site, make
        self.rpc = "DeleteVolume" if make is deletion else "CreateVolume"

    async def start(self, workers: int, limit: float) -> None:
        for name in ("hangs", "quick"):
            self.site.storage_class(name)
        election = ElectionSettings() if self.make is deletion else JOURNAL
        await self.site.start(retries=RetrySettings(workers=workers), election=election, call_timeout=limit)
        if self.make is clone:
            self.site.claim("source", "quick")
            await self.site.bound("source")
        self.site.fault(rpc=self.rpc, match="hanging", hang=True)

    async def fill(self, prefix: str) -> None:
        for number in range(COUNT):
            self.make(self.site, f"{prefix}-{number}", prefix == "hanging")
            if number % 100 == 0:
                await self.site.rest(0.01)  # a server ends watches that are not read

    def running(self) -> int:
        return len(self.site.driver.made(self.rpc, running=True))

    def quick(self) -> int:
        """Of those that are answered at once, how many PersistentVolumes there are."""
        volumes = self.site.objects.all(VOLUME)
        names = [volume["spec"]["claimRef"]["name"] for volume in volumes]
        if self.make is deletion:
            names = [volume["metadata"]["name"] for volume in volumes]
        return sum(name.startswith("quick") for name in names)


@pytest.mark.parametrize("make", [claim, clone, deletion] if WHOLE else [deletion])
@pytest.mark.parametrize("limit", TIMEOUTS)
@pytest.mark.parametrize("later", LATER)
async def test_all_at_once(site: Installation, make: Make, limit: float, later: float) -> None:
    lanes = Lanes(site, make)
    await lanes.start(100, limit)
    await lanes.fill("hanging")
    if later:
        await site.rest(later)
        assert lanes.running() == 88
    await lanes.fill("quick")
    await site.rest(0.95)
    assert lanes.quick() == (0 if make is deletion else COUNT)
    assert lanes.running() >= 88


@pytest.mark.parametrize("make", [claim, clone, deletion])
@pytest.mark.parametrize("limit", TIMEOUTS)
@pytest.mark.parametrize("workers", [4, 8])
async def test_one_a_second(site: Installation, make: Make, workers: int, limit: float) -> None:
    lanes = Lanes(site, make)
    await lanes.start(workers, limit)
    await lanes.fill("hanging")
    await site.rest(5)
    assert lanes.running() == workers - 1
    for number in range(SECONDS):
        make(site, f"quick-{number}", False)
        await site.rest(1)
        assert lanes.quick() == (0 if make is deletion else number + 1)
