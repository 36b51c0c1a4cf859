"""Watches that do not get on, on virtual time: what happens is seen all the same, and people are told once."""

import pytest

from sandbox.api.faults import Fault
from tests.installation import CLAIM, VOLUME, Installation, Line, anyio_backend, site

__all__ = ["anyio_backend", "site"]

TROUBLES = {
    "end at once": Fault("watch", CLAIM, page="", times=None),
    "an error": Fault(
        "watch",
        CLAIM,
        page='{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd event received with PrevKv=nil"}}\n',
        times=None,
    ),
    "an event that cannot be decoded": Fault(
        "watch", CLAIM, page='{"type":"ADDED","object":{"metadata":{"name":5}}}\n', times=None
    ),
    "half an event": Fault("watch", CLAIM, page='{"type":"ADDED","obj', times=None),
    "forbidden": Fault("watch", CLAIM, code=403, times=None),
    "bad gateway": Fault("watch", CLAIM, code=502, times=None),
    "expired": Fault("watch", CLAIM, code=410, times=None),
}


def told(site: Installation) -> list[Line]:
    """What people are told of watches."""
    return [line for text in ("trying on", "Can watch again") for line in site.logged(text)]


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
async def test_a_claim_is_seen_though_no_watch_gets_on(site: Installation, trouble: Fault) -> None:
    site.storage_class()
    await site.start()
    await site.rest(100)
    site.api.add(trouble)
    site.api.cut_watches(CLAIM)
    before = len(site.requests.of("list", CLAIM))
    for number in range(3):
        site.claim(f"data-{number}")
        await site.rest(35)
    assert len(site.calls()) == 3
    assert len(site.requests.of("list", CLAIM)) - before <= 1 + 105 / 30
    [line] = told(site)
    assert line.keys["kind"] == CLAIM
    site.api.clear()
    await site.rest(40)
    site.claim("late")
    await site.bound("data-0", "data-1", "data-2", "late")
    assert [line.message for line in told(site)[1:]] == ["Can watch again"]


async def test_a_claim_that_a_lagging_server_shows_after_a_bookmark_is_seen(site: Installation) -> None:
    site.storage_class()
    await site.start()
    site.objects.lag(CLAIM)
    site.claim()
    site.claim("gone")
    site.delete(CLAIM, "gone")
    await site.rest(65)  # a bookmark comes
    assert site.calls() == []
    site.api.cut_watches(CLAIM)
    await site.rest(5)
    site.objects.catch_up(CLAIM)
    await site.bound("data")
    assert len(site.calls()) == 1
    site.objects.lag(VOLUME)
    site.delete(CLAIM, "data")
    await site.rest(65)
    site.objects.catch_up(VOLUME)
    await site.until(lambda: site.find(VOLUME, site.volume_of("data")) is None if site.find(CLAIM, "data") else True)
    await site.until(lambda: not site.driver.state.volumes)
